"""Does a request follow GitHub's OpenAPI description? Says nothing where the description is not at hand."""

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import httpx2 as httpx
from jsonschema import Draft4Validator

DESCRIPTION = Path(__file__).parents[3].parent / "shared" / "github" / "openapi.json"
API_HOST = "api.example"


@cache
def description() -> Any:
    return json.loads(DESCRIPTION.read_text()) if DESCRIPTION.exists() else None


def complaints(request: httpx.Request) -> list[str]:
    """What GitHub's description has against the request."""
    if description() is None or request.url.host != API_HOST:
        return []
    found = operation(request.method, request.url.path)
    if found is None:
        return [f"{request.method} {request.url.path} is no operation of GitHub"]
    known = {p["name"] for p in map(resolve, found.get("parameters", [])) if p["in"] == "query"}
    problems = [f"unknown parameter {name}" for name in request.url.params if name not in known]
    if request.headers.get("x-github-api-version") is None:
        problems.append("no X-GitHub-Api-Version")
    schema = found.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
    if schema is None:
        return problems + (["a body where none is taken"] if request.content else [])
    body = json.loads(request.content or b"{}")
    validator = Draft4Validator({**strict(schema), "components": strict(description()["components"])})
    return problems + [f"{'/'.join(map(str, e.path))}: {e.message}" for e in validator.iter_errors(body)]


def operation(method: str, path: str) -> Any:
    """The operation with the longest address that matches: {ref} matches much."""
    matches = []
    for template, operations in description()["paths"].items():
        # {path} and {ref} may hold slashes.
        pattern = re.sub(r"\\\{(path|ref)\\\}", ".+", re.escape(template))
        pattern = re.sub(r"\\\{[a-z_]+\\\}", "[^/]+", pattern)
        if method.lower() in operations and re.fullmatch(pattern, path):
            matches.append((-len(template), template))
    return description()["paths"][min(matches)[1]][method.lower()] if matches else None


def resolve(parameter: Any) -> Any:
    while "$ref" in parameter:
        parameter = description()["components"]["parameters"][parameter["$ref"].rsplit("/", 1)[1]]
    return parameter


def strict(schema: Any) -> Any:
    """The schema without `nullable` (in requests nothing of ours is null), and closed to unknown keys."""
    if isinstance(schema, list):
        return [strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: strict(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object":
        closed.setdefault("additionalProperties", False)
    return closed
