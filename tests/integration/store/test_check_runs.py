"""What should be on GitHub is due until GitHub has acknowledged it, and a completed check run is never reopened."""

from dataclasses import replace

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine

from ci_bot.records import Annotation, Button, Repository
from ci_bot.store import begin, check_runs, experiments, repositories
from ci_bot.store.check_runs import CheckRunRow
from tests.integration.store.values import MAIN, check_run, draft

REPOSITORY = draft().repository_id
SHA = "a" * 40
DONE = {"status": "completed", "conclusion": "success"}


def experiment(connection: Connection, rerun: int = 0) -> int:
    return experiments.create(connection, draft(rerun=rerun), MAIN, at=1.0)[0]


def want(connection: Connection, experiment_id: int | None = None, **changes: object) -> CheckRunRow:
    return check_runs.want(
        connection, check_run(**changes), repository_id=REPOSITORY, experiment_id=experiment_id, experiment_version=1
    )


def acknowledge(connection: Connection, row: CheckRunRow) -> None:
    check_runs.acknowledged(
        connection, row.id, digest=row.wanted_digest, github_id=row.id + 2**40, annotations_sent=0, at=5.0
    )


def due(connection: Connection, now: float = 0.0) -> list[int]:
    return [row.id for row in check_runs.due(connection, now)]


def test_a_check_run_comes_back_as_it_was_wanted(engine: Engine) -> None:
    full = {
        **DONE,
        "text": "log \0 \u2028 🤖",
        "annotations": (Annotation(path="a", start_line=1, end_line=1, level="failure", title="t", message="m"),),
        "buttons": (Button(label="Approve", description="d", identifier="approve"),),
        "completed_at": 3.5,
    }
    with begin(engine) as connection:
        experiment_id = experiment(connection)
        row = want(connection, experiment_id, **full)
        assert row.wanted == check_run(**full)
        assert (row.generation, row.experiment_id, row.completed, row.github_id) == (1, experiment_id, True, None)
        assert check_runs.get(connection, row.id) == row
        assert check_runs.of_experiment(connection, experiment_id) == [row]


def test_it_is_due_until_exactly_this_is_acknowledged(engine: Engine) -> None:
    with begin(engine) as connection:
        row = want(connection)
        assert due(connection) == [row.id]
        newer = want(connection, title="Teardown")
        acknowledge(connection, row)
        assert due(connection) == [row.id], "it changed while the former one was sent"
        acknowledge(connection, newer)
        assert due(connection) == []
        want(connection, title="Teardown")
        assert due(connection) == [], "the same again is nothing new"


def test_a_failed_write_waits_for_its_time_and_is_never_given_up(engine: Engine) -> None:
    with begin(engine) as connection:
        row = want(connection)
        for tries in range(1, 4):
            check_runs.failed(connection, row.id, next_try_at=100.0)
            assert due(connection, now=99.0) == []
            found = check_runs.due(connection, now=100.0)
            assert [(one.id, one.tries) for one in found] == [(row.id, tries)]
        want(connection, title="newer")
        assert due(connection, now=99.0) == [], "a newer wish must not outrun GitHub's Retry-After"
        acknowledge(connection, check_runs.due(connection, now=100.0)[0])
        again = want(connection, title="newest")
        assert (again.tries, again.next_try_at) == (0, 0.0)


def test_those_that_waited_longest_are_first(engine: Engine) -> None:
    with begin(engine) as connection:
        rows = [want(connection, name=name) for name in "abc"]
        check_runs.failed(connection, rows[0].id, next_try_at=2.0)
        check_runs.failed(connection, rows[1].id, next_try_at=1.0)
        assert due(connection, now=9.0) == [rows[2].id, rows[1].id, rows[0].id]
        assert len(check_runs.due(connection, now=9.0, each=2)) == 2


def test_what_can_not_be_delivered_is_never_due_again(engine: Engine) -> None:
    with begin(engine) as connection:
        row = want(connection)
        check_runs.undeliverable(connection, row.id, "The repository is gone.")
        want(connection, title="newer")
        assert due(connection) == []
        found = check_runs.get(connection, row.id)
        assert found is not None
        assert found.undeliverable == "The repository is gone."


