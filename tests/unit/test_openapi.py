"""The judge itself: what it lets pass and what it finds."""

from typing import Any

import pytest

from tests.openapi import converted, openapi

RUN = {"name": "n", "head_sha": "a" * 40}


def test_nullable_is_spelled_out_and_references_are_absolute() -> None:
    described = {"type": "object", "properties": {"a": {"type": "string", "nullable": True, "enum": ["x"]}}}
    assert converted(described)["properties"]["a"] == {"anyOf": [{"type": "string", "enum": ["x"]}, {"type": "null"}]}
    assert converted({"$ref": "#/components/schemas/x"}) == {"$ref": "urn:github#/components/schemas/x"}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (RUN, None),
        ({"name": "n"}, "head_sha"),
        ({**RUN, "status": "running"}, "running"),
        ({**RUN, "status": "completed"}, "without conclusion"),
        ({**RUN, "state": "x"}, "unknown key state"),
        ({**RUN, "output": {"title": "t", "summary": "x" * 65536}}, "too long"),
        ({**RUN, "started_at": "today"}, "date-time"),
        (None, "no body"),
    ],
)
def test_requests_are_judged(body: Any, words: str | None) -> None:
    problems = openapi().request("checks/create", body, {})
    assert problems == [] if words is None else words in problems[0]


def test_queries_and_tokens_are_judged() -> None:
    judge = openapi()
    assert judge.request("pulls/list", None, {"state": "all", "per_page": "5"}) == []
    assert "unknown query parameter" in judge.request("pulls/list", None, {"stat": "all"})[0]
    assert "wants" in judge.request("pulls/list", None, {"state": "wants"})[0]
    assert judge.request("pulls/list", None, {}, authorized=False) == ["pulls/list: without Authorization"]
    assert judge.request("meta/get", None, {}, authorized=False) == []


def test_answers_are_judged() -> None:
    judge = openapi()
    error = {"message": "m", "documentation_url": "d"}
    assert judge.response("checks/create", 422, error) == []
    assert "shape of errors" in judge.response("checks/create", 422, {"error": "m"})[0]
    assert "not an answer" in judge.response("checks/create", 200, {})[0]
    assert "required" in judge.response("checks/get", 200, {})[0]
    assert judge.response("repos/download-tarball-archive", 302, None) == []
    assert "has a body" in judge.response("issues/delete-comment", 204, {"a": 1})[0]
