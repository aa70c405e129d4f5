"""The database opens durable, migrates once however many do it, and its transactions exclude each other."""

import stat
import threading
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Engine, inspect, text

from ci_bot.store import LeaseLost, UnknownRevision, begin, lease, marks, migrate, open_engine, reading
from ci_bot.store.engine import WORKER_LEASE
from ci_bot.store.tables import metadata


def test_migrations_make_exactly_the_tables_of_the_code(engine: Engine) -> None:
    with engine.connect() as connection:
        # Alembic takes SQLite's empty default for a missing one; PostgreSQL's comparison covers the defaults.
        defaults = engine.dialect.name == "postgresql"
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "compare_server_default": defaults}
        )
        assert compare_metadata(context, metadata) == []


def test_partial_indexes_are_those_of_the_code(engine: Engine) -> None:
    wanted = {
        index.name
        for table in metadata.tables.values()
        for index in table.indexes
        if index.dialect_options["sqlite"]["where"] is not None
    }
    found = {
        index["name"]
        for table in metadata.tables
        for index in inspect(engine).get_indexes(table)
        if index.get("dialect_options", {}).get(f"{engine.dialect.name}_where") is not None
    }
    assert found == wanted != set()


def test_several_processes_may_migrate_at_once(empty_url: str) -> None:
    failures: list[BaseException] = []

    def start() -> None:
        engine = open_engine(empty_url)
        try:
            migrate(engine)
        except BaseException as error:
            failures.append(error)
        finally:
            engine.dispose()

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_a_database_of_a_newer_version_is_refused_with_the_next_step(empty_url: str) -> None:
    engine = open_engine(empty_url)
    migrate(engine)
    with begin(engine) as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(UnknownRevision, match=r"revision 9999.*run the newer version"):
        migrate(engine)
    engine.dispose()


def test_an_exception_undoes_the_transaction(engine: Engine) -> None:
    def crash() -> None:
        with begin(engine) as connection:
            marks.put(connection, "swept", "1")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        crash()
    with reading(engine) as connection:
        assert marks.get(connection, "swept") is None


def test_two_writers_wait_for_each_other_and_lose_nothing(engine: Engine) -> None:
    with begin(engine) as connection:
        marks.put(connection, "count", "0")
    epoch = lease.acquire(engine, WORKER_LEASE, "one", now=0.0, ttl_s=60.0)

    def add_up() -> None:
        for _ in range(25):
            with begin(engine, epoch) as connection:
                marks.put(connection, "count", str(int(marks.get(connection, "count") or "") + 1))

    threads = [threading.Thread(target=add_up) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with reading(engine) as connection:
        assert marks.get(connection, "count") == "75"


def test_readers_do_not_wait_for_a_writer_and_see_nothing_half_done(engine: Engine) -> None:
    with begin(engine) as writer:
        marks.put(writer, "swept", "1")
        with reading(engine) as reader:
            assert marks.get(reader, "swept") is None


def test_a_writer_whose_lease_was_taken_over_writes_nothing(engine: Engine) -> None:
    old = lease.acquire(engine, WORKER_LEASE, "old", now=0.0, ttl_s=10.0)
    new = lease.acquire(engine, WORKER_LEASE, "new", now=11.0, ttl_s=10.0)
    with pytest.raises(LeaseLost, match="epoch 2, this worker's was 1"), begin(engine, old) as connection:
        marks.put(connection, "swept", "by the old one")
    with begin(engine, new) as connection:
        assert marks.get(connection, "swept") is None


def test_a_takeover_waits_for_the_transaction_in_progress(engine: Engine) -> None:
    epoch = lease.acquire(engine, WORKER_LEASE, "old", now=0.0, ttl_s=10.0)
    order: list[str] = []

    def take_over() -> None:
        lease.acquire(engine, WORKER_LEASE, "new", now=11.0, ttl_s=10.0)
        order.append("taken over")

    taker = threading.Thread(target=take_over)
    with begin(engine, epoch) as connection:
        taker.start()
        taker.join(timeout=0.3)  # what must not happen can only be waited for
        marks.put(connection, "swept", "1")
        order.append("written")
    taker.join()
    assert order == ["written", "taken over"]


def test_a_writer_without_any_lease_row_writes_nothing(engine: Engine) -> None:
    with pytest.raises(LeaseLost, match="epoch None"), begin(engine, 1):
        pytest.fail("the transaction began")


def test_sqlite_is_durable_and_private(tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path}/descent.db")
    migrate(engine)
    with reading(engine) as connection:
        pragmas = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
        assert pragmas == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 30000}
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
        assert set(modes.values()) == {0o600}, modes
    engine.dispose()


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "mysql://root:hunter2@host/db"])
def test_other_databases_are_refused_without_showing_the_password(url: str) -> None:
    with pytest.raises(ValueError, match="must be sqlite:////path/to/file or postgresql") as refused:
        open_engine(url)
    assert "hunter2" not in str(refused.value)
