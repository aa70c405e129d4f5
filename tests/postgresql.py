"""A private PostgreSQL server for tests: loopback and a UNIX socket, its files in a directory of its own."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

SUPERUSER = "descent"


def binaries() -> Path | None:
    """Where the newest installed PostgreSQL server has its programs."""
    versions = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    newest = max(versions, key=lambda initdb: float(initdb.parts[-3]), default=None)
    found = newest or shutil.which("initdb")
    return Path(found).resolve().parent if found else None


class Server:
    """A running server."""

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port

    def url(self, database: str) -> str:
        """The address of a database, over TCP on loopback."""
        return f"postgresql://{SUPERUSER}@127.0.0.1:{self._port}/{database}"

    def create(self) -> str:
        """The URL of a new empty database."""
        name = f"test_{uuid4().hex}"
        self._run(f"CREATE DATABASE {name} TEMPLATE template0")
        return self.url(name)

    def drop(self, url: str) -> None:
        """Remove a database and end who is still connected to it."""
        self._run(f"DROP DATABASE {url.rpartition('/')[2]} WITH (FORCE)")

    def _run(self, statement: str) -> None:
        address = f"host={self._host} port={self._port} user={SUPERUSER} dbname=postgres"
        with psycopg.connect(address, autocommit=True) as connection:
            connection.execute(statement)


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[Server]:
    """The server of this test run; skips with the reason where PostgreSQL is not installed."""
    with serving() as server:
        yield server


@contextmanager
def serving() -> Iterator[Server]:
    """A server of one's own; skips with the reason where PostgreSQL is not installed."""
    programs = binaries()
    if programs is None:
        pytest.skip("needs PostgreSQL's server programs (Debian: apt-get install postgresql)")
    user = _unprivileged_user()
    # Not below pytest's own directory: that one is closed to other users, and the server refuses to run as root.
    root = Path(tempfile.mkdtemp(prefix="descent-postgresql-"))
    try:
        if user is not None:
            os.chown(root, user.pw_uid, user.pw_gid)
        with _running(programs, root, user) as server:
            yield server
    finally:
        shutil.rmtree(root)


@pytest.fixture
def postgresql_url(postgresql_server: Server) -> Iterator[str]:
    """The URL of an empty database, dropped after the test."""
    url = postgresql_server.create()
    yield url
    postgresql_server.drop(url)


def _unprivileged_user() -> pwd.struct_passwd | None:
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        pytest.skip("PostgreSQL refuses to run as root, and there is no user postgres")


class _running:  # noqa: N801 - reads as a function at the only place where it is used
    """Makes a cluster, starts it, and stops it."""

    def __init__(self, programs: Path, root: Path, user: pwd.struct_passwd | None) -> None:
        self._programs = programs
        self._root = root
        self._user = user

    def __enter__(self) -> Server:
        self._run("initdb", "--auth=trust", f"--username={SUPERUSER}", "--encoding=UTF8", "--locale=C", "--no-sync")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port: int = free.getsockname()[1]
        # fsync off: a crash of the *machine* is nothing that a test can bring about.
        options = f"-c listen_addresses=127.0.0.1 -c unix_socket_directories={self._root} -p {port} -c fsync=off"
        self._run("pg_ctl", "start", "--wait", f"--options={options}", f"--log={self._root}/server.log")
        return Server(str(self._root), port)

    def __exit__(self, *_exception: object) -> None:
        self._run("pg_ctl", "stop", "--wait", "--mode=immediate")

    def _run(self, program: str, *arguments: str) -> None:
        user = self._user
        subprocess.run(
            [self._programs / program, f"--pgdata={self._root}/cluster", *arguments],
            check=True,
            cwd=self._root,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            user=None if user is None else user.pw_uid,
            group=None if user is None else user.pw_gid,
            extra_groups=None if user is None else [],
        )
