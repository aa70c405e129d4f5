"""The state machine keeps its promises: the table, the budgets, one end only."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.state import (
    FORWARD,
    HOLDING,
    TERMINAL,
    VERDICTS,
    WAITING,
    WAITING_CAUSES,
    Budget,
    Cause,
    IllegalTransition,
    Progress,
    Signal,
    State,
    advance,
)

WALK = (
    Signal.COMMIT_RESOLVED,
    Signal.ADMITTED,
    Signal.NODES_READY,
    Signal.NODES_REPORTED,
    Signal.COMMANDS_STARTED,
)


def at(state: State, **fields: object) -> Progress:
    return Progress(state=state, attempt=1, **fields)  # type: ignore[arg-type]


def test_a_successful_experiment_takes_the_eight_states_of_the_original_in_order() -> None:
    progress, seen = Progress(), [State.CREATED]
    for signal in WALK:
        progress = advance(progress, signal)
        seen.append(progress.state)
    progress = advance(progress, Signal.ENDED, Cause.SUCCEEDED)
    seen.append(progress.state)
    seen.append(advance(progress, Signal.RELEASED).state)
    assert seen == [
        State.CREATED,
        State.PENDING,
        State.PROVISIONING,
        State.PROVISIONED,
        State.NETWORK_SETUP,
        State.RUNNING,
        State.NETWORK_TEARDOWN,
        State.STOPPED,
    ]


@pytest.mark.parametrize("state", sorted(TERMINAL))
@pytest.mark.parametrize("signal", list(Signal))
def test_terminal_states_take_nothing_more(state: State, signal: Signal) -> None:
    with pytest.raises(IllegalTransition):
        advance(at(state), signal, Cause.WISHED if signal is Signal.ENDED else None)


@pytest.mark.parametrize("state", list(State))
@pytest.mark.parametrize("signal", [signal for signal in Signal if signal is not Signal.ENDED])
def test_only_the_pairs_of_the_table_lead_anywhere(state: State, signal: Signal) -> None:
    legal = (state, signal) in FORWARD or (state, signal) == (State.NETWORK_TEARDOWN, Signal.RELEASED)
    progress = at(state, intended=State.STOPPED if state is State.NETWORK_TEARDOWN else None)
    if legal:
        assert advance(progress, signal).state is not state
    else:
        with pytest.raises(IllegalTransition):
            advance(progress, signal)


@pytest.mark.parametrize("cause", list(Cause))
@pytest.mark.parametrize("state", sorted(HOLDING))
def test_what_holds_nodes_ends_through_teardown_whatever_the_cause(state: State, cause: Cause) -> None:
    ended = advance(at(state), Signal.ENDED, cause)
    assert ended.state is State.NETWORK_TEARDOWN
    assert ended.cause is cause
    assert ended.intended in TERMINAL | {State.PENDING}


@pytest.mark.parametrize("state", sorted(WAITING))
@pytest.mark.parametrize("cause", list(Cause))
def test_what_holds_nothing_ends_at_once_and_only_for_the_causes_it_can_have(state: State, cause: Cause) -> None:
    if cause in WAITING_CAUSES[state]:
        assert advance(at(state), Signal.ENDED, cause).state is VERDICTS[cause].end
    else:
        with pytest.raises(IllegalTransition):
            advance(at(state), Signal.ENDED, cause)


@pytest.mark.parametrize("cause", [c for c in Cause if VERDICTS[c].budget is Budget.INFRASTRUCTURE])
def test_infrastructure_failures_are_retried_within_their_own_budget_and_then_are_errors(cause: Cause) -> None:
    progress, ends = at(State.RUNNING, infrastructure_retries=2, user_retries=1), []
    for _ in range(3):
        teardown = advance(progress, Signal.ENDED, cause)
        ends.append(teardown.intended)
        progress = Progress(**{**teardown.__dict__, "state": State.RUNNING, "intended": None})
    assert ends == [State.PENDING, State.PENDING, State.ERROR]
    assert progress.user_retries_used == 0


def test_a_failing_command_spends_the_users_budget_and_then_fails() -> None:
    first = advance(at(State.RUNNING, user_retries=1), Signal.ENDED, Cause.COMMAND_EXITED)
    again = advance(Progress(**{**first.__dict__, "state": State.RUNNING}), Signal.ENDED, Cause.COMMAND_EXITED)
    assert (first.intended, again.intended) == (State.PENDING, State.FAILED)
    assert again.infrastructure_retries_used == 0
    assert again.tries == 2


def test_shutting_down_costs_no_budget() -> None:
    ended = advance(at(State.RUNNING, infrastructure_retries=0), Signal.ENDED, Cause.SHUTDOWN)
    assert ended.intended is State.PENDING
    assert ended.tries == 1


def test_a_wish_during_teardown_replaces_a_retry_and_never_an_end() -> None:
    retrying = at(State.NETWORK_TEARDOWN, intended=State.PENDING)
    assert advance(retrying, Signal.ENDED, Cause.WISHED).intended is State.CANCELLED
    for end in (State.STOPPED, State.FAILED, State.ERROR):
        with pytest.raises(IllegalTransition):
            advance(at(State.NETWORK_TEARDOWN, intended=end), Signal.ENDED, Cause.WISHED)


def test_a_success_whose_artifacts_are_lost_is_an_error_but_a_failure_stays_one() -> None:
    lost = Cause.ARTIFACTS_NOT_STORED
    assert advance(at(State.NETWORK_TEARDOWN, intended=State.STOPPED), Signal.ENDED, lost).intended is State.ERROR
    with pytest.raises(IllegalTransition):
        advance(at(State.NETWORK_TEARDOWN, intended=State.FAILED), Signal.ENDED, lost)


def test_a_host_that_is_not_proven_clean_ends_the_experiment_as_an_error() -> None:
    for intended in (State.STOPPED, State.PENDING, State.CANCELLED):
        progress = at(State.NETWORK_TEARDOWN, intended=intended)
        assert advance(progress, Signal.ENDED, Cause.NOT_PROVEN_CLEAN).state is State.ERROR


def test_an_end_needs_its_cause_and_nothing_else_has_one() -> None:
    with pytest.raises(IllegalTransition):
        advance(at(State.RUNNING), Signal.ENDED)
    with pytest.raises(IllegalTransition):
        advance(at(State.CREATED), Signal.COMMIT_RESOLVED, Cause.WISHED)


FACTS = st.one_of(
    st.tuples(st.sampled_from([s for s in Signal if s is not Signal.ENDED]), st.none()),
    st.tuples(st.just(Signal.ENDED), st.sampled_from(list(Cause))),
)


@given(st.lists(FACTS, max_size=60))
def test_no_sequence_of_facts_breaks_the_rules(facts: list[tuple[Signal, Cause | None]]) -> None:
    history = [Progress(user_retries=1)]
    for signal, cause in facts:
        try:
            history.append(advance(history[-1], signal, cause))
        except IllegalTransition:
            continue
    for before, after in pairwise(history):
        assert before.state not in TERMINAL
        assert after.attempt >= before.attempt
        assert after.user_retries_used <= after.user_retries
        assert after.infrastructure_retries_used <= after.infrastructure_retries
        assert (after.intended is not None) == (after.state is State.NETWORK_TEARDOWN)
        if before.state in HOLDING and after.state in TERMINAL:
            pytest.fail("what holds nodes must be torn down first")


def test_every_cause_has_a_verdict() -> None:
    assert set(VERDICTS) == set(Cause)
