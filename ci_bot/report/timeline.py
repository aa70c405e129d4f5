"""An experiment's history as a table, and what can be read off it. Pure."""

from collections.abc import Sequence
from itertools import pairwise

from ci_bot.records import Transition
from ci_bot.report import amounts, durations
from ci_bot.report.markdown import Ink, table
from ci_bot.report.plain import ELLIPSIS
from launcher.state import TERMINAL, State

HEAD_ROWS = 8
TAIL_ROWS = 24
_REASON_CHARS = 200
_HEADINGS = ("Time (UTC)", "State", "Attempt", "Took", "Reason")


def timeline_table(transitions: Sequence[Transition], ink: Ink) -> str:
    """Every transition, or the first and the last where there are too many; "" when there is none yet."""
    if not transitions:
        return ""
    took = [durations.duration(after.at - before.at) for before, after in pairwise(transitions)]
    took.append("" if transitions[-1].state in TERMINAL else "now")
    rows = [_row(transition, spent, ink) for transition, spent in zip(transitions, took, strict=True)]
    hidden = len(rows) - HEAD_ROWS - TAIL_ROWS
    if hidden > 0:
        between = ["", ELLIPSIS, "", "", f"{amounts.plural(hidden, 'transition')} more"]
        rows = [*rows[:HEAD_ROWS], between, *rows[-TAIL_ROWS:]]
    return table(_HEADINGS, rows)


def _row(transition: Transition, took: str, ink: Ink) -> list[str]:
    attempt = str(transition.attempt) if transition.attempt else ""
    reason = ink.text(transition.reason, _REASON_CHARS)
    state = transition.state.words.replace(" ", "\N{NO-BREAK SPACE}")  # a narrow column would break the name in two
    return [durations.date_clock(transition.at), state, attempt, took, reason]


def ran_s(transitions: Sequence[Transition], now: float | None = None) -> float | None:
    """The RUNNING time of the last attempt; while it runs, until `now`. None when it did not run, or still does."""
    last = transitions[-1].attempt if transitions else 0
    since = until = None
    for transition in transitions:
        if transition.attempt == last and transition.state is State.RUNNING:
            since = transition.at if since is None else since
        elif since is not None and until is None:
            until = transition.at
    until = now if until is None else until
    return None if since is None or until is None else max(until - since, 0.0)


def first_at(transitions: Sequence[Transition], state: State) -> float | None:
    """When it was first in a state."""
    return next((transition.at for transition in transitions if transition.state is state), None)
