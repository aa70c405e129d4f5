"""An attempt held where it stays for milliseconds only: the worker, who moves it, is stopped once its row says so."""

import os
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from launcher.state import State
from tests.cluster.cells import place

PAUSE_S = 0.0005
STOPPED_S = 5.0
"""A thread stops once it comes back from the kernel, where it may write to a disk."""


@dataclass(frozen=True)
class Row:
    """Where an experiment stands, and whether its nodes are on record."""

    state: State
    holds: bool


@dataclass(frozen=True)
class Book:
    """The store, read past Descent and quickly."""

    database: Path

    @contextmanager
    def reading(self, full_name: str, sha: str) -> Iterator[Callable[[], Row | None]]:
        """The newest experiment of a commit, again and again, as it is then."""
        with closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True)) as connection:
            yield lambda: _row(connection, full_name, sha)

    def locked(self) -> bool:
        """Whether somebody is in the middle of writing, so that nobody else can."""
        with closing(sqlite3.connect(self.database, timeout=0, isolation_level=None)) as connection:
            try:
                connection.execute("BEGIN IMMEDIATE").close()
                connection.execute("ROLLBACK").close()
            except sqlite3.OperationalError:
                return True
            return False


def _row(connection: sqlite3.Connection, full_name: str, sha: str) -> Row | None:
    asked = "SELECT state, held LIKE '%node_id%' FROM experiment WHERE head_sha = ? AND full_name = ? ORDER BY id DESC"
    found = connection.execute(asked, (sha, full_name)).fetchone()
    return Row(State(found[0]), bool(found[1])) if found else None


@contextmanager
def held_in(state: State, read: Callable[[], Row | None], worker: int, writable: Book | None = None) -> Iterator[bool]:
    """Stops the worker (our number) in this state, and lets it go on afterwards; False when the state had gone by.

    A book that others have to write to meanwhile must be `writable`: then it is not stopped in the middle of writing.
    """
    held = False
    try:
        while not held and (row := read()) and place(row.state) <= place(state):
            if row.state is state:
                _stop(worker)
                held = (row := read()) is not None and row.state is state
                held = held and not (writable and writable.locked())
            if not held:
                _signal(worker, signal.SIGCONT)
                time.sleep(PAUSE_S)
        yield held
    finally:
        _signal(worker, signal.SIGCONT)


def _stop(pid: int) -> None:
    """Come back when none of its threads runs any more."""
    _signal(pid, signal.SIGSTOP)
    give_up_at = time.monotonic() + STOPPED_S
    while not all(state in "TXZ" for state in _threads(pid)):
        assert time.monotonic() < give_up_at, f"{pid} does not stop: {_threads(pid)}"
        time.sleep(PAUSE_S)


def _threads(pid: int) -> list[str]:
    """The state of each of its threads, as the kernel writes it."""
    found = []
    for path in Path(f"/proc/{pid}/task").glob("*/stat"):
        with suppress(OSError):
            found.append(path.read_text().rpartition(")")[2].split()[0])
    return found


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)
