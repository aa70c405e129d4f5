"""Opening the database, its transactions, and bringing its tables up to date."""

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import alembic.command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, Engine, create_engine, event, inspect, make_url, select, text

from ci_bot.store.tables import experiment, lease

WORKER_LEASE = "worker"
"""The lease under which the worker writes."""

BUSY_TIMEOUT_S = 30.0
WAL_PAUSE_S = 0.02
MIGRATIONS = Path(__file__).parent / "migrations"
_EPOCH = select(lease.c.epoch).where(lease.c.name == WORKER_LEASE).with_for_update()
_MIGRATION_LOCK = 0x44455343454E54  # any number that is ours: PostgreSQL's advisory locks have no names


class LeaseLost(Exception):
    """Another worker has taken over; this one must not write any more."""


class UnknownRevision(Exception):
    """The database was written by a newer version of Descent."""


def open_engine(url: str) -> Engine:
    """An engine whose COMMIT means "on the disk".

    Args:
        url: `sqlite:////absolute/path` or `postgresql://user@host/name`.

    Raises:
        ValueError: another database, or SQLite without a file.
    """
    parsed = make_url(url)
    if parsed.drivername in ("postgresql", "postgres", "postgresql+psycopg"):
        # pre_ping: a server that was restarted costs a round trip, not a refused delivery.
        # And one that has vanished without a word is noticed within half a minute, not when TCP gives up.
        return create_engine(
            parsed.set(drivername="postgresql+psycopg"),
            pool_pre_ping=True,
            max_overflow=32,
            connect_args={"tcp_user_timeout": 30_000, "keepalives_idle": 10, "keepalives_interval": 5},
        )
    if parsed.drivername not in ("sqlite", "sqlite+pysqlite") or parsed.database in (None, "", ":memory:"):
        shown = parsed.render_as_string(hide_password=True)
        raise ValueError(f"DATABASE_URL must be sqlite:////path/to/file or postgresql://…, got {shown}")
    return _open_sqlite(parsed)


def is_there(url: str) -> bool:
    """Whether the database exists and has been migrated; it is not created by being asked for."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite" and not Path(str(parsed.database)).is_file():
        return False
    engine = open_engine(url)
    try:
        with reading(engine) as connection:
            return inspect(connection).has_table(experiment.name)
    finally:
        engine.dispose()


def _open_sqlite(url: URL) -> Engine:
    # Bodies of private repositories are in it; SQLite gives its -wal and -shm files the same mode.
    os.close(os.open(str(url.database), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    engine = create_engine(url, connect_args={"timeout": BUSY_TIMEOUT_S}, max_overflow=32)
    event.listen(engine, "connect", _on_sqlite_connect)
    event.listen(engine, "begin", _on_sqlite_begin)
    return engine


def _on_sqlite_connect(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # sqlite3 must not begin or commit transactions by itself
    _enter_wal(connection)
    for pragma in (
        "synchronous = FULL",  # NORMAL may lose the last acknowledged deliveries on power loss
        "foreign_keys = ON",
        "journal_size_limit = 67108864",
    ):
        connection.execute(f"PRAGMA {pragma}").close()


def _enter_wal(connection: Any) -> None:
    """Switch to write-ahead logging, once for the life of the file.

    SQLite does not wait for its busy timeout here: several processes that open a new file at once may be refused.
    """
    give_up_at = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL").close()
            return
        except sqlite3.OperationalError:
            if time.monotonic() > give_up_at:
                raise
            time.sleep(WAL_PAUSE_S)


def _on_sqlite_begin(connection: Connection) -> None:
    # A transaction that reads first and writes later can't wait for the lock; so a writer takes it at once.
    immediate = connection.get_execution_options().get("immediate", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")


@contextmanager
def begin(engine: Engine, epoch: int | None = None) -> Iterator[Connection]:
    """A write transaction, committed at the end and rolled back by an exception.

    Args:
        engine: the database.
        epoch: of the worker's lease. The transaction then excludes every other one with an epoch and every change of
            the lease, so that no write of a former worker can follow a takeover.

    Raises:
        LeaseLost: the lease has another epoch by now; nothing was written.
    """
    with engine.connect().execution_options(immediate=True) as connection, connection.begin():
        if epoch is not None:
            found = connection.scalar(_EPOCH)
            if found != epoch:
                raise LeaseLost(f"the lease {WORKER_LEASE!r} has epoch {found}, this worker's was {epoch}")
        yield connection


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """A transaction that only reads; it never waits for a writer."""
    with engine.connect() as connection:
        yield connection


def migrate(engine: Engine) -> None:
    """Bring the tables up to date; several processes may do so at once.

    Raises:
        UnknownRevision: the database is newer than this code.
    """
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    with begin(engine) as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
        _refuse_unknown_revision(connection, config)
        config.attributes["connection"] = connection
        alembic.command.upgrade(config, "head")


def _refuse_unknown_revision(connection: Connection, config: Config) -> None:
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    for revision in MigrationContext.configure(connection).get_current_heads():
        if revision not in known:
            raise UnknownRevision(
                f"The database has revision {revision}, this version of Descent knows up to {max(known)}: "
                "run the newer version, or restore the database's backup."
            )
