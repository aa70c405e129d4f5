"""The check run that we want as the JSON that GitHub takes, inside all of its limits. Pure.

Source: https://docs.github.com/rest/checks/runs
"""

from datetime import UTC, datetime
from typing import Any

from ci_bot.events.fields import storable
from ci_bot.records import Annotation, Button, CheckRun

# The documentation says characters; the server answers "exceeds a maximum bytesize of 65535".
MAX_TEXT_BYTES = 65_535
MAX_TITLE = 255
MAX_ANNOTATIONS = 50  # a request; further ones are appended by further requests
MAX_MESSAGE_BYTES = 64 * 1024
MAX_BUTTONS = 3
MAX_LABEL = 20
MAX_DESCRIPTION = 40
MAX_IDENTIFIER = 20
LEVELS = frozenset({"notice", "warning", "failure"})
CUT = "\n\n… cut: more than GitHub takes"


def create_body(run: CheckRun) -> dict[str, Any]:
    """The body of POST …/check-runs, with the first 50 annotations."""
    return {"head_sha": run.head_sha} | _body(run, 0)


def update_body(run: CheckRun, annotations_from: int) -> dict[str, Any]:
    """The body of PATCH …/check-runs/ID, with the next 50 annotations: GitHub appends, so none may be sent twice."""
    return _body(run, annotations_from)


def sent_annotations(run: CheckRun, annotations_from: int) -> int:
    """How many annotations of `run` GitHub has once the body made with `annotations_from` is accepted."""
    return max(annotations_from, min(annotations_from + MAX_ANNOTATIONS, len(run.annotations)))


def _body(run: CheckRun, annotations_from: int) -> dict[str, Any]:
    if run.status == "completed" and run.conclusion is None:
        raise ValueError(f"check run {run.name!r} is completed without a conclusion")
    title = cut_characters(storable(run.title), MAX_TITLE) or run.name
    output: dict[str, Any] = {
        "title": title,
        "summary": cut_bytes(storable(run.summary), MAX_TEXT_BYTES) or title,
        "text": cut_bytes(storable(run.text), MAX_TEXT_BYTES),
        "annotations": [annotation(a) for a in run.annotations[annotations_from : annotations_from + MAX_ANNOTATIONS]],
    }
    body: dict[str, Any] = {
        "name": run.name,
        "status": run.status,
        "output": output,
        # Always there: a list left out would leave the old buttons in place.
        "actions": [action(b) for b in run.buttons[:MAX_BUTTONS]],
        "external_id": run.external_id,
    }
    if run.status == "completed":
        # Giving a conclusion completes a run, so it goes with no other status.
        body["conclusion"] = run.conclusion
        if run.completed_at is not None:
            body["completed_at"] = rfc3339(run.completed_at)
    if run.started_at is not None:
        body["started_at"] = rfc3339(run.started_at)
    if run.details_url.startswith(("http://", "https://")):
        body["details_url"] = run.details_url
    return body


def annotation(remark: Annotation) -> dict[str, Any]:
    """One annotation; columns only within one line, as GitHub wants it."""
    start_line = max(remark.start_line, 1)
    end_line = max(remark.end_line, start_line)
    body: dict[str, Any] = {
        "path": storable(remark.path),
        "start_line": start_line,
        "end_line": end_line,
        "annotation_level": remark.level if remark.level in LEVELS else "warning",
        "message": cut_bytes(storable(remark.message), MAX_MESSAGE_BYTES) or "(no text)",
    }
    if remark.title:
        body["title"] = cut_characters(storable(remark.title), MAX_TITLE)
    if start_line == end_line and remark.start_column is not None:
        body["start_column"] = max(remark.start_column, 1)
        body["end_column"] = max(remark.end_column or 0, body["start_column"])
    return body


def action(button: Button) -> dict[str, str]:
    """One button; its identifier comes back in the event, so it is never cut.

    Raises:
        ValueError: the identifier is longer than GitHub takes.
    """
    if len(button.identifier) > MAX_IDENTIFIER:
        raise ValueError(f"button {button.identifier!r}: at most {MAX_IDENTIFIER} characters")
    return {
        "label": cut_characters(button.label, MAX_LABEL),
        "description": cut_characters(button.description, MAX_DESCRIPTION),
        "identifier": button.identifier,
    }


def rfc3339(at: float) -> str:
    """2026-01-31T12:00:00Z."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def cut_characters(text: str, limit: int) -> str:
    """At most `limit` characters, an ellipsis where something is missing."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def cut_bytes(text: str, limit: int) -> str:
    """At most `limit` bytes of UTF-8, with a mark where something is missing; the last guard, not the layout."""
    encoded = text.encode()
    if len(encoded) <= limit:
        return text
    return encoded[: limit - len(CUT.encode())].decode(errors="ignore") + CUT
