"""Stores webhook deliveries durably: one writer thread that commits in groups."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

from sqlalchemy import Engine

from ci_bot.store.engine import begin
from ci_bot.store.tables import Text, delivery, insert

GROUP_SIZE = 256
GROUP_BYTES = 32 * 2**20
"""What one COMMIT takes at most; bodies may have 25 MB each."""
BACKLOG_BYTES = 256 * 2**20
"""What may wait for a slow disk before new deliveries are refused, so that memory stays bounded."""

_INSERT = "INSERT INTO delivery (guid, event, body, received_at, source) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
_TEXT = Text()


class NotStored(Exception):
    """A delivery could not be stored; its sender must not be told otherwise."""


class _Put(NamedTuple):  # and no dataclass, whose making takes five times as long when it is frozen
    """One delivery on its way to the disk, and who waits for it."""

    guid: str
    event: str
    body: bytes
    at: float
    source: str
    loop: asyncio.AbstractEventLoop
    stored: asyncio.Future[bool]


class Inbox:
    """The door of the store for deliveries. Any number of tasks and event loops may put.

    Args:
        engine: the database.
        committed: called in the writer's thread when there are new deliveries, once for all that were committed
            together; must neither block nor raise.
    """

    def __init__(self, engine: Engine, committed: Callable[[], None] = lambda: None) -> None:
        self._engine = engine
        self._committed = committed
        self._insert = _INSERT if engine.dialect.name == "sqlite" else _INSERT.replace("?", "%s")
        self._queue: SimpleQueue[list[_Put] | None] = SimpleQueue()
        self._gathered: dict[asyncio.AbstractEventLoop, list[_Put]] = {}
        self._lock = threading.Lock()
        self._backlog_bytes = 0
        self._closed = False
        # A daemon, so that a disk that hangs can't keep the process from ending; close() is what waits for it.
        self._writer = threading.Thread(target=self._write, name="inbox", daemon=True)
        self._writer.start()

    async def put(self, guid: str, event: str, body: bytes, *, at: float, source: str = "webhook") -> bool:
        """Store a delivery; returns when it is on the disk.

        Args:
            guid: its X-GitHub-Delivery.
            event: its X-GitHub-Event.
            body: raw.
            at: when it was received.
            source: `webhook`, or `recovered` from GitHub's list of deliveries.

        Returns:
            True if it is new, False if a delivery of this GUID was stored before.

        Raises:
            NotStored: the disk is full, the database is gone, too much is waiting, or the inbox is closed.
        """
        loop = asyncio.get_running_loop()
        guid, event = self._storable(guid), self._storable(event)
        put = _Put(guid, event, body, at, source, loop, loop.create_future())
        self._enqueue(put)
        return await put.stored

    def _enqueue(self, put: _Put) -> None:
        with self._lock:  # so that nothing is queued behind close()'s mark, where nobody would ever answer it
            if self._closed:
                raise NotStored("the inbox is closed")
            if self._backlog_bytes + len(put.body) > BACKLOG_BYTES:
                raise NotStored(f"{self._backlog_bytes} bytes wait to be stored already")
            self._backlog_bytes += len(put.body)
            if put.loop in self._gathered:
                self._gathered[put.loop].append(put)
            else:
                # All that a loop puts in one turn goes over together: woken by the first, the writer would commit it
                # alone, and half of all groups would be of one.
                put.loop.call_soon(self._hand_over, put.loop)
                self._gathered[put.loop] = [put]

    def _hand_over(self, loop: asyncio.AbstractEventLoop) -> None:
        with self._lock:
            if puts := self._gathered.pop(loop, None):  # nothing, if close() was quicker
                self._queue.put(puts)

    def close(self) -> None:
        """Store what was put, then end the writer; blocks until then."""
        with self._lock:
            self._closed = True
            for puts in self._gathered.values():
                self._queue.put(puts)
            self._gathered.clear()
            self._queue.put(None)
        self._writer.join()

    def _storable(self, word: str) -> str:
        return str(_TEXT.process_bind_param(word, self._engine.dialect))

    def _write(self) -> None:
        last = False
        while not last:
            group, last = self._next_group()
            if group:
                self._settle(group)

    def _next_group(self) -> tuple[list[_Put], bool]:
        """Wait for one, then take what is there: while a group is being committed, the next one gathers too."""
        group: list[_Put] = []
        size_bytes = 0
        item = self._queue.get()
        while item is not None:
            group += item  # whole: one by one, the writer could be woken by the first
            size_bytes += sum(len(put.body) for put in item)
            if len(group) >= GROUP_SIZE or size_bytes >= GROUP_BYTES:
                return group, False
            try:
                item = self._queue.get_nowait()
            except Empty:
                return group, False
        return group, True

    def _settle(self, group: list[_Put]) -> None:
        new: set[str] = set()
        failure = ""
        try:
            new = self._commit(group)
        except Exception as error:  # whatever the database said, each sender must hear that it was not stored
            failure = str(error).partition("\n")[0] or type(error).__name__
        if new:
            self._committed()
        with self._lock:
            self._backlog_bytes -= sum(len(put.body) for put in group)
        answers: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[bool], bool]]] = {}
        for put in group:
            answers.setdefault(put.loop, []).append((put.stored, put.guid in new))
            new.discard(put.guid)  # the same GUID twice in one group: the second one is the duplicate
        for loop, of_loop in answers.items():
            # A closed loop raises: nobody waits there any more.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(_answer, of_loop, failure)

    def _commit(self, group: list[_Put]) -> set[str]:
        with self._transaction() as cursor:
            cursor.executemany(self._insert, [(put.guid, put.event, put.body, put.at, put.source) for put in group])
            all_new = cursor.rowcount == len(group)
            if all_new:
                cursor.connection.commit()
        return {put.guid for put in group} if all_new else self._commit_some(group)

    @contextmanager
    def _transaction(self) -> Iterator[Any]:
        """A driver's own cursor in a write transaction, which is rolled back unless it was committed.

        SQLAlchemy's part in a group, 0.2 ms of a processor, would be as much as the INSERTs of ten deliveries.
        """
        connection = self._engine.raw_connection()
        try:
            cursor = connection.cursor()
            if self._engine.dialect.name == "sqlite":
                cursor.execute("BEGIN IMMEDIATE")  # psycopg begins by itself, what `open_engine` forbids sqlite3
            yield cursor
        finally:
            connection.close()  # gives it back to the pool, which rolls back

    def _commit_some(self, group: list[_Put]) -> set[str]:
        """Some are known, and only RETURNING tells which: with every group, it would double the INSERT's cost."""
        rows = [
            {"guid": put.guid, "event": put.event, "body": put.body, "received_at": put.at, "source": put.source}
            for put in group
        ]
        with begin(self._engine) as connection:
            statement = insert(connection, delivery).on_conflict_do_nothing().returning(delivery.c.guid)
            return set(connection.scalars(statement, rows))


def _answer(answers: list[tuple[asyncio.Future[bool], bool]], failure: str) -> None:
    for stored, new in answers:
        if stored.done():  # its request was given up
            continue
        if failure:
            stored.set_exception(NotStored(failure))
        else:
            stored.set_result(new)
