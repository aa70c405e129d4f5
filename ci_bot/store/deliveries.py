"""Webhook deliveries as the worker sees them: received, and later processed; two different facts."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

from sqlalchemy import Connection, CursorResult, RowMapping, delete, func, select, update

from ci_bot.store.tables import delivery

KEEP_S = 30 * 86400.0
"""How long a processed delivery is remembered; GitHub redelivers for 3 days, GitHub Enterprise Server for 7."""

_QUERY_SIZE = 500  # host parameters of one query; SQLite may have been built with room for 999


@dataclass(frozen=True)
class Delivery:
    """One webhook HTTP request, as it was received."""

    seq: int
    guid: str
    event: str
    body: bytes
    received_at: float
    source: str  # webhook | recovered
    tries: int = 0
    """How often its processing was put off."""
    outcome: str | None = None


def pending(connection: Connection, now: float, limit: int = 100) -> list[Delivery]:
    """Deliveries to process now, in the order of their arrival."""
    rows = (
        select(delivery)
        .where(delivery.c.processed_at.is_(None), delivery.c.next_try_at <= now)
        .order_by(delivery.c.seq)
        .limit(limit)
    )
    return [_delivery(row) for row in connection.execute(rows).mappings()]


def processed(connection: Connection, seq: int, outcome: str, at: float) -> bool:
    """Say that it was acted on; False if it had been already, and then the caller's transaction must not act again."""
    change = (
        update(delivery)
        .where(delivery.c.seq == seq, delivery.c.processed_at.is_(None))
        .values(processed_at=at, outcome=outcome)
    )
    return changed(connection, change) == 1


def postpone(connection: Connection, seq: int, next_try_at: float, why: str) -> None:
    """Try it again later."""
    connection.execute(
        update(delivery)
        .where(delivery.c.seq == seq, delivery.c.processed_at.is_(None))
        .values(next_try_at=next_try_at, outcome=why, tries=delivery.c.tries + 1)
    )


def known(connection: Connection, guids: Iterable[str]) -> set[str]:
    """Those of the GUIDs that were received, processed or not."""
    wanted = sorted(set(guids))
    found: set[str] = set()
    for start in range(0, len(wanted), _QUERY_SIZE):
        some = wanted[start : start + _QUERY_SIZE]
        found.update(connection.scalars(select(delivery.c.guid).where(delivery.c.guid.in_(some))))
    return found


def backlog(connection: Connection) -> tuple[int, float | None]:
    """How many deliveries wait to be processed, and when the oldest of them arrived."""
    row = connection.execute(
        select(func.count(), func.min(delivery.c.received_at)).where(delivery.c.processed_at.is_(None))
    ).one()
    return row[0], row[1]


def prune(connection: Connection, older_than: float) -> int:
    """Forget what was received before and is processed; gives how many."""
    return changed(
        connection,
        delete(delivery).where(delivery.c.received_at < older_than, delivery.c.processed_at.is_not(None)),
    )


def changed(connection: Connection, statement: Any) -> int:
    """How many rows an UPDATE or DELETE touched."""
    return cast("CursorResult[Any]", connection.execute(statement)).rowcount


def _delivery(row: RowMapping) -> Delivery:
    return Delivery(
        seq=row["seq"],
        guid=row["guid"],
        event=row["event"],
        body=bytes(row["body"]),
        received_at=row["received_at"],
        source=row["source"],
        tries=row["tries"],
        outcome=row["outcome"],
    )