def test_none_is_due_while_an_older_one_of_its_name_at_its_commit_is_to_be_written(engine: Engine) -> None:
    with begin(engine) as connection:
        first, second, third = (experiment(connection, rerun=rerun) for rerun in range(3))
        old, new, newest = (want(connection, each, **DONE) for each in (first, second, third))
        other = want(connection, name="descent/other")
        check_runs.failed(connection, old.id, next_try_at=100.0)
        assert due(connection) == [other.id]
        acknowledge(connection, old)
        assert due(connection) == [new.id, other.id]
        want(connection, first, **DONE, title="other words")
        assert due(connection) == [old.id, other.id]
        acknowledge(connection, want(connection, first, **DONE, title="other words"))
        check_runs.undeliverable(connection, new.id, "rejected")
        assert due(connection) == [newest.id, other.id]


def test_one_that_was_given_up_is_not_made_behind_a_newer_one(engine: Engine) -> None:
    with begin(engine) as connection:
        old, new = want(connection, experiment(connection)), want(connection, experiment(connection, rerun=1))
        for row in (old, new):
            check_runs.undeliverable(connection, row.id, "gone")
        want(connection, old.experiment_id, **DONE)
        assert due(connection) == []
        check_runs.revive(connection, REPOSITORY)
        assert due(connection) == [new.id]
        acknowledge(connection, old)  # GitHub had it all along
        want(connection, old.experiment_id, **DONE)
        assert due(connection) == [old.id]


def test_what_is_revived_is_due_at_once_and_looked_up_first(engine: Engine) -> None:
    with begin(engine) as connection:
        rows = [want(connection, name=name) for name in "abc"]
        elsewhere = check_runs.want(connection, check_run(), repository_id=5)
        acknowledge(connection, rows[0])
        for row in (rows[1], elsewhere):
            check_runs.undeliverable(connection, row.id, "gone")
        for _ in range(9):
            check_runs.failed(connection, rows[2].id, next_try_at=100.0)
        check_runs.revive(connection, REPOSITORY)
        found = check_runs.due(connection, now=0.0)
        assert [(row.id, row.tries) for row in found] == [(rows[1].id, 1), (rows[2].id, 1)]
        assert check_runs.get(connection, rows[0].id) == replace(
            rows[0], acknowledged_digest=rows[0].wanted_digest, acknowledged_at=5.0, github_id=rows[0].id + 2**40
        )


def test_many_of_one_installation_do_not_hide_those_of_another_nor_its_own_first_words_and_ends(engine: Engine) -> None:
    with begin(engine) as connection:
        for number in (1, 2):
            repositories.remember(connection, Repository(number, number, f"octo/{number}", "main"))
        for number in range(4):
            row = check_runs.want(connection, check_run(name=f"descent/{number}"), repository_id=1)
            acknowledge(connection, row)
            check_runs.want(connection, check_run(name=f"descent/{number}", title="newer"), repository_id=1)
        end = check_runs.want(connection, check_run(name="descent/0", **DONE), repository_id=1)
        first = check_runs.want(connection, check_run(name="descent/first"), repository_id=1)
        other = check_runs.want(connection, check_run(), repository_id=2)
        found = [row.id for row in check_runs.due(connection, now=0.0, each=3)]
        assert sorted(found) == sorted([end.id, first.id, other.id, end.id + 1])
        assert {end.id, other.id} == set(found[:2])


def test_annotations_can_be_acknowledged_page_by_page(engine: Engine) -> None:
    with begin(engine) as connection:
        row = want(connection)
        check_runs.acknowledged(
            connection, row.id, digest=row.acknowledged_digest, github_id=8, annotations_sent=50, at=5.0
        )
        [still] = check_runs.due(connection, now=0.0)
        assert (still.github_id, still.annotations_sent, still.acknowledged_at) == (8, 50, 5.0)


