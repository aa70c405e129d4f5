"""A store with all tables, copied for each test: quicker than migrating."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ci_bot.store import lease
from ci_bot.store.engine import WORKER_LEASE, migrate, open_engine
from ci_bot.worker.books import Books


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "descent.db"
    engine = open_engine(f"sqlite:///{path}")
    migrate(engine)
    epoch = lease.acquire(engine, WORKER_LEASE, "test", time.time(), 3600)
    assert epoch == 1
    engine.dispose()
    return path


@pytest.fixture
def books(template: Path, tmp_path: Path) -> Iterator[Books]:
    """The worker's books under its lease, which nobody renews."""
    shutil.copy(template, tmp_path / "descent.db")
    engine = open_engine(f"sqlite:///{tmp_path}/descent.db")
    books = Books(engine, "test")
    books.epoch = 1
    yield books
    engine.dispose()
