"""Judges requests and answers by GitHub's own OpenAPI description, where it lies beside the repository."""

import json
import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from jsonschema import Draft202012Validator, FormatChecker
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

DESCRIPTION = Path(__file__).parents[2] / "shared" / "github" / "openapi.json"
ROOT = "urn:github"
# which operations a caller without a token may use
OPEN = ("meta/get", "rate-limit/get", "apps/create-from-manifest")
_FORMATS = FormatChecker(formats=())


@_FORMATS.checks("date-time", ValueError)
def _is_date_time(value: object) -> bool:
    if not isinstance(value, str):
        return True
    return bool(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", value)) and datetime.fromisoformat(value).tzinfo is not None


@_FORMATS.checks("uri", ValueError)
def _is_uri(value: object) -> bool:
    return not isinstance(value, str) or bool(urlsplit(value).scheme)


def converted(part: Any) -> Any:
    """A piece of an OpenAPI 3.0 description as JSON Schema: `nullable` spelled out, references made absolute."""
    if isinstance(part, list):
        return [converted(each) for each in part]
    if not isinstance(part, dict):
        return part
    schema = {key: converted(value) for key, value in part.items() if key not in ("nullable", "discriminator")}
    if [each.get("title") for each in part.get("allOf", ())] == ["Simple User", "Enterprise"]:
        # a slip in GitHub's description: elsewhere the same two are alternatives, and no account is both
        schema["anyOf"] = schema.pop("allOf")
    if isinstance(schema.get("$ref"), str):
        schema = {"$ref": schema["$ref"].replace("#/", f"{ROOT}#/", 1)}
    if part.get("nullable") is True:
        return {"anyOf": [schema, {"type": "null"}]}
    return schema


class OpenApi:
    """The description, ready to judge; each judgement is a list of problems, empty where all is well."""

    def __init__(self, description: Mapping[str, Any]) -> None:
        self._paths = description["paths"]
        self._components = description["components"]
        self._judges: dict[int, Draft202012Validator] = {}
        resource = Resource.from_contents({"components": converted(self._components)}, DRAFT202012)
        self._registry: Registry = Registry().with_resource(ROOT, resource)
        self.operations = {
            operation["operationId"]: (method.upper(), path)
            for path, methods in self._paths.items()
            for method, operation in methods.items()
        }

    def _validate(self, schema: Any, value: Any, where: str) -> list[str]:
        # keyed by identity: the schemas live as long as the description does
        judge = self._judges.get(id(schema))
        if judge is None:
            judge = Draft202012Validator(converted(schema), registry=self._registry, format_checker=_FORMATS)
            self._judges[id(schema)] = judge
        return [
            f"{where}{''.join(f'/{part}' for part in error.absolute_path)}: {_first(error)}"
            for error in judge.iter_errors(value)
        ]

    def _resolved(self, part: Mapping[str, Any]) -> Mapping[str, Any]:
        while "$ref" in part:
            _, kind, name = part["$ref"].removeprefix("#/").split("/")
            part = self._components[kind][name]
        return part

    def request(self, operation: str, body: Any, query: Mapping[str, str], *, authorized: bool = True) -> list[str]:
        """Problems of a request, with three rules that the description lacks.

        A completed check run needs a conclusion, no key may be unknown, and a token must be there.
        """
        method, path = self.operations[operation]
        described = self._paths[path][method.lower()]
        problems = [] if authorized or operation in OPEN else [f"{operation}: without Authorization"]
        known = {}
        for parameter in map(self._resolved, described.get("parameters", [])):
            if parameter["in"] == "query":
                known[parameter["name"]] = parameter
        problems += [f"{operation}: unknown query parameter {name}" for name in query if name not in known]
        for name in set(query) & set(known):
            problems += self._parameter(operation, known[name], query[name])
        content = described.get("requestBody", {}).get("content", {})
        schema = content.get("application/json", {}).get("schema")
        if body is None:
            return problems + ([f"{operation}: no body"] if described.get("requestBody", {}).get("required") else [])
        if schema is None:
            return [*problems, f"{operation}: takes no body"]
        problems += self._validate(schema, body, operation)
        if isinstance(body, dict):
            problems += [f"{operation}: unknown key {key}" for key in body if key not in self._keys(schema)]
            if body.get("status") == "completed" and "conclusion" not in body:
                problems.append(f"{operation}: completed without conclusion")
        return problems

    def _keys(self, schema: Mapping[str, Any]) -> set[str]:
        schema = self._resolved(schema)
        inner = [part for kind in ("allOf", "anyOf", "oneOf") for part in schema.get(kind, [])]
        return set(schema.get("properties", {})).union(*(self._keys(part) for part in inner))

    def _parameter(self, operation: str, parameter: Mapping[str, Any], value: str) -> list[str]:
        schema = self._resolved(parameter["schema"])
        read: Any = value
        if schema.get("type") == "integer" and value.lstrip("-").isdecimal():
            read = int(value)
        return self._validate(schema, read, f"{operation}?{parameter['name']}")

    def response(self, operation: str, status: int, body: Any, media_type: str = "application/json") -> list[str]:
        """Problems of an answer; a refusal that the description does not list must have GitHub's shape of errors."""
        method, path = self.operations[operation]
        where = f"{operation} {status}"
        answers = self._paths[path][method.lower()]["responses"]
        if status in (204, 302, 304):
            return [] if body in (None, "", "0 bytes") else [f"{where}: has a body"]
        if str(status) not in answers:
            if status < 400:
                return [f"{where}: is not an answer of this operation"]
            error = isinstance(body, dict) and {"message", "documentation_url"} <= set(body)
            return [] if error else [f"{where}: not GitHub's shape of errors"]
        content = self._resolved(answers[str(status)]).get("content", {})
        bare = media_type.split(";")[0].replace("+json", "")
        described = content.get(bare) or content.get("application/json")
        return self._validate(described["schema"], body, where) if described else []

    def log(self, entries: Iterable[Mapping[str, Any]], *, anonymous: bool = False) -> list[str]:
        """Problems of a request log of the local GitHub: answers all, requests those that were not refused.

        `anonymous` lets requests without a token pass, which only tests of the local GitHub itself want.
        """
        problems = []
        for entry in entries:
            operation, status = entry["operation"], entry.get("status")
            if operation not in self.operations or status is None or entry.get("fault") == "down":
                continue
            if status < 400:
                authorized = anonymous or entry["authorization"] is not None
                problems += self.request(operation, entry["request_body"], entry["query"], authorized=authorized)
            media_type = entry.get("content_type", "")
            if not media_type or "json" in media_type:
                problems += self.response(operation, status, entry["response_body"], media_type)
        return problems


def _first(error: Any) -> str:
    """The innermost reason of the branch that came nearest, since "is not valid under any of" helps nobody."""
    while error.context:
        error = max(error.context, key=lambda each: len(each.absolute_path))
    said = str(error.message)
    return said if len(said) <= 300 else f"{said[:100]} … {said[-200:]}"


@cache
def _loaded() -> OpenApi:
    return OpenApi(json.loads(DESCRIPTION.read_text()))


def openapi() -> OpenApi:
    """GitHub's description, or a skip that says what is missing."""
    if not DESCRIPTION.exists():
        pytest.skip("GitHub's OpenAPI description (../shared/github/openapi.json) is not here")
    return _loaded()
