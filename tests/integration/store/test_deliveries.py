"""Received and processed are different facts."""

import asyncio

import pytest
from sqlalchemy import Engine, event

from ci_bot.store import begin, deliveries, reading
from ci_bot.store.inbox import Inbox


def receive(engine: Engine, *guids: str, at: float = 0.0, source: str = "webhook") -> None:
    async def put_all() -> None:
        for guid in guids:
            await box.put(guid, "push", b"{}", at=at, source=source)

    box = Inbox(engine)
    asyncio.run(put_all())
    box.close()


def unsorted(engine: Engine, now: float = 0.0) -> list[str]:
    with reading(engine) as connection:
        return [delivery.guid for delivery in deliveries.unsorted(connection, now)]


def sort(engine: Engine, *lanes: int) -> None:
    with begin(engine) as connection:
        deliveries.sort(connection, dict(enumerate(lanes, start=1)))


def due(engine: Engine, now: float = 0.0) -> dict[int, str]:
    """Which delivery is next in each lane."""
    with reading(engine) as connection:
        found = {lane: deliveries.next_in(connection, lane, now) for lane in deliveries.lanes(connection, now)}
    return {lane: delivery.guid for lane, delivery in found.items() if delivery}


def postpone(engine: Engine, seq: int, until: float, times: int = 1) -> None:
    with begin(engine) as connection:
        for _ in range(times):
            deliveries.postpone(connection, seq, until, "GitHub answered 502")


def test_what_was_received_is_new_in_order_until_it_is_in_a_lane(engine: Engine) -> None:
    receive(engine, "c", "a", "b")
    assert unsorted(engine) == ["c", "a", "b"]
    sort(engine, 7)
    assert unsorted(engine) == ["a", "b"]
    with begin(engine) as connection:
        assert deliveries.processed(connection, 2, "started 1 experiment", at=3.0)
    assert unsorted(engine) == ["b"]


def test_large_bodies_are_read_a_few_at_a_time_and_the_largest_alone(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliveries, "READ_BYTES", 5)
    receive(engine, "a", "b", "c")  # two bytes each
    assert unsorted(engine) == ["a", "b"]
    monkeypatch.setattr(deliveries, "READ_BYTES", 1)
    assert unsorted(engine) == ["a"]


def test_each_lane_has_its_own_next_one(engine: Engine) -> None:
    receive(engine, "a", "b", "c", "d")
    sort(engine, 7, 0, 7, 8)
    assert due(engine) == {7: "a", 0: "b", 8: "d"}
    assert list(due(engine)) == [7, 0, 8]
    with begin(engine) as connection:
        deliveries.processed(connection, 1, "ignored", at=3.0)
        deliveries.processed(connection, 4, "ignored", at=3.0)
    assert due(engine) == {0: "b", 7: "c"}


def test_what_was_put_off_comes_first_again_until_it_was_put_off_too_often(engine: Engine) -> None:
    receive(engine, "a", "b", "c")
    sort(engine, 7, 7, 7)
    postpone(engine, 1, until=5.0, times=deliveries.PATIENT_TRIES - 1)
    assert due(engine, now=5.0) == {7: "a"}
    postpone(engine, 1, until=6.0)
    assert due(engine, now=6.0) == {7: "b"}
    postpone(engine, 2, until=5.0, times=deliveries.PATIENT_TRIES)
    with begin(engine) as connection:
        deliveries.processed(connection, 3, "ignored", at=6.0)
    assert due(engine, now=6.0) == {7: "b"}  # it waits longer than a
    assert due(engine, now=4.0) == {}


def test_what_waits_is_found_without_reading_bodies(engine: Engine) -> None:
    if engine.dialect.name != "sqlite":
        pytest.skip("PostgreSQL keeps large bodies apart by itself")
    asked: list[tuple[str, object]] = []

    def note(_connection: object, _cursor: object, statement: str, parameters: object, *_: object) -> None:
        asked.append((statement, parameters))

    event.listen(engine, "before_cursor_execute", note)
    receive(engine, "a")
    sort(engine, 7)
    asked.clear()
    assert due(engine) == {7: "a"}
    with reading(engine) as connection:
        for statement, parameters in [each for each in asked if each[0].startswith("SELECT") and "body" not in each[0]]:
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters).all()  # type: ignore[arg-type]
            assert "USING COVERING INDEX ix_delivery_pending" in str(plan)


def test_a_delivery_is_processed_once(engine: Engine) -> None:
    receive(engine, "a")
    with begin(engine) as connection:
        assert deliveries.processed(connection, 1, "ignored", at=3.0)
        assert not deliveries.processed(connection, 1, "ignored", at=4.0)
        assert not deliveries.processed(connection, 99, "ignored", at=4.0)


def test_a_crash_before_the_commit_repeats_the_delivery(engine: Engine) -> None:
    receive(engine, "a")

    def crash() -> None:
        with begin(engine) as connection:
            deliveries.processed(connection, 1, "ignored", at=3.0)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        crash()
    assert unsorted(engine) == ["a"]


def test_a_postponed_delivery_comes_back_with_its_tries_and_why(engine: Engine) -> None:
    receive(engine, "a", "b")
    postpone(engine, 1, until=100.0)
    assert unsorted(engine, now=99.0) == ["b"]
    sort(engine, 7)
    assert due(engine, now=99.0) == {}
    with reading(engine) as connection:
        first = deliveries.next_in(connection, 7, now=100.0)
    assert first is not None
    assert (first.guid, first.tries, first.outcome) == ("a", 1, "GitHub answered 502")


def test_known_finds_every_guid_however_many_are_asked_for(engine: Engine) -> None:
    receive(engine, "a", "b", source="recovered")
    with reading(engine) as connection:
        assert deliveries.known(connection, ["b", "a", "x", *map(str, range(1500))]) == {"a", "b"}
        assert deliveries.known(connection, []) == set()


def test_the_backlog_counts_what_waits_and_says_since_when(engine: Engine) -> None:
    with reading(engine) as connection:
        assert deliveries.backlog(connection) == (0, None)
    receive(engine, "a", at=5.0)
    receive(engine, "b", at=7.0)
    with begin(engine) as connection:
        deliveries.processed(connection, 1, "ignored", at=8.0)
        assert deliveries.backlog(connection) == (1, 7.0)


def test_only_what_is_old_and_processed_is_forgotten(engine: Engine) -> None:
    receive(engine, "old, processed", "old, waiting", at=10.0)
    receive(engine, "new", at=20.0)
    with begin(engine) as connection:
        deliveries.processed(connection, 1, "ignored", at=11.0)
        deliveries.processed(connection, 3, "ignored", at=21.0)
        assert deliveries.prune(connection, older_than=20.0) == 1
        assert deliveries.known(connection, ["old, processed", "old, waiting", "new"]) == {"old, waiting", "new"}


def test_a_number_is_never_given_twice(engine: Engine) -> None:
    receive(engine, "a", at=10.0)
    with begin(engine) as connection:
        deliveries.processed(connection, 1, "ignored", at=11.0)
        deliveries.prune(connection, older_than=20.0)
    receive(engine, "b", at=30.0)
    with reading(engine) as connection:
        assert deliveries.unsorted(connection, now=0.0)[0].seq == 2
