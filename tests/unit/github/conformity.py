"""Does a request follow GitHub's OpenAPI description? Says nothing where the description is not at hand."""

import json
import re

import httpx2 as httpx

from tests.openapi import DESCRIPTION, openapi

API_HOST = "api.example"


def complaints(request: httpx.Request) -> list[str]:
    """What GitHub's description has against the request."""
    if not DESCRIPTION.exists() or request.url.host != API_HOST:
        return []
    operation = operation_of(request.method, request.url.path)
    if operation is None:
        return [f"{request.method} {request.url.path} is no operation of GitHub"]
    body = json.loads(request.content) if request.content else None
    query, authorized = dict(request.url.params), "authorization" in request.headers
    problems = openapi().request(operation, body, query, authorized=authorized)
    return problems + ([] if "x-github-api-version" in request.headers else ["no X-GitHub-Api-Version"])


def operation_of(method: str, path: str) -> str | None:
    """The operation with the longest address that matches: {ref} and {path} may hold slashes, and so match much."""
    found = []
    for name, (its_method, template) in openapi().operations.items():
        pattern = re.sub(r"\\\{(path|ref)\\\}", ".+", re.escape(template))
        pattern = re.sub(r"\\\{[a-z_]+\\\}", "[^/]+", pattern)
        if its_method == method and re.fullmatch(pattern, path):
            found.append((-len(template), name))
    return min(found)[1] if found else None
