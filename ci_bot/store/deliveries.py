"""Webhook deliveries as the worker sees them: received, and later processed; two different facts."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from sqlalchemy import Connection, CursorResult, RowMapping, bindparam, delete, func, select, update

from ci_bot.store.tables import delivery

KEEP_S = 30 * 86400.0
"""How long a processed delivery is remembered; GitHub redelivers for 3 days, GitHub Enterprise Server for 7."""

READ_BYTES = 8 * 2**20
"""What is read at once, unless one body alone is larger; it may have 25 MB."""
PATIENT_TRIES = 6
"""A delivery that was put off as often as this does not hold up its lane any more."""

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


_WAITS = delivery.c.processed_at.is_(None)


def unsorted(connection: Connection, now: float, limit: int = 100) -> list[Delivery]:
    """Deliveries that are in no lane yet, in the order of their arrival; no more at once than memory bears."""
    fresh = (_WAITS, delivery.c.lane.is_(None), delivery.c.next_try_at <= now)
    sizes = select(delivery.c.seq, func.length(delivery.c.body)).where(*fresh).order_by(delivery.c.seq).limit(limit)
    last, total_bytes = 0, 0
    for seq, size_bytes in connection.execute(sizes).all():
        total_bytes += size_bytes
        if last and total_bytes > READ_BYTES:
            break
        last = seq
    rows = select(delivery).where(*fresh, delivery.c.seq <= last).order_by(delivery.c.seq)
    return [_delivery(row) for row in connection.execute(rows).mappings()]


def sort(connection: Connection, lanes: Mapping[int, int]) -> None:
    """Put deliveries into lanes: of each `seq` the number."""
    change = update(delivery).where(delivery.c.seq == bindparam("of")).values(lane=bindparam("into"))
    connection.execute(change, [{"of": seq, "into": lane} for seq, lane in lanes.items()])


def lanes(connection: Connection, now: float) -> list[int]:
    """The lanes in which something is to be done now; first the one whose first delivery arrived first."""
    due = select(delivery.c.lane).where(_WAITS, delivery.c.lane.is_not(None), delivery.c.next_try_at <= now)
    return list(connection.scalars(due.group_by(delivery.c.lane).order_by(func.min(delivery.c.seq))))


def next_in(connection: Connection, lane: int, now: float) -> Delivery | None:
    """The delivery to process now in a lane: the first, and after all others those tried so often already."""
    due = select(delivery.c.seq).where(_WAITS, delivery.c.lane == lane, delivery.c.next_try_at <= now).limit(1)
    first = due.where(delivery.c.tries < PATIENT_TRIES).order_by(delivery.c.seq)
    seq = connection.scalar(first)
    if seq is None:
        seq = connection.scalar(due.order_by(delivery.c.next_try_at, delivery.c.seq))
    if seq is None:
        return None
    return _delivery(connection.execute(select(delivery).where(delivery.c.seq == seq)).mappings().one())


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
