"""The database: opened, brought up to date, written to; and who works on it."""

import socket
import time

from ci_bot.doctor import judge
from ci_bot.doctor.findings import Finding, ok
from ci_bot.settings import Settings
from ci_bot.store import lease, marks
from ci_bot.store.engine import WORKER_LEASE, begin, migrate, open_engine, reading


class _TakenBack(Exception):
    """The written row is not to stay."""


def database(settings: Settings) -> list[Finding]:
    """The database takes a row; who holds the worker's lease."""
    engine = open_engine(settings.store_url)
    try:
        migrate(engine)
        try:
            with begin(engine) as connection:
                marks.put(connection, "doctor", "was here")
                raise _TakenBack
        except _TakenBack:
            where = engine.url.render_as_string(hide_password=True)
            found = [ok("database", f"{where} is up to date and can be written to")]
        with reading(engine) as connection:
            holder, expires_at = lease.holder(connection, WORKER_LEASE)
    finally:
        engine.dispose()
    return [*found, judge.lease(holder, expires_at, time.time(), socket.gethostname())]
