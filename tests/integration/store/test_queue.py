"""What a pass of the launch loop reads: all that is under way, and of what waits only what is new, due or unwanted."""

from dataclasses import replace

from sqlalchemy import Connection, Engine, event, text

from ci_bot.records import Wish
from ci_bot.store import begin, experiments, queue
from ci_bot.store.queue import MOST_IDS, Commit
from launcher.state import Progress, Signal, State, advance
from tests.integration.store.values import MAIN, after, draft

PENDING = after(Signal.COMMIT_RESOLVED)
PROVISIONING = advance(PENDING, Signal.ADMITTED)
STOPPED = replace(PROVISIONING, state=State.STOPPED)
WISH = Wish("octocat", "cancelled by octocat", 9.0)


def made(connection: Connection, rerun: int, progress: Progress | None = None, at: float = 1.0) -> int:
    found, _ = experiments.create(connection, draft(rerun=rerun), MAIN, at=at)
    if progress:
        assert experiments.record(connection, found, Progress(), progress, at=at + 1)
    return found


def test_what_is_under_way_is_all_that_neither_waits_nor_has_ended(engine: Engine) -> None:
    with begin(engine) as connection:
        made(connection, 0)
        made(connection, 1, PENDING)
        made(connection, 2, STOPPED)
        one, two = made(connection, 3, PROVISIONING), made(connection, 4, replace(PENDING, state=State.RUNNING))
        assert [each.id for each in queue.under_way(connection)] == [one, two]


def test_of_what_waits_the_unwanted_are_found_at_once(engine: Engine) -> None:
    with begin(engine) as connection:
        wanted, created, pending = made(connection, 0, PENDING), made(connection, 1), made(connection, 2, PENDING)
        for each in (created, pending, made(connection, 3, PROVISIONING)):
            assert experiments.wish(connection, each, WISH)
        found = queue.unwanted(connection)
        assert [(each.id, each.wish) for each in found] == [(created, WISH), (pending, WISH)]
        assert wanted not in [each.id for each in found]


def test_the_unwanted_are_found_by_an_index_of_only_them(engine: Engine) -> None:
    asked: list[str] = []
    with begin(engine) as connection:
        event.listen(connection, "before_cursor_execute", lambda *told: asked.append(told[2]))
        queue.unwanted(connection)
        (statement,) = asked
        if engine.dialect.name == "postgresql":
            connection.execute(text("SET LOCAL enable_seqscan = off"))  # which it prefers while there is no row
        explain = "EXPLAIN QUERY PLAN" if engine.dialect.name == "sqlite" else "EXPLAIN"
        assert "ix_experiment_wished" in str(connection.execute(text(f"{explain} {statement}")).all())


def test_the_first_that_are_new_come_besides_those_that_are_seen_to(engine: Engine) -> None:
    with begin(engine) as connection:
        one, two, three, four = (made(connection, number) for number in range(4))
        made(connection, 4, PENDING)
        assert [each.id for each in queue.created(connection, 2)] == [one, two]
        assert [each.id for each in queue.created(connection, 2, besides={one, three})] == [two, four]
        assert [each.id for each in queue.created(connection, 9, besides={two, 10**6})] == [one, three, four]


def test_those_who_wait_are_read_by_id_with_the_place_that_retries_keep(engine: Engine) -> None:
    with begin(engine) as connection:
        one, two, gone = (
            made(connection, 0, PENDING, at=5.0),
            made(connection, 1, PENDING),
            made(connection, 2, STOPPED),
        )
        back = replace(PENDING, attempt=1)
        experiments.record(connection, two, PENDING, replace(back, state=State.NETWORK_TEARDOWN), at=50.0)
        experiments.record(connection, two, replace(back, state=State.NETWORK_TEARDOWN), back, at=60.0)
        assert queue.pending_ids(connection) == {one, two}
        found = queue.queued(connection, [one, two, gone, 10**6])
        assert {(each.id, each.queued_at, each.state_at, each.progress) for each in found} == {
            (one, 6.0, 6.0, PENDING),
            (two, 2.0, 60.0, back),
        }
        assert found[0].specification == draft().specification


def test_many_are_read_in_batches(engine: Engine) -> None:
    with begin(engine) as connection:
        ids = [made(connection, number, PENDING) for number in range(3)]
        many = [*range(10**6, 10**6 + MOST_IDS), *ids]
        assert {each.id for each in queue.queued(connection, many)} == set(ids)
        assert [each.id for each in queue.some(connection, many)] == ids


def test_the_commits_of_what_has_not_ended_are_known(engine: Engine) -> None:
    with begin(engine) as connection:
        made(connection, 0), made(connection, 1, PROVISIONING)
        ended, _ = experiments.create(connection, draft(head_sha="b" * 40), MAIN, at=1.0)
        experiments.record(connection, ended, Progress(), STOPPED, at=2.0)
        assert queue.commits(connection) == [Commit(draft().repository_id, "a" * 40)]


def test_only_those_who_wait_are_told_why_and_only_what_is_new(engine: Engine) -> None:
    with begin(engine) as connection:
        waits, left = made(connection, 0, PENDING), made(connection, 1, PROVISIONING)
        assert queue.tell(connection, {waits: "1 ahead", left: "1 ahead"})
        assert not queue.tell(connection, {waits: "1 ahead", left: "2 ahead"})
        found = queue.some(connection, [waits, left])
    assert [(each.pending_reason, each.version) for each in found] == [("1 ahead", 3), ("", 2)]
