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
# What is asked for each delivery is put together once: that takes longer than the database does.
_FRESH = (_WAITS, delivery.c.lane.is_(None), delivery.c.next_try_at <= bindparam("now"))
_SIZES = (
    select(delivery.c.seq, func.length(delivery.c.body))
    .where(*_FRESH)
    .order_by(delivery.c.seq)
    .limit(bindparam("most"))
)
_UNSORTED = select(delivery).where(*_FRESH, delivery.c.seq <= bindparam("last")).order_by(delivery.c.seq)
_SORT = update(delivery).where(delivery.c.seq == bindparam("of")).values(lane=bindparam("into"))
_LANES = (
    select(delivery.c.lane)
    .where(_WAITS, delivery.c.lane.is_not(None), delivery.c.next_try_at <= bindparam("now"))
    .group_by(delivery.c.lane)
    .order_by(func.min(delivery.c.seq))
)
_DUE = (
    select(delivery.c.seq)
    .where(_WAITS, delivery.c.lane == bindparam("in"), delivery.c.next_try_at <= bindparam("now"))
    .limit(1)
)
_FIRST = _DUE.where(delivery.c.tries < PATIENT_TRIES).order_by(delivery.c.seq)
_PATIENT = _DUE.order_by(delivery.c.next_try_at, delivery.c.seq)
_ONE = select(delivery).where(delivery.c.seq == bindparam("of"))
_PROCESSED = update(delivery).where(delivery.c.seq == bindparam("of"), _WAITS)


def unsorted(connection: Connection, now: float, limit: int = 100) -> list[Delivery]:
    """Deliveries that are in no lane yet, in the order of their arrival; no more at once than memory bears."""
    last, total_bytes = 0, 0
    for seq, size_bytes in connection.execute(_SIZES, {"now": now, "most": limit}).all():
        total_bytes += size_bytes
        if last and total_bytes > READ_BYTES:
            break
        last = seq
    rows = connection.execute(_UNSORTED, {"now": now, "last": last}).mappings() if last else ()
    return [_delivery(row) for row in rows]


def sort(connection: Connection, lanes: Mapping[int, int]) -> None:
    """Put deliveries into lanes: of each `seq` the number."""
    connection.execute(_SORT, [{"of": seq, "into": lane} for seq, lane in lanes.items()])


def lanes(connection: Connection, now: float) -> list[int]:
    """The lanes in which something is to be done now; first the one whose first delivery arrived first."""
    return list(connection.scalars(_LANES, {"now": now}))


def next_in(connection: Connection, lane: int, now: float) -> Delivery | None:
    """The delivery to process now in a lane: the first, and after all others those tried so often already."""
    seq = None
    for due in (_FIRST, _PATIENT):
        if seq is None:
            seq = connection.scalar(due, {"in": lane, "now": now})
    if seq is None:
        return None
    return _delivery(connection.execute(_ONE, {"of": seq}).mappings().one())


def processed(connection: Connection, seq: int, outcome: str, at: float) -> bool:
    """Say that it was acted on; False if it had been already, and then the caller's transaction must not act again."""
    return changed(connection, _PROCESSED, {"of": seq, "processed_at": at, "outcome": outcome}) == 1


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


def changed(connection: Connection, statement: Any, values: Mapping[str, Any] | None = None) -> int:
    """How many rows an UPDATE or DELETE touched."""
    return cast("CursorResult[Any]", connection.execute(statement, values)).rowcount


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
