"""A Redis on a host, for the head to keep its state in: with a password, on the loopback of that host only."""

import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.cluster.hosts import Host

PORT = 6380
START_S = 20.0
_PATH = {"PATH": "/usr/local/bin:/usr/bin:/bin"}


@dataclass(frozen=True)
class Redis:
    """Where it is, and the word that it wants."""

    address: str
    password: str = field(repr=False)


def missing() -> str:
    """Why there can be none here; empty when there can."""
    return "" if shutil.which("redis-server") else "there is no redis-server (Debian's package redis-server)"


@contextmanager
def redis_on(host: Host) -> Iterator[Redis]:
    """A Redis that writes down each change before it answers, so that its own restart loses nothing either."""
    redis = Redis(f"127.0.0.1:{PORT}", secrets.token_hex(16))
    directory = host.directory / "redis"
    directory.mkdir(mode=0o700)
    settings = directory / "redis.conf"
    settings.touch(mode=0o600)
    settings.write_text(
        f"bind 127.0.0.1\nport {PORT}\nrequirepass {redis.password}\ndir {directory}\n"
        'appendonly yes\nappendfsync always\nsave ""\n'
    )
    output = host.directory / "redis.out"
    running = host.start("redis-server", str(settings), environment=_PATH, output=output, cwd=directory)
    try:
        give_up_at = time.monotonic() + START_S
        while "Ready to accept connections" not in (said := output.read_text(errors="replace")):
            assert not running.ended, said
            assert time.monotonic() < give_up_at, said
            time.sleep(0.05)
        yield redis
    finally:
        running.end()
