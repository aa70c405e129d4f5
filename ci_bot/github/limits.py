"""What an answer of GitHub that is no success asks of us: wait, give up, sign in again, come back. Pure."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

SECONDARY_WAIT_S = 60.0
MAX_WAIT_S = 2 * 3600.0  # primary limits renew hourly; a mad header must not silence us for days
MAX_BACKOFF_S = 300.0
MAX_MESSAGE = 300
GONE = frozenset({404, 410, 451})


@dataclass(frozen=True)
class Answer:
    """An HTTP answer; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    text: str


@dataclass(frozen=True)
class Wait:
    """A rate limit: no call before `seconds` from now."""

    seconds: float
    why: str


@dataclass(frozen=True)
class Absent:
    """Not there, not there any more, or not for us."""

    message: str


@dataclass(frozen=True)
class SignInAgain:
    """The token or key was not accepted."""

    message: str


@dataclass(frozen=True)
class Transient:
    """GitHub is in trouble; worth trying again after `seconds`."""

    seconds: float
    why: str


@dataclass(frozen=True)
class Refused:
    """GitHub understood and said no."""

    status: int
    message: str


Verdict = Wait | Absent | SignInAgain | Transient | Refused


def judge(answer: Answer, *, attempt: int, now: float, jitter: float) -> Verdict:
    """What to do about an answer other than 2xx.

    Args:
        answer: status, headers and text.
        attempt: how often in a row this was tried, this time included, >= 1.
        now: seconds since the epoch.
        jitter: 0 to 1, drawn by the caller.

    Source: https://docs.github.com/rest/using-the-rest-api/best-practices-for-using-the-rest-api
    """
    said = message(answer.text)
    if answer.status in {403, 429} and (wait := _wait(answer, attempt, now)):
        return wait
    # 404 "Integration not found" answers a JWT of an App that does not exist: everything would look gone.
    if answer.status == 401 or (answer.status == 404 and "integration not found" in said.lower()):
        return SignInAgain(said)
    # 422 "No commit found for SHA" comes when a force-push swept the commit away.
    if answer.status in GONE or (answer.status == 422 and "no commit found" in said.lower()):
        return Absent(said)
    if answer.status >= 500 or answer.status == 408:
        asked_s = _retry_after_s(answer.headers, now) or 0.0
        return Transient(max(asked_s, backoff_s(attempt, jitter)), f"GitHub answered {answer.status}")
    return Refused(answer.status, said)


def backoff_s(attempt: int, jitter: float) -> float:
    """How long to wait before trying again: doubling from a second to five minutes, the upper half at random."""
    full = min(MAX_BACKOFF_S, 2.0 ** min(max(attempt, 1) - 1, 30))
    return full * (0.5 + jitter / 2)


def message(text: str) -> str:
    """What GitHub said, on one short line: its `message` and `errors`, else the text itself."""
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        body = None
    if isinstance(body, dict):
        errors = body.get("errors")
        details = [_detail(error) for error in errors] if isinstance(errors, list) else [errors] if errors else []
        text = ": ".join(str(part) for part in [body.get("message", ""), ", ".join(map(str, details))] if part)
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= MAX_MESSAGE else line[: MAX_MESSAGE - 1] + "…"


def _detail(error: object) -> str:
    if not isinstance(error, dict):
        return str(error)
    return str(error.get("message") or " ".join(str(error[k]) for k in ("field", "code") if k in error))


def _wait(answer: Answer, attempt: int, now: float) -> Wait | None:
    """The pause that a 403 or 429 asks for, in GitHub's order; None for a 403 that is no limit."""
    if (seconds := _retry_after_s(answer.headers, now)) is not None:
        return Wait(_bounded(seconds), "GitHub's rate limit (Retry-After)")
    if _number(answer.headers.get("x-ratelimit-remaining")) == 0:
        reset = _number(answer.headers.get("x-ratelimit-reset"))
        if reset is not None:
            # Seen from GitHub's own clock: ours may be off. One second more, since the reset has no fraction.
            seconds = reset - (_date(answer.headers.get("date")) or now) + 1
            return Wait(_bounded(seconds), "GitHub's hourly rate limit is used up")
    said = answer.text.lower()
    if answer.status == 429 or "rate limit" in said or "abuse detection" in said:
        seconds = SECONDARY_WAIT_S * 2.0 ** min(max(attempt, 1) - 1, 10)
        return Wait(_bounded(seconds), "GitHub's secondary rate limit")
    return None


def _retry_after_s(headers: Mapping[str, str], now: float) -> float | None:
    """Retry-After in either form, seconds or date."""
    value = headers.get("retry-after")
    if (seconds := _number(value)) is not None:
        return seconds
    at = _date(value)
    return None if at is None else at - (_date(headers.get("date")) or now)


def _bounded(seconds: float) -> float:
    return min(max(seconds, 1.0), MAX_WAIT_S)


def _number(value: str | None) -> float | None:
    try:
        return float(int(value or ""))
    except (ValueError, OverflowError):
        return None


def _date(value: str | None) -> float | None:
    try:
        return parsedate_to_datetime(value or "").timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
