"""Experiments are created once, changed by compare-and-swap, and keep their history."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from sqlalchemy import Connection, Engine, event

from ci_bot.records import Held, HeldNode, Transition, Wish
from ci_bot.store import begin, claims, experiments, reading
from launcher.state import Cause, Progress, Signal, State, advance
from tests.integration.store.values import MAIN, PULL, SPECIFICATION, TOPIC, after, draft

CREATED = Progress()
PENDING = after(Signal.COMMIT_RESOLVED)
PROVISIONING = advance(PENDING, Signal.ADMITTED)
RUNNING = after(
    Signal.COMMIT_RESOLVED, Signal.ADMITTED, Signal.NODES_READY, Signal.NODES_REPORTED, Signal.COMMANDS_STARTED
)
TEARDOWN = advance(RUNNING, Signal.ENDED, Cause.NODE_LOST)


def created(engine: Engine, progress: Progress = CREATED) -> int:
    """An experiment that stands where `progress` says."""
    with begin(engine) as connection:
        experiment_id, new = experiments.create(connection, draft(progress=progress), TOPIC, at=1.0)
    assert new
    return experiment_id


def read(engine: Engine, experiment_id: int) -> experiments.Experiment:
    with reading(engine) as connection:
        found = experiments.get(connection, experiment_id)
    assert found is not None
    return found


def timeline(engine: Engine, experiment_id: int) -> list[Transition]:
    with reading(engine) as connection:
        return experiments.transitions(connection, experiment_id)


def test_an_experiment_comes_back_as_it_was_created(engine: Engine) -> None:
    wanted = draft(title="Größer 🤖", trusted=False, notes=("container not used",), progress=Progress(user_retries=3))
    with begin(engine) as connection:
        experiment_id, _ = experiments.create(connection, wanted, TOPIC, at=1234567890.123)
    found = read(engine, experiment_id)
    for name in vars(wanted):
        assert getattr(found, name) == getattr(wanted, name), name
    assert found.specification == SPECIFICATION
    assert (found.created_at, found.state_at) == (1234567890.123, 1234567890.123)
    assert (found.detail, found.held, found.wish, found.queued_at) == ({}, Held(), None, None)
    assert timeline(engine, experiment_id) == [Transition(1, 0, State.CREATED, 1234567890.123)]


def test_the_same_commit_name_and_rerun_is_one_experiment_with_both_claims(engine: Engine) -> None:
    with begin(engine) as connection:
        first = experiments.create(connection, draft(), TOPIC, at=1.0)
        second = experiments.create(connection, draft(title="other words"), PULL, at=2.0)
        assert first == (second[0], True)
        assert second[1] is False
        assert claims.of_experiment(connection, first[0]) == [TOPIC, PULL]
    assert read(engine, first[0]).title == ""
    assert len(timeline(engine, first[0])) == 1


@pytest.mark.parametrize(
    "change",
    [{"repository_id": 5}, {"head_sha": "b" * 40}, {"name": "other"}, {"rerun": 1}],
    ids=lambda one: next(iter(one)),
)
def test_anything_else_is_another_experiment(engine: Engine, change: dict[str, object]) -> None:
    with begin(engine) as connection:
        first, _ = experiments.create(connection, draft(), TOPIC, at=1.0)
        second, new = experiments.create(connection, draft(**change), TOPIC, at=1.0)
    assert new
    assert second > first


def test_text_that_no_database_can_hold_is_stored_with_replacements(engine: Engine) -> None:
    with begin(engine) as connection:
        experiment_id, _ = experiments.create(connection, draft(title="a\0b\ud800c"), TOPIC, at=1.0)
    assert read(engine, experiment_id).title.replace("\ufffd", "?") in ("a?b?c", "a?b???c")


def test_a_step_is_a_line_of_the_timeline_and_a_new_version(engine: Engine) -> None:
    experiment_id = created(engine)
    with begin(engine) as connection:
        assert experiments.record(connection, experiment_id, Progress(), PENDING, at=2.0, reason="Commit found.")
    found = read(engine, experiment_id)
    assert (found.progress, found.state_at, found.queued_at, found.version) == (PENDING, 2.0, 2.0, 2)
    assert timeline(engine, experiment_id)[-1] == Transition(2, 0, State.PENDING, 2.0, "Commit found.")


def test_who_read_an_old_state_writes_nothing(engine: Engine) -> None:
    experiment_id = created(engine, PROVISIONING)
    with begin(engine) as connection:
        assert not experiments.record(connection, experiment_id, PENDING, PROVISIONING, at=2.0)
        assert not experiments.record(connection, 99, PENDING, PROVISIONING, at=2.0)
    assert read(engine, experiment_id).version == 1
    assert len(timeline(engine, experiment_id)) == 1


@pytest.mark.parametrize(
    "stale",
    [
        replace(TEARDOWN, attempt=2),
        replace(TEARDOWN, intended=State.ERROR),
        replace(TEARDOWN, intended=None),
        replace(TEARDOWN, cause=None),
        replace(TEARDOWN, infrastructure_retries_used=0),
    ],
)
def test_any_difference_in_progress_is_a_conflict(engine: Engine, stale: Progress) -> None:
    experiment_id = created(engine, TEARDOWN)
    with begin(engine) as connection:
        assert not experiments.record(connection, experiment_id, stale, PENDING, at=2.0)
        assert experiments.record(connection, experiment_id, TEARDOWN, replace(PENDING, attempt=1), at=2.0)


def test_the_times_follow_the_states(engine: Engine) -> None:
    experiment_id = created(engine)
    progress = Progress()
    moment = 1.0
    seen: dict[str, tuple[float | None, ...]] = {}
    for signal, cause in [
        (Signal.COMMIT_RESOLVED, None),
        (Signal.ADMITTED, None),
        (Signal.NODES_READY, None),
        (Signal.NODES_REPORTED, None),
        (Signal.COMMANDS_STARTED, None),
        (Signal.ENDED, Cause.NODE_LOST),
        (Signal.RELEASED, None),
        (Signal.ADMITTED, None),
        (Signal.ENDED, Cause.WISHED),
        (Signal.RELEASED, None),
    ]:
        moment += 1.0
        step = advance(progress, signal, cause)
        with begin(engine) as connection:
            assert experiments.record(connection, experiment_id, progress, step, at=moment)
        progress = step
        found = read(engine, experiment_id)
        seen[f"{progress.state} {progress.attempt}"] = found.state_at, found.queued_at, found.running_at, found.ended_at
    assert seen == {
        "PENDING 0": (2.0, 2.0, None, None),
        "PROVISIONING 1": (3.0, 2.0, None, None),
        "PROVISIONED 1": (4.0, 2.0, None, None),
        "NETWORK_SETUP 1": (5.0, 2.0, None, None),
        "RUNNING 1": (6.0, 2.0, 6.0, None),
        "NETWORK_TEARDOWN 1": (7.0, 2.0, 6.0, None),
        "PENDING 1": (8.0, 2.0, 6.0, None),
        "PROVISIONING 2": (9.0, 2.0, None, None),
        "NETWORK_TEARDOWN 2": (10.0, 2.0, None, None),
        "CANCELLED 2": (11.0, 2.0, None, 11.0),
    }
    lines = timeline(engine, experiment_id)
    assert [line.sequence for line in lines] == list(range(1, 12))
    assert lines[-1] == Transition(11, 2, State.CANCELLED, 11.0, "", Cause.WISHED)


def test_a_changed_intention_is_a_line_but_no_new_deadline(engine: Engine) -> None:
    experiment_id = created(engine, TEARDOWN)
    wished = advance(TEARDOWN, Signal.ENDED, Cause.WISHED)
    with begin(engine) as connection:
        assert experiments.record(connection, experiment_id, TEARDOWN, wished, at=9.0, reason="Cancelled.")
    assert read(engine, experiment_id).state_at == 1.0
    assert timeline(engine, experiment_id)[-1].reason == "Cancelled."


def test_what_is_held_is_kept_without_a_line_in_the_timeline(engine: Engine) -> None:
    experiment_id = created(engine, PROVISIONING)
    node = HeldNode("exp-1-a1-n0", "node-id", "host-c", "10.0.0.3", ("0", "2"), "bubblewrap")
    held = Held("exp-1-a1", "cluster", (node,))
    with begin(engine) as connection:
        assert experiments.record(
            connection, experiment_id, PROVISIONING, PROVISIONING, at=2.0, held=held, detail={"exit_code": 3}
        )
    found = read(engine, experiment_id)
    assert (found.held, found.detail, found.version, found.state_at) == (held, {"exit_code": 3}, 2, 1.0)
    assert len(timeline(engine, experiment_id)) == 1
    with begin(engine) as connection:
        experiments.record(connection, experiment_id, PROVISIONING, PENDING, at=3.0)
    assert read(engine, experiment_id).held == held, "what is not given stays"


def test_the_first_wish_counts(engine: Engine) -> None:
    experiment_id = created(engine)
    with begin(engine) as connection:
        assert experiments.wish(connection, experiment_id, Wish("alice", "Cancelled by alice", 2.0))
        assert not experiments.wish(connection, experiment_id, Wish("bob", "Cancelled by bob", 3.0))
    found = read(engine, experiment_id)
    assert found.wish == Wish("alice", "Cancelled by alice", 2.0)
    assert found.version == 2


def test_what_has_ended_takes_no_wish(engine: Engine) -> None:
    experiment_id = created(engine, replace(Progress(), state=State.STOPPED))
    with begin(engine) as connection:
        assert not experiments.wish(connection, experiment_id, Wish("alice", "Cancelled by alice", 2.0))
    assert read(engine, experiment_id).wish is None


def test_a_note_counts_as_a_change_only_when_it_says_something_new(engine: Engine) -> None:
    experiment_id = created(engine, PENDING)
    with begin(engine) as connection:
        assert experiments.note(connection, experiment_id, pending_reason="1 ahead", notes=["no container"])
        assert not experiments.note(connection, experiment_id, pending_reason="1 ahead")
        assert not experiments.note(connection, experiment_id)
        assert experiments.note(connection, experiment_id, pending_reason="0 ahead", notes=["no container"])
    found = read(engine, experiment_id)
    assert (found.pending_reason, found.notes, found.version) == ("0 ahead", ("no container",), 3)


def test_a_remark_stands_beside_what_others_said_and_is_said_once(engine: Engine) -> None:
    experiment_id = created(engine, PENDING)
    with begin(engine) as connection:
        assert experiments.remark(connection, experiment_id, ["no container", "no submodules"])
        assert not experiments.remark(connection, experiment_id, ["no submodules"])
    assert read(engine, experiment_id).notes == ("no container", "no submodules")


def test_a_remark_takes_the_place_of_those_that_begin_as_told(engine: Engine) -> None:
    experiment_id = created(engine, PENDING)
    with begin(engine) as connection:
        experiments.remark(connection, experiment_id, ["no container"])
        for who in ("mona", "alice"):
            assert experiments.remark(connection, experiment_id, [f"refused to {who}"], replacing="refused to")
    assert read(engine, experiment_id).notes == ("refused to alice", "no container")


def test_why_it_was_pending_goes_away_with_the_next_state(engine: Engine) -> None:
    experiment_id = created(engine, PENDING)
    with begin(engine) as connection:
        experiments.note(connection, experiment_id, pending_reason="1 ahead")
        experiments.record(connection, experiment_id, PENDING, PROVISIONING, at=2.0)
    assert read(engine, experiment_id).pending_reason == ""


def test_lists_are_newest_first_and_go_on_page_by_page(engine: Engine) -> None:
    with begin(engine) as connection:
        ids = [experiments.create(connection, draft(rerun=n), MAIN, at=1.0)[0] for n in range(5)]
        other, _ = experiments.create(connection, draft(repository_id=9, progress=PENDING), MAIN, at=1.0)

        def listed(**filters: object) -> list[int]:
            return [one.id for one in experiments.listed(connection, **filters)]  # type: ignore[arg-type]

        assert listed() == [other, *reversed(ids)]
        assert listed(limit=2, before=ids[3]) == [ids[2], ids[1]]
        assert listed(repository_ids=[9]) == [other]
        assert listed(repository_ids=[]) == []
        assert listed(states=[State.PENDING]) == [other]


def test_the_timelines_of_a_page_are_one_query(engine: Engine) -> None:
    with begin(engine) as connection:
        one, two = (experiments.create(connection, draft(rerun=n), MAIN, at=1.0)[0] for n in range(2))
        experiments.record(connection, two, Progress(), PENDING, at=2.0)
        asked: list[str] = []
        event.listen(connection, "before_cursor_execute", lambda *told: asked.append(told[2]))
        found = experiments.timelines(connection, [two, one, 10**6])
        assert len(asked) == 1
        assert found == {
            one: experiments.transitions(connection, one),
            two: experiments.transitions(connection, two),
            10**6: [],
        }
        assert [each.state for each in found[two]] == [State.CREATED, State.PENDING]
        assert experiments.timelines(connection, []) == {}


def test_the_unfinished_come_in_the_order_of_the_queue(engine: Engine) -> None:
    with begin(engine) as connection:
        first, second, third = (experiments.create(connection, draft(rerun=n), MAIN, at=1.0)[0] for n in range(3))
        experiments.create(connection, draft(rerun=3, progress=replace(Progress(), state=State.FAILED)), MAIN, at=0.0)
        experiments.record(connection, second, Progress(), PENDING, at=2.0)
        experiments.record(connection, first, Progress(), PENDING, at=3.0)
        assert [one.id for one in experiments.unfinished(connection)] == [third, second, first]


def test_the_newest_rerun_of_each_name_is_found(engine: Engine) -> None:
    with begin(engine) as connection:
        experiments.create(connection, draft(), MAIN, at=1.0)
        again, _ = experiments.create(connection, draft(rerun=1), MAIN, at=2.0)
        other, _ = experiments.create(connection, draft(name="a"), MAIN, at=1.0)
        sha, repository_id = "a" * 40, draft().repository_id
        found = experiments.newest(connection, repository_id, sha, "digits")
        assert found is not None
        assert found.id == again
        assert [one.id for one in experiments.at_commit(connection, repository_id, sha)] == [other, again]
        assert experiments.newest(connection, repository_id, "b" * 40, "digits") is None


def test_what_changed_is_unreported_until_that_version_is_reported(engine: Engine) -> None:
    def unreported(connection: Connection) -> list[tuple[int, int]]:
        return [(one.id, one.version) for one in experiments.unreported(connection)]

    experiment_id = created(engine)
    with begin(engine) as connection:
        assert unreported(connection) == [(experiment_id, 1)]
        experiments.wish(connection, experiment_id, Wish("alice", "Cancelled by alice", 2.0))
        experiments.reported(connection, experiment_id, 1)
        assert unreported(connection) == [(experiment_id, 2)], "it changed while version 1 was rendered"
        experiments.reported(connection, experiment_id, 2)
        assert unreported(connection) == []


def test_a_state_that_passes_is_unreported_once_it_lasts_or_has_a_reason_or_is_the_first(engine: Engine) -> None:
    def unreported(connection: Connection, before: float) -> list[int]:
        found = experiments.unreported(connection, passing=(State.PENDING,), before=before)
        return [one.id for one in found]

    experiment_id = created(engine)
    with begin(engine) as connection:
        experiments.record(connection, experiment_id, Progress(), PENDING, at=5.0)
        assert unreported(connection, 1.0) == [experiment_id], "nothing was ever said of it"
        experiments.reported(connection, experiment_id, 1)
        assert unreported(connection, 5.0) == []
        assert unreported(connection, 5.1) == [experiment_id]
        experiments.note(connection, experiment_id, pending_reason="two before it")
        assert unreported(connection, 5.0) == [experiment_id]


@pytest.mark.parametrize("find", [experiments.get, experiments.transitions])
def test_what_does_not_exist_is_not_found(engine: Engine, find: Callable[[Connection, int], object]) -> None:
    with reading(engine) as connection:
        assert not find(connection, 99)
