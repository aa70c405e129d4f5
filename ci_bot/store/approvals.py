"""Approvals: a person with write permission let one commit of a fork run."""

from dataclasses import dataclass

from sqlalchemy import Connection, select

from ci_bot.store.tables import approval as table
from ci_bot.store.tables import insert


@dataclass(frozen=True)
class Approval:
    """Bound to the exact commit; the next push needs another one."""

    repository_id: int
    head_sha: str
    approver: str
    at: float


def approve(connection: Connection, given: Approval) -> bool:
    """Store an approval; False if the commit had one."""
    statement = insert(connection, table).values(
        repository_id=given.repository_id, head_sha=given.head_sha, approver=given.approver, at=given.at
    )
    return connection.execute(statement.on_conflict_do_nothing().returning(table.c.at)).scalar() is not None


def approval(connection: Connection, repository_id: int, head_sha: str) -> Approval | None:
    """Who approved that commit, if anybody did."""
    rows = select(table).where(table.c.repository_id == repository_id, table.c.head_sha == head_sha)
    row = connection.execute(rows).mappings().one_or_none()
    return None if row is None else Approval(**row)
