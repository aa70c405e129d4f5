"""Every test of the store runs on SQLite and on PostgreSQL."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from ci_bot.store import begin, migrate, open_engine
from ci_bot.store.tables import metadata
from tests.postgresql import Server, postgresql_server

__all__ = ["postgresql_server"]


@pytest.fixture(params=["sqlite", "postgresql"])
def dialect(request: pytest.FixtureRequest) -> str:
    """Which database the test is about."""
    name: str = request.param
    return name


@pytest.fixture
def empty_url(dialect: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a database without any table."""
    if dialect == "sqlite":
        yield f"sqlite:///{tmp_path}/empty.db"
        return
    server: Server = request.getfixturevalue("postgresql_server")
    url = server.create()
    yield url
    server.drop(url)


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with all tables, to be copied: quicker than migrating for each test."""
    path = tmp_path_factory.mktemp("template") / "descent.db"
    _make_tables(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def postgresql_engine(postgresql_server: Server) -> Iterator[Engine]:
    """An engine on a database with all tables; making either takes a third of a second, so tests share them."""
    url = postgresql_server.create()
    _make_tables(url)
    engine = open_engine(url)
    yield engine
    engine.dispose()


@pytest.fixture
def engine(dialect: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    """An engine on a database with all tables and no row in them."""
    if dialect == "sqlite":
        shutil.copy(request.getfixturevalue("sqlite_template"), tmp_path / "descent.db")
        engine = open_engine(f"sqlite:///{tmp_path}/descent.db")
        yield engine
        engine.dispose()
        return
    engine = request.getfixturevalue("postgresql_engine")
    with begin(engine) as connection:
        connection.execute(text(f"TRUNCATE {', '.join(metadata.tables)} RESTART IDENTITY CASCADE"))
    yield engine


def _make_tables(url: str) -> None:
    engine = open_engine(url)
    migrate(engine)
    engine.dispose()
