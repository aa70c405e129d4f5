"""Hosts that were not proven clean: they get no admissions until their agent proves it."""

from dataclasses import dataclass

from sqlalchemy import Connection, delete, select

from ci_bot.store.deliveries import changed
from ci_bot.store.tables import insert
from ci_bot.store.tables import quarantine as table


@dataclass(frozen=True)
class Quarantined:
    """A host and what was left on it."""

    host: str
    why: str
    since: float


_HOSTS = select(table).order_by(table.c.since)


def add(connection: Connection, host: Quarantined) -> None:
    """Admit nothing to a host; the first reason stays."""
    statement = insert(connection, table).values(host=host.host, why=host.why, since=host.since)
    connection.execute(statement.on_conflict_do_nothing())


def remove(connection: Connection, host: str) -> bool:
    """It is proven clean; False if it was not in quarantine."""
    return changed(connection, delete(table).where(table.c.host == host)) == 1


def hosts(connection: Connection) -> list[Quarantined]:
    """Every host in quarantine, the longest first."""
    return [Quarantined(**row) for row in connection.execute(_HOSTS).mappings()]
