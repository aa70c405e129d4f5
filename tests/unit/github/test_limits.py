"""What an answer that is no success asks of us."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ci_bot.github.limits import (
    MAX_MESSAGE,
    MAX_WAIT_S,
    Absent,
    Answer,
    Refused,
    SignInAgain,
    Transient,
    Verdict,
    Wait,
    backoff_s,
    judge,
    message,
)

NOW = 1_800_000_000.0


def verdict(status: int, text: str = "", attempt: int = 1, **headers: str) -> Verdict:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return judge(Answer(status, named, text), attempt=attempt, now=NOW, jitter=0.0)


@pytest.mark.parametrize("status", [403, 429])
def test_retry_after_comes_before_everything_else(status: int) -> None:
    found = verdict(status, retry_after="7", x_ratelimit_remaining="0", x_ratelimit_reset=str(int(NOW) + 900))
    assert isinstance(found, Wait)
    assert found.seconds == 7


def test_retry_after_may_be_a_date() -> None:
    found = verdict(429, retry_after="Fri, 15 Jan 2027 08:01:00 GMT", date="Fri, 15 Jan 2027 08:00:00 GMT")
    assert isinstance(found, Wait)
    assert found.seconds == 60


@pytest.mark.parametrize("status", [403, 429])
def test_a_used_up_hour_waits_for_its_reset(status: int) -> None:
    found = verdict(status, x_ratelimit_remaining="0", x_ratelimit_reset=str(int(NOW) + 900))
    assert found == Wait(901, "GitHub's hourly rate limit is used up")


def test_the_reset_is_seen_from_githubs_clock() -> None:
    reset = int(NOW) + 600
    # GitHub says that it is five minutes later than we think.
    found = verdict(403, x_ratelimit_remaining="0", x_ratelimit_reset=str(reset), date="Fri, 15 Jan 2027 08:05:00 GMT")
    assert isinstance(found, Wait)
    assert found.seconds == 301


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (403, "You have exceeded a secondary rate limit."),
        (403, "You have triggered an abuse detection mechanism."),
        (429, ""),
    ],
)
def test_a_secondary_limit_waits_a_minute_then_doubles(status: int, text: str) -> None:
    waits = [verdict(status, text, attempt, x_ratelimit_remaining="4000") for attempt in (1, 2, 3, 50)]
    assert [w.seconds for w in waits if isinstance(w, Wait)] == [60, 120, 240, MAX_WAIT_S]


def test_a_403_that_is_no_limit_is_a_refusal() -> None:
    found = verdict(403, '{"message": "Resource not accessible by integration"}', x_ratelimit_remaining="4000")
    assert found == Refused(403, "Resource not accessible by integration")


@pytest.mark.parametrize("value", ["-5", "0"])
def test_a_pause_is_never_shorter_than_a_second(value: str) -> None:
    found = verdict(429, retry_after=value)
    assert isinstance(found, Wait)
    assert found.seconds == 1


def test_a_mad_header_does_not_silence_us_for_days() -> None:
    found = verdict(429, retry_after="9" * 30)
    assert isinstance(found, Wait)
    assert found.seconds == MAX_WAIT_S


@pytest.mark.parametrize("status", [404, 410, 451])
def test_what_is_not_there_is_absent(status: int) -> None:
    assert verdict(status, '{"message": "Not Found"}') == Absent("Not Found")


def test_a_commit_that_was_force_pushed_away_is_absent() -> None:
    text = json.dumps({"message": "Validation Failed", "errors": [{"message": "No commit found for SHA: abc"}]})
    assert isinstance(verdict(422, text), Absent)


def test_other_422_are_refusals_with_all_reasons() -> None:
    errors = [{"resource": "CheckRun", "field": "name", "code": "missing_field"}, "too long"]
    text = json.dumps({"message": "Validation Failed", "errors": errors})
    assert verdict(422, text) == Refused(422, "Validation Failed: name missing_field, too long")


def test_401_asks_to_sign_in_again() -> None:
    assert verdict(401, '{"message": "Bad credentials"}') == SignInAgain("Bad credentials")


def test_an_unknown_app_is_not_taken_for_missing_repositories() -> None:
    assert verdict(404, '{"message": "Integration not found"}') == SignInAgain("Integration not found")


@pytest.mark.parametrize("status", [408, 500, 502, 503])
def test_servers_in_trouble_are_transient(status: int) -> None:
    found = verdict(status, "<html>", attempt=3)
    assert found == Transient(2.0, f"GitHub answered {status}")


def test_a_5xx_with_retry_after_waits_at_least_so_long() -> None:
    found = verdict(503, retry_after="30")
    assert isinstance(found, Transient)
    assert found.seconds == 30


@given(st.integers(-5, 10_000), st.floats(0, 1))
def test_backoff_grows_to_five_minutes_and_never_vanishes(attempt: int, jitter: float) -> None:
    assert 0.5 <= backoff_s(attempt, jitter) <= 300
    assert backoff_s(attempt, 0.0) <= backoff_s(attempt, jitter) <= backoff_s(attempt, 1.0)
    assert backoff_s(attempt, jitter) <= backoff_s(attempt + 1, 1.0)


@given(st.text(max_size=2000))
def test_a_message_is_one_short_printable_line(text: str) -> None:
    for form in (text, json.dumps({"message": text}), json.dumps({"message": text, "errors": [text]})):
        said = message(form)
        assert len(said) <= MAX_MESSAGE
        assert said.isprintable()


@given(
    st.integers(300, 599),
    st.dictionaries(
        st.sampled_from(["retry-after", "x-ratelimit-remaining", "x-ratelimit-reset", "date"]), st.text(max_size=20)
    ),
    st.text(max_size=50),
)
def test_every_answer_has_a_verdict(status: int, headers: dict[str, str], text: str) -> None:
    found = judge(Answer(status, headers, text), attempt=1, now=NOW, jitter=0.5)
    if isinstance(found, Wait):
        assert 1 <= found.seconds <= MAX_WAIT_S