def test_a_rerun_is_a_new_generation_and_the_old_end_is_still_delivered(engine: Engine) -> None:
    with begin(engine) as connection:
        first, second = experiment(connection), experiment(connection, rerun=1)
        old = want(connection, first, **DONE)
        new = want(connection, second, status="queued")
        assert (old.generation, new.generation) == (1, 2)
        assert due(connection) == [old.id]
        assert want(connection, first, **DONE, title="other words").id == old.id
        assert want(connection, second, **DONE).id == new.id
        assert check_runs.newest(connection, REPOSITORY, SHA, "descent/digits") == check_runs.get(connection, new.id)
        assert [row.id for row in check_runs.at_commit(connection, REPOSITORY, SHA)] == [new.id]


def test_a_rerun_never_takes_over_the_check_run_of_an_experiment_whose_end_was_not_rendered(engine: Engine) -> None:
    with begin(engine) as connection:
        first, second = experiment(connection), experiment(connection, rerun=1)
        old = want(connection, first)
        assert want(connection, second, status="queued").generation == 2
        assert want(connection, first, **DONE).id == old.id


def test_an_experiment_follows_the_check_run_that_waited_for_approval(engine: Engine) -> None:
    with begin(engine) as connection:
        waiting = want(connection, status="completed", conclusion="action_required")
        assert want(connection, status="completed", conclusion="action_required").id == waiting.id
        started = want(connection, experiment(connection), status="queued")
        assert (started.generation, started.id != waiting.id) == (2, True)
        assert want(connection, status="completed", conclusion="neutral").id not in (waiting.id, started.id)


def test_an_unfinished_check_run_of_nobody_is_taken_over(engine: Engine) -> None:
    with begin(engine) as connection:
        waiting = want(connection, status="queued")
        experiment_id = experiment(connection)
        started = want(connection, experiment_id)
        assert (started.id, started.experiment_id) == (waiting.id, experiment_id)


def test_a_configuration_check_may_change_its_end_but_not_be_reopened(engine: Engine) -> None:
    with begin(engine) as connection:
        first = want(connection, name="descent/config", status="completed", conclusion="failure")
        assert want(connection, name="descent/config", **DONE).id == first.id
        assert want(connection, name="descent/config").generation == 2


def test_the_last_id_is_that_of_the_newest_row(engine: Engine) -> None:
    with begin(engine) as connection:
        assert check_runs.last_id(connection) == 0
        want(connection)
        newest = want(connection, name="descent/config")
        assert check_runs.last_id(connection) == newest.id


def test_githubs_id_finds_it_in_its_own_repository_only(engine: Engine) -> None:
    with begin(engine) as connection:
        row = want(connection)
        acknowledge(connection, row)
        found = check_runs.find_by_github_id(connection, REPOSITORY, row.id + 2**40)
        assert found is not None
        assert found.id == row.id
        assert check_runs.find_by_github_id(connection, 5, row.id + 2**40) is None
        assert check_runs.get(connection, 99) is None


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["want", "send"]),
        st.sampled_from([None, 0, 1]),
        st.sampled_from([("queued", None), ("in_progress", None), ("completed", "success"), ("completed", "failure")]),
    ),
    max_size=15,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_github_is_never_asked_to_reopen_and_always_ends_with_what_was_wanted_last(
    engine: Engine, steps: list[tuple[str, int | None, tuple[str, str | None]]]
) -> None:
    with engine.connect() as connection:  # rolled back: every example starts from nothing
        ids = {None: None, 0: experiment(connection), 1: experiment(connection, rerun=1)}
        github: dict[int, str] = {}
        last: dict[int | None, CheckRunRow] = {}

        def send(row: CheckRunRow) -> None:
            assert not (github.get(row.id) == "completed" and row.wanted.status != "completed"), "reopened"
            assert row.id in github or all(each < row.id for each in github), "hidden behind an older one"
            github[row.id] = row.wanted.status
            acknowledge(connection, row)

        for step, owner, (status, conclusion) in steps:
            if step == "want":
                last[owner] = want(connection, ids[owner], status=status, conclusion=conclusion)
                if last[owner].experiment_id == ids[0] and owner is None:
                    raise AssertionError("nobody's check run took an experiment's")
            elif found := check_runs.due(connection, now=0.0, each=1):
                send(found[0])
        while rows := check_runs.due(connection, now=0.0):
            for row in rows:
                send(row)
        for owner in (0, 1):
            if owner in last:
                assert github[last[owner].id] == last[owner].wanted.status
