"""The worker's transactions: each in a thread, each write under the lease's epoch."""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from typing import TypeVar

import structlog
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from ci_bot.store import lease
from ci_bot.store.engine import WORKER_LEASE, begin, reading

T = TypeVar("T")
LEASE_TTL_S = 6.0
RENEW_S = 1.0
log = structlog.get_logger()


class Books:
    """Reads and writes of the store for the loops; one worker at a time may write."""

    def __init__(self, engine: Engine, holder: str) -> None:
        self.engine = engine
        self.holder = holder
        self.epoch = 0
        self.lost = threading.Event()
        self._writing = asyncio.Lock()
        self._stop = threading.Event()
        self._renewer: threading.Thread | None = None

    async def open(self) -> None:
        """Wait for the lease, then keep renewing it."""
        waited = False
        while (epoch := await asyncio.to_thread(self._acquire)) is None:
            if not waited:
                log.info("another worker holds the lease; waiting for it to end")
                waited = True
            await asyncio.sleep(RENEW_S)
        self.epoch = epoch
        self._renewer = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._renewer.start()

    def close(self) -> None:
        """Give the lease back, so that the next worker need not wait."""
        self._stop.set()
        if self._renewer:
            self._renewer.join()
        if self.epoch and not self.lost.is_set():
            lease.release(self.engine, WORKER_LEASE, self.holder, self.epoch)

    async def read(self, work: Callable[[Connection], T]) -> T:
        """The outcome of a reading transaction."""

        def transaction() -> T:
            with reading(self.engine) as connection:
                return work(connection)

        return await asyncio.to_thread(transaction)

    async def write(self, work: Callable[[Connection], T]) -> T:
        """The outcome of a writing transaction, committed.

        Raises:
            LeaseLost: another worker has taken over; nothing was written.
        """

        def transaction() -> T:
            with begin(self.engine, self.epoch) as connection:
                return work(connection)

        # One at a time anyway, by the lock of SQLite or the row of the lease; there they would nap, with a thread each.
        async with self._writing:
            return await asyncio.to_thread(transaction)

    def _acquire(self) -> int | None:
        return lease.acquire(self.engine, WORKER_LEASE, self.holder, time.time(), LEASE_TTL_S)

    def _renew(self) -> None:
        while not self._stop.wait(RENEW_S):
            with contextlib.suppress(OSError, SQLAlchemyError):  # busy or away for now; the next round tries again
                if not lease.renew(self.engine, WORKER_LEASE, self.holder, self.epoch, time.time(), LEASE_TTL_S):
                    self.lost.set()
                    return
