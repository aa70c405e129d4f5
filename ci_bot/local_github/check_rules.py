"""What GitHub takes and refuses in the body of a check run. Pure."""

from collections.abc import Mapping
from typing import Any

from ci_bot.local_github.calls import Refusal, invalid
from ci_bot.local_github.shapes import moment
from ci_bot.local_github.state import Json

LONGEST_TEXT = 65535
"""In bytes of UTF-8."""
MOST_ANNOTATIONS = 50
MOST_ACTIONS = 3
LONGEST_MESSAGE_BYTES = 64 * 1024
LONGEST_TITLE = 255
ACTION_LENGTHS = {"label": 20, "description": 40, "identifier": 20}
CREATE_KEYS = (
    "name", "head_sha", "details_url", "external_id", "status", "started_at", "conclusion", "completed_at", "output",
    "actions",
)  # fmt: skip
UPDATE_KEYS = tuple(key for key in CREATE_KEYS if key != "head_sha")
# waiting, requested and pending are for GitHub Actions, stale is GitHub's own word
STATUSES = ("queued", "in_progress", "completed")
CONCLUSIONS = ("action_required", "cancelled", "failure", "neutral", "success", "skipped", "timed_out")
LEVELS = ("notice", "warning", "failure")
_ANNOTATION = {
    "path": str,
    "start_line": int,
    "end_line": int,
    "start_column": int,
    "end_column": int,
    "annotation_level": str,
    "message": str,
    "title": str,
    "raw_details": str,
}
_ANNOTATION_REQUIRED = ("path", "start_line", "end_line", "annotation_level", "message")


def wrong(field: str, value: Any, why: str) -> Refusal:
    """A value of the wrong shape, in the words of GitHub's schema check."""
    return Refusal(422, f"Invalid request.\n\nFor '{field}', {value!r} {why}.")


def _typed(where: str, item: Any, types: Mapping[str, type], required: tuple[str, ...]) -> Json:
    if not isinstance(item, dict):
        raise wrong(where, item, "is not an object")
    for key in required:
        if key not in item:
            raise Refusal(422, f'Invalid request.\n\n"{key}" wasn\'t supplied.')
    for key, value in item.items():
        if key not in types:
            raise Refusal(422, f'Invalid request.\n\n"{key}" is not a permitted key.')
        if not isinstance(value, types[key]) or isinstance(value, bool):
            raise wrong(f"{where}/{key}", value, f"is not a{'n integer' if types[key] is int else ' string'}")
    return item


def _one_of(field: str, value: Any, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise wrong(f"properties/{field}", value, f"is not a member of {list(allowed)}")


def _array(where: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise wrong(where, value, "is not an array")
    return value


def check_body(body: Json, *, creating: bool) -> None:
    """Refuse a body that GitHub would refuse; the keys themselves were looked at before.

    Raises:
        Refusal: 422.

    Source: https://docs.github.com/rest/checks/runs
    """
    strings = dict.fromkeys(("name", "head_sha", "details_url", "external_id", "started_at", "completed_at"), str)
    _typed("properties", {key: value for key, value in body.items() if key in strings}, strings, ())
    if "name" in body and not body["name"]:
        raise invalid("CheckRun", "name", "missing_field")
    if "status" in body:
        _one_of("status", body["status"], STATUSES)
    if "conclusion" in body:
        _one_of("conclusion", body["conclusion"], CONCLUSIONS)
    if body.get("status") == "completed" and "conclusion" not in body:
        raise invalid("CheckRun", "conclusion", "missing_field", "conclusion is required when status is completed")
    if not str(body.get("details_url", "http://")).startswith(("http://", "https://")):
        raise invalid("CheckRun", "details_url", "invalid", "details_url must use http or https scheme")
    for key in ("started_at", "completed_at"):
        if key in body:
            _time(key, body[key])
    if "output" in body:
        _output(body["output"], ("title", "summary") if creating else ("summary",))
    if "actions" in body:
        _actions(_array("properties/actions", body["actions"]))


def _time(key: str, value: str) -> None:
    try:
        moment(value)
    except ValueError as problem:
        raise wrong(f"properties/{key}", value, "is not a valid date-time") from problem


def _output(output: Any, required: tuple[str, ...]) -> None:
    types = {"title": str, "summary": str, "text": str, "annotations": list, "images": list}
    _typed("properties/output", output, types, required)
    for key in ("summary", "text"):
        size_bytes = len(output.get(key, "").encode())
        if size_bytes > LONGEST_TEXT:
            why = f"{key.capitalize()} exceeds a maximum bytesize of {LONGEST_TEXT}; {size_bytes} were supplied."
            raise Refusal(422, f"Invalid request.\n\n{why}")
    annotations = output.get("annotations", [])
    if len(annotations) > MOST_ANNOTATIONS:
        why = f"No more than {MOST_ANNOTATIONS} items are allowed; {len(annotations)} were supplied."
        raise Refusal(422, f"Invalid request.\n\n{why}")
    for annotation in annotations:
        _annotation(_typed("properties/annotations", annotation, _ANNOTATION, _ANNOTATION_REQUIRED))
    for image in output.get("images", []):
        _typed("properties/images", image, {"alt": str, "image_url": str, "caption": str}, ("alt", "image_url"))


def _annotation(annotation: Json) -> None:
    _one_of("annotation_level", annotation["annotation_level"], LEVELS)
    if annotation["start_line"] < 1 or annotation["end_line"] < annotation["start_line"]:
        raise invalid("CheckAnnotation", "end_line", "invalid", "end_line must not be before start_line, from 1 on")
    columns = "start_column" in annotation or "end_column" in annotation
    if columns and annotation["start_line"] != annotation["end_line"]:
        raise invalid("CheckAnnotation", "start_column", "invalid", "columns need start_line equal to end_line")
    for key in ("message", "raw_details"):
        if len(annotation.get(key, "").encode()) > LONGEST_MESSAGE_BYTES:
            raise invalid("CheckAnnotation", key, "too_long")
    if len(annotation.get("title", "")) > LONGEST_TITLE:
        raise invalid("CheckAnnotation", "title", "too_long")
    if not annotation["path"] or annotation["path"].startswith("/"):
        raise invalid("CheckAnnotation", "path", "invalid", "path must be relative to the repository")


def _actions(actions: list[Any]) -> None:
    if len(actions) > MOST_ACTIONS:
        why = f"No more than {MOST_ACTIONS} items are allowed; {len(actions)} were supplied."
        raise Refusal(422, f"Invalid request.\n\n{why}")
    for action in actions:
        _typed("properties/actions", action, dict.fromkeys(ACTION_LENGTHS, str), tuple(ACTION_LENGTHS))
        for key, longest in ACTION_LENGTHS.items():
            if not 0 < len(action[key]) <= longest:
                raise Refusal(422, f"Invalid request.\n\nOnly {longest} characters are allowed for {key}.")
