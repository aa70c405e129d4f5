"""Times and durations in words. Pure."""

from datetime import UTC, datetime

MINUTE_S = 60
HOUR_S = 60 * MINUTE_S
DAY_S = 24 * HOUR_S

_AGE_STEPS = (
    (7 * DAY_S, "7 days"),
    (3 * DAY_S, "3 days"),
    (DAY_S, "1 day"),
    (12 * HOUR_S, "12 hours"),
    (6 * HOUR_S, "6 hours"),
    (3 * HOUR_S, "3 hours"),
    (HOUR_S, "1 hour"),
    (30 * MINUTE_S, "30 minutes"),
    (10 * MINUTE_S, "10 minutes"),
)


def duration(seconds: float) -> str:
    """A duration with two units at most: "3.2 s", "42 s", "12 min 05 s", "1 h 04 min", "2 d 03 h"."""
    tenths = round(max(seconds, 0.0) * 10)
    if tenths < 100:
        return f"{tenths / 10:.1f} s"
    whole = round(max(seconds, 0.0))
    if whole < MINUTE_S:
        return f"{whole} s"
    if whole < HOUR_S:
        return f"{whole // MINUTE_S} min {whole % MINUTE_S:02d} s"
    if whole < DAY_S:
        return f"{whole // HOUR_S} h {whole % HOUR_S // MINUTE_S:02d} min"
    return f"{whole // DAY_S} d {whole % DAY_S // HOUR_S:02d} h"


def age(seconds: float) -> str:
    """A coarse age that changes nine times in all, so that a check run isn't rewritten by the clock; "" when short."""
    for step_s, words in _AGE_STEPS:
        if seconds >= step_s:
            return words
    return ""


def rfc3339(at: float) -> str:
    """Seconds since the epoch as RFC 3339, UTC, with milliseconds."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def clock(at: float) -> str:
    """The time of day: "12:03:04 UTC"."""
    return datetime.fromtimestamp(at, UTC).strftime("%H:%M:%S UTC")


def date_clock(at: float) -> str:
    """Date and time of day, UTC, without saying so: "2026-03-01 12:03:04"."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S")
