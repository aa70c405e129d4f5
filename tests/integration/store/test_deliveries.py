"""Received and processed are different facts."""

import asyncio

import pytest
from sqlalchemy import Engine

from ci_bot.store import begin, deliveries, reading
from ci_bot.store.inbox import Inbox


def receive(engine: Engine, *guids: str, at: float = 0.0, source: str = "webhook") -> None:
    async def put_all() -> None:
        for guid in guids:
            await box.put(guid, "push", b"{}", at=at, source=source)

    box = Inbox(engine)
    asyncio.run(put_all())
    box.close()


def pending(engine: Engine, now: float) -> list[str]:
    with reading(engine) as connection:
        return [delivery.guid for delivery in deliveries.pending(connection, now)]


def test_what_was_received_is_pending_in_order_until_it_is_processed(engine: Engine) -> None:
    receive(engine, "c", "a", "b")
    assert pending(engine, now=0.0) == ["c", "a", "b"]
    with begin(engine) as connection:
        assert deliveries.processed(connection, 2, "started 1 experiment", at=3.0)
    assert pending(engine, now=0.0) == ["c", "b"]


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
    assert pending(engine, now=0.0) == ["a"]


def test_a_postponed_delivery_comes_back_with_its_tries_and_why(engine: Engine) -> None:
    receive(engine, "a", "b")
    with begin(engine) as connection:
        deliveries.postpone(connection, 1, next_try_at=100.0, why="GitHub answered 502")
    assert pending(engine, now=99.0) == ["b"]
    with reading(engine) as connection:
        first = deliveries.pending(connection, now=100.0)[0]
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
        assert deliveries.pending(connection, now=0.0)[0].seq == 2
