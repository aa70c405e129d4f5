"""What is read off an experiment's history."""

import pytest

from ci_bot.records import Transition
from ci_bot.report.timeline import ran_s
from launcher.state import State

PATH = (State.CREATED, State.PENDING, State.PROVISIONING, State.PROVISIONED, State.NETWORK_SETUP, State.RUNNING)
ENDED = (*PATH, State.NETWORK_TEARDOWN, State.STOPPED)


def history(*attempts: tuple[State, ...]) -> list[Transition]:
    """One transition each ten seconds, from 0 on; those of each attempt."""
    states = [(number, state) for number, attempt in enumerate(attempts, 1) for state in attempt]
    return [Transition(place, number, state, 10.0 * place) for place, (number, state) in enumerate(states)]


@pytest.mark.parametrize(
    ("attempts", "seconds"),
    [
        ((), None),
        ((PATH[:4],), None),
        ((PATH,), 7.0),
        (((*PATH, State.NETWORK_TEARDOWN),), 10.0),
        ((ENDED,), 10.0),
        (((*PATH, State.NETWORK_TEARDOWN, State.PENDING),), 10.0),
        (((*PATH, State.NETWORK_TEARDOWN, State.PENDING), (State.PROVISIONING, State.PROVISIONED)), None),
        (((*PATH, State.NETWORK_TEARDOWN, State.PENDING), ENDED[2:]), 10.0),
        (((*PATH, State.RUNNING, State.NETWORK_TEARDOWN),), 20.0),
    ],
)
def test_an_experiment_ran_for_as_long_as_its_last_attempt_was_running(
    attempts: tuple[tuple[State, ...], ...], seconds: float | None
) -> None:
    assert ran_s(history(*attempts), now=57.0) == seconds


def test_what_still_runs_has_no_time_that_stays() -> None:
    assert ran_s(history(PATH)) is None
    assert ran_s(history(ENDED)) == 10.0
