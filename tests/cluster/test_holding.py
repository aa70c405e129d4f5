"""What moves an experiment is stopped in a state that lasts milliseconds, and goes on afterwards; needs no hosts."""

import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from launcher.state import TERMINAL, State
from tests.cluster.cells import ORDER
from tests.cluster.holding import Book, held_in
from tests.e2e.stack import wait_for

MOVER = """
import sqlite3, sys, time
database, *states = sys.argv[1:]
with sqlite3.connect(database, isolation_level=None) as connection:
    for state in states:
        connection.execute("UPDATE experiment SET state = ?", (state,))
        time.sleep(0.1)
"""


@pytest.fixture
def book(tmp_path: Path) -> Book:
    """A store with one experiment."""
    database = tmp_path / "descent.db"
    with sqlite3.connect(database) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE experiment (id INTEGER, head_sha TEXT, full_name TEXT, state TEXT, held TEXT)")
        connection.execute("INSERT INTO experiment VALUES (1, 'sha', 'octo/repo', 'CREATED', '{}')")
    connection.close()
    return Book(database)


@pytest.mark.parametrize("state", [State.PROVISIONED, State.NETWORK_SETUP])
def test_a_state_stays_as_long_as_it_is_held_and_goes_on_afterwards(book: Book, state: State) -> None:
    mover = subprocess.Popen([sys.executable, "-c", MOVER, str(book.database), *ORDER, State.STOPPED])
    with book.reading("octo/repo", "sha") as read:
        with held_in(state, read, mover.pid, book) as held:
            assert held
            seen = set()
            give_up_at = time.monotonic() + 0.2
            while time.monotonic() < give_up_at:
                row = read()
                assert row is not None
                seen.add(row.state)
            assert seen == {state}
            assert not book.locked()
        assert mover.wait(10) == 0
        row = read()
        assert row is not None
        assert row.state is State.STOPPED


def test_one_that_has_gone_by_is_not_held_and_nobody_is_left_stopped(book: Book) -> None:
    mover = subprocess.Popen([sys.executable, "-c", MOVER, str(book.database), State.STOPPED, State.STOPPED])
    with book.reading("octo/repo", "sha") as read:
        wait_for(lambda: (row := read()) is not None and row.state in TERMINAL, 10)
        with held_in(State.PROVISIONED, read, mover.pid) as held:
            assert not held
    assert mover.wait(10) == 0
