"""An acknowledged delivery is on the disk, whatever happens next."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, event, text

from ci_bot.store import begin, deliveries, inbox, migrate, open_engine, reading
from ci_bot.store.inbox import Inbox, NotStored

PUT_UNTIL_KILLED = """
import asyncio, os, sys, time
from ci_bot.store.engine import open_engine
from ci_bot.store.inbox import Inbox

async def main():
    box = Inbox(open_engine(sys.argv[1]))
    async def put_on(task):
        for number in range(1_000_000):
            guid = f"{os.getpid()}-{task}-{number}"
            await box.put(guid, "push", guid.encode() * 50, at=time.time())
            os.write(1, (guid + "\\n").encode())  # the acknowledgement
    await asyncio.gather(*(put_on(task) for task in range(20)))

asyncio.run(main())
"""


@pytest.fixture
def box(engine: Engine) -> Iterator[Inbox]:
    box = Inbox(engine)
    yield box
    box.close()


def stored(engine: Engine) -> list[deliveries.Delivery]:
    with reading(engine) as connection:
        return deliveries.unsorted(connection, now=1e12, limit=10_000)


def test_a_delivery_is_stored_raw_before_the_answer(engine: Engine, box: Inbox) -> None:
    body = bytes(range(256))
    assert asyncio.run(box.put("guid-1", "push", body, at=5.25)) is True
    assert stored(engine) == [deliveries.Delivery(1, "guid-1", "push", body, 5.25, "webhook")]


def test_a_known_guid_is_told_and_stored_once(engine: Engine, box: Inbox) -> None:
    async def put_twice_at_once_and_once_later() -> list[bool]:
        both = await asyncio.gather(*(box.put("guid-1", "push", b"%d" % one, at=0.0) for one in range(2)))
        return [*both, await box.put("guid-1", "push", b"2", at=0.0)]

    assert sorted(asyncio.run(put_twice_at_once_and_once_later())) == [False, False, True]
    assert [delivery.body for delivery in stored(engine)] == [b"0"]


def test_each_of_a_group_hears_whether_it_is_itself_new(engine: Engine, box: Inbox) -> None:
    async def put_a_mixed_group() -> list[bool]:
        await box.put("known", "push", b"first", at=0.0)
        puts = [asyncio.create_task(box.put(guid, "push", b"{}", at=0.0)) for guid in ("a", "known", "b", "a", "c")]
        return list(await asyncio.gather(*puts))

    assert asyncio.run(put_a_mixed_group()) == [True, False, True, False, True]
    assert [(each.guid, each.body) for each in stored(engine)] == [
        ("known", b"first"), ("a", b"{}"), ("b", b"{}"), ("c", b"{}"),
    ]  # fmt: skip


def test_new_deliveries_take_one_transaction(engine: Engine, box: Inbox) -> None:
    used: list[object] = []
    event.listen(engine, "checkout", lambda *of_pool: used.append(of_pool))
    assert asyncio.run(box.put("alone", "push", b"{}", at=0.0)) is True
    assert len(used) == 1


def test_what_a_loop_puts_in_one_turn_is_committed_together(engine: Engine, box: Inbox) -> None:
    used: list[object] = []
    event.listen(engine, "checkout", lambda *of_pool: used.append(of_pool))

    async def put_together() -> list[bool]:
        return await asyncio.gather(*(box.put(f"guid-{n}", "push", b"{}", at=0.0) for n in range(20)))

    assert asyncio.run(put_together()) == [True] * 20
    assert len(used) == 1


def test_what_is_put_as_the_inbox_closes_is_stored(engine: Engine) -> None:
    box = Inbox(engine)

    async def put_and_close() -> bool:
        put = asyncio.create_task(box.put("guid-1", "push", b"{}", at=0.0))
        await asyncio.sleep(0)  # it has put, and the loop has not handed it over
        box.close()
        return await put

    assert asyncio.run(put_and_close()) is True
    assert len(stored(engine)) == 1


def test_words_that_no_database_takes_are_known_again(engine: Engine, box: Inbox) -> None:
    assert asyncio.run(box.put("a\0b", "push\ud800", b"{}", at=0.0)) is True
    assert asyncio.run(box.put("a\0b", "push\ud800", b"{}", at=0.0)) is False
    assert [each.event for each in stored(engine)] == ["push" + 3 * "\ufffd"]


def test_who_is_called_after_a_commit_finds_what_is_new_and_is_called_once_for_a_group(engine: Engine) -> None:
    found: list[int] = []
    box = Inbox(engine, lambda: found.append(len(stored(engine))))

    async def put_one_and_then_many() -> None:
        with begin(engine) as connection:  # keeps the writer from storing the first one, so that the rest gathers
            if engine.dialect.name == "postgresql":
                connection.execute(text("LOCK TABLE delivery IN ACCESS EXCLUSIVE MODE"))
            puts = [asyncio.create_task(box.put(f"guid-{n}", "push", b"{}", at=0.0)) for n in range(100)]
            await asyncio.sleep(0)  # all have put
        await asyncio.gather(*puts)
        calls = len(found)
        assert await box.put("guid-1", "push", b"{}", at=0.0) is False
        assert len(found) == calls, "a known one is nothing new"

    asyncio.run(put_one_and_then_many())
    box.close()
    assert len(found) <= 2
    assert found[-1] == 100


def test_many_tasks_and_event_loops_may_put_at_once(engine: Engine, box: Inbox) -> None:
    async def put_many(loop_number: int) -> list[bool]:
        return await asyncio.gather(*(box.put(f"{loop_number}-{n}", "push", b"{}", at=0.0) for n in range(600)))

    async def run_loops() -> list[list[bool]]:
        return await asyncio.gather(*(asyncio.to_thread(asyncio.run, put_many(number)) for number in range(2)))

    assert asyncio.run(run_loops()) == [[True] * 600] * 2
    assert len(stored(engine)) == 1200


def test_a_failure_of_the_database_reaches_everyone_who_waits_and_the_next_group_is_stored(
    engine: Engine, box: Inbox
) -> None:
    async def put_into_a_missing_table() -> list[bool | BaseException]:
        puts = (box.put(f"guid-{n}", "push", b"{}", at=0.0) for n in range(3))
        return await asyncio.gather(*puts, return_exceptions=True)

    with begin(engine) as connection:
        connection.execute(text("ALTER TABLE delivery RENAME TO elsewhere"))
    failures = asyncio.run(put_into_a_missing_table())
    assert [type(failure) for failure in failures] == [NotStored] * 3
    assert "\n" not in str(failures[0])
    with begin(engine) as connection:
        connection.execute(text("ALTER TABLE elsewhere RENAME TO delivery"))
    assert asyncio.run(box.put("guid-1", "push", b"{}", at=0.0)) is True


def test_a_full_disk_is_a_failure_and_not_an_acknowledgement(tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path}/descent.db")
    migrate(engine)
    with engine.connect() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
    engine.dispose()
    limited = open_engine(f"sqlite:///{tmp_path}/descent.db")
    with limited.connect() as connection:  # stays in the pool, and the writer takes it from there
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
    box = Inbox(limited)
    with pytest.raises(NotStored, match="full"):
        asyncio.run(box.put("guid-1", "push", b"x" * 100_000, at=0.0))
    box.close()
    assert stored(limited) == []
    limited.dispose()


def test_more_than_memory_should_hold_is_refused(box: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox, "BACKLOG_BYTES", 10)
    with pytest.raises(NotStored, match="wait to be stored"):
        asyncio.run(box.put("guid-1", "push", b"x" * 11, at=0.0))
    assert asyncio.run(box.put("guid-2", "push", b"x" * 10, at=0.0)) is True
    assert asyncio.run(box.put("guid-3", "push", b"x" * 10, at=0.0)) is True, "what was stored counts no more"


def test_closing_stores_what_was_put_and_refuses_the_rest(engine: Engine) -> None:
    box = Inbox(engine)

    async def put_and_close() -> list[bool]:
        puts = [asyncio.create_task(box.put(f"guid-{n}", "push", b"{}", at=0.0)) for n in range(300)]
        await asyncio.sleep(0)  # every task has put
        await asyncio.to_thread(box.close)
        return await asyncio.gather(*puts)

    assert asyncio.run(put_and_close()) == [True] * 300
    with pytest.raises(NotStored, match="closed"):
        asyncio.run(box.put("late", "push", b"{}", at=0.0))


def test_a_request_that_was_given_up_harms_nobody(engine: Engine, box: Inbox) -> None:
    async def give_one_up() -> list[bool]:
        with begin(engine) as connection:  # keeps the writer from answering
            if engine.dialect.name == "postgresql":
                connection.execute(text("LOCK TABLE delivery IN ACCESS EXCLUSIVE MODE"))
            tasks = [asyncio.create_task(box.put(guid, "push", b"{}", at=0.0)) for guid in "abc"]
            await asyncio.sleep(0)  # all have put
            tasks[1].cancel()
            with pytest.raises(asyncio.CancelledError):
                await tasks[1]
        async with asyncio.timeout(10):
            return await asyncio.gather(tasks[0], tasks[2])

    assert asyncio.run(give_one_up()) == [True, True]
    assert [delivery.guid for delivery in stored(engine)] == ["a", "b", "c"]


def test_none_acknowledged_is_lost_when_the_process_is_killed(engine: Engine) -> None:
    acknowledged: set[str] = set()
    url = engine.url.render_as_string(hide_password=False)
    for kill_after in (150, 1):
        child = subprocess.Popen(
            [sys.executable, "-c", PUT_UNTIL_KILLED, url], stdout=subprocess.PIPE, env=os.environ.copy()
        )
        assert child.stdout is not None
        with child, child.stdout:
            for _ in range(kill_after):
                acknowledged.add(child.stdout.readline().decode().strip())
            child.send_signal(signal.SIGKILL)
            # What it said before it died, complete lines only.
            acknowledged.update(line.decode().strip() for line in child.stdout if line.endswith(b"\n"))
        assert child.returncode == -signal.SIGKILL
    found = stored(engine)
    assert len(acknowledged) >= 151
    assert acknowledged <= {delivery.guid for delivery in found}
    assert all(delivery.body == delivery.guid.encode() * 50 for delivery in found)
