"""Check runs: what should be on GitHub, and what GitHub last acknowledged."""

import hashlib
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import ColumnElement, Connection, RowMapping, Select, bindparam, case, exists, func, select, update

from ci_bot.records import CheckRun
from ci_bot.store.tables import check_run, repository, undelivered

NAMED = ("repository_id", "head_sha", "name")
"""What its generations have in common."""
# What is asked for each change is put together once: that takes longer than the database does.
_ONE = select(check_run).where(check_run.c.id == bindparam("of"))
_CHANGE = update(check_run).where(check_run.c.id == bindparam("of"))
_MAKE = check_run.insert().returning(check_run.c.id)
_LAST = select(check_run).order_by(check_run.c.generation.desc()).limit(1)
_OF_REPOSITORY = _LAST.where(check_run.c.repository_id == bindparam("repository"))
_NEWEST = _OF_REPOSITORY.where(check_run.c.head_sha == bindparam("sha"), check_run.c.name == bindparam("named"))
_OWN = _NEWEST.where(check_run.c.experiment_id == bindparam("experiment"))
_BY_GITHUB_ID = _OF_REPOSITORY.where(check_run.c.github_id == bindparam("github"))


@dataclass(frozen=True)
class CheckRunRow:
    """One check run of one generation; a completed one can't be reopened, so a re-run is the next generation."""

    id: int
    repository_id: int
    head_sha: str
    name: str
    generation: int
    experiment_id: int | None
    experiment_version: int
    wanted: CheckRun
    wanted_digest: str
    completed: bool
    """What is wanted is completed."""
    acknowledged_digest: str
    """Of what GitHub is known to show; empty before the first answer."""
    acknowledged_at: float | None
    github_id: int | None
    annotations_sent: int
    tries: int
    """Failed ones since the last answer."""
    next_try_at: float
    undeliverable: str | None


def digest(wanted: CheckRun) -> str:
    """What names a check run's contents."""
    return hashlib.sha256(wanted.model_dump_json().encode()).hexdigest()


def want(
    connection: Connection,
    wanted: CheckRun,
    *,
    repository_id: int,
    experiment_id: int | None = None,
    experiment_version: int = 0,
) -> CheckRunRow:
    """Say what should be on GitHub.

    An experiment keeps its own check run. Another owner, or what would reopen a completed one, gets a new generation;
    only a check run that belongs to no experiment and is not completed is taken over.

    Args:
        connection: the transaction.
        wanted: the whole check run.
        repository_id: where.
        experiment_id: whose state it shows; None for `descent/config` and for experiments that do not start.
        experiment_version: of the experiment that was rendered.

    Returns:
        The row; it is due if GitHub does not show the same already.
    """
    values = {
        "experiment_id": experiment_id,
        "experiment_version": experiment_version,
        "wanted": wanted.model_dump_json(),
        "wanted_digest": digest(wanted),
        "completed": wanted.status == "completed",
    }
    row = _own(connection, wanted, repository_id, experiment_id)
    row = row or newest(connection, repository_id, wanted.head_sha, wanted.name)
    if row is not None and _continues(row, wanted, experiment_id):
        connection.execute(_CHANGE, {"of": row.id, **values})
        if values["completed"] and row.undeliverable is not None:  # the end is tried once more
            own = (check_run.c.id == row.id) & ~_passed_by()
            connection.execute(update(check_run).where(own).values(undeliverable=None))
        row_id = row.id
    else:
        last = row and newest(connection, repository_id, wanted.head_sha, wanted.name)
        values |= {"repository_id": repository_id, "head_sha": wanted.head_sha, "name": wanted.name}
        values["generation"] = 1 if last is None else last.generation + 1
        row_id = connection.execute(_MAKE, values).scalar_one()
    return _row(connection.execute(_ONE, {"of": row_id}).mappings().one())


def _continues(row: CheckRunRow, wanted: CheckRun, experiment_id: int | None) -> bool:
    if row.experiment_id is not None and row.experiment_id != experiment_id:
        return False
    if row.experiment_id is None and experiment_id is not None:
        return not row.completed
    return not row.completed or wanted.status == "completed"


def due(connection: Connection, now: float, each: int = 32) -> list[CheckRunRow]:
    """Check runs to write now: of each installation up to `each`, those that have waited longest first.

    First words and ends go before what passes. None goes while an older one of its name at its commit is to be
    written: GitHub shows the one that was made last.
    """
    return [_row(row) for row in connection.execute(_due(), {"now": now, "each": each}).mappings()]


@cache
def _due() -> Select[Any]:
    passing = case((check_run.c.completed | check_run.c.acknowledged_at.is_(None), 0), else_=1)
    order = (passing, check_run.c.next_try_at, check_run.c.id)
    place = func.row_number().over(partition_by=repository.c.installation_id, order_by=order)
    waiting = (
        select(check_run.c.id, place.label("place"))
        .outerjoin(repository, repository.c.id == check_run.c.repository_id)
        .where(undelivered, check_run.c.next_try_at <= bindparam("now"), ~_follows_undelivered())
        .subquery()
    )
    return (
        select(check_run)
        .join(waiting, waiting.c.id == check_run.c.id)
        .where(waiting.c.place <= bindparam("each"))
        .order_by(waiting.c.place, check_run.c.next_try_at, check_run.c.id)
    )


def acknowledged(
    connection: Connection, row_id: int, *, digest: str, github_id: int, annotations_sent: int, at: float
) -> None:
    """Remember GitHub's answer.

    Args:
        connection: the transaction.
        row_id: which row.
        digest: of what was sent; the row's former one while annotations are still to follow.
        github_id: the check run's id on GitHub.
        annotations_sent: how many GitHub has; it appends them, so none may be sent twice.
        at: now.
    """
    values = {"acknowledged_digest": digest, "acknowledged_at": at, "github_id": github_id}
    values |= {"annotations_sent": annotations_sent, "tries": 0, "next_try_at": 0.0}
    connection.execute(_CHANGE, {"of": row_id, **values})


def failed(connection: Connection, row_id: int, next_try_at: float) -> None:
    """It could not be written; try again then."""
    connection.execute(
        update(check_run).where(check_run.c.id == row_id).values(tries=check_run.c.tries + 1, next_try_at=next_try_at)
    )


def postponed(connection: Connection, row_id: int, next_try_at: float) -> None:
    """GitHub was not even asked, or said that it did nothing; not before then."""
    connection.execute(update(check_run).where(check_run.c.id == row_id).values(next_try_at=next_try_at))


def undeliverable(connection: Connection, row_id: int, why: str) -> None:
    """Its repository, commit or installation is gone; never try again."""
    connection.execute(update(check_run).where(check_run.c.id == row_id).values(undeliverable=why))


def revive(connection: Connection, repository_id: int) -> None:
    """The repository can be reached again: what GitHub does not have as it should be is due at once."""
    lacking = (check_run.c.repository_id == repository_id) & (
        check_run.c.wanted_digest != check_run.c.acknowledged_digest
    )
    # As after one failure: GitHub may have it all the same, and is asked for it first.
    values = {"undeliverable": None, "tries": 1, "next_try_at": 0.0}
    connection.execute(update(check_run).where(lacking, ~_passed_by()).values(values))


def last_id(connection: Connection) -> int:
    """The newest row's; 0 when there is none."""
    found: int = connection.execute(select(func.coalesce(func.max(check_run.c.id), 0))).scalar_one()
    return found


def get(connection: Connection, row_id: int) -> CheckRunRow | None:
    """One row, if it exists."""
    row = connection.execute(_ONE, {"of": row_id}).mappings().one_or_none()
    return None if row is None else _row(row)


def newest(connection: Connection, repository_id: int, head_sha: str, name: str) -> CheckRunRow | None:
    """The newest generation of that name at that commit."""
    return _maybe(connection, _NEWEST, repository=repository_id, sha=head_sha, named=name)


def at_commit(connection: Connection, repository_id: int, head_sha: str) -> list[CheckRunRow]:
    """The newest generation of each name at that commit, by name."""
    rows = (
        select(check_run)
        .where(check_run.c.repository_id == repository_id, check_run.c.head_sha == head_sha)
        .order_by(check_run.c.generation)
    )
    by_name = {row["name"]: row for row in connection.execute(rows).mappings()}
    return [_row(by_name[name]) for name in sorted(by_name)]


def of_experiment(connection: Connection, experiment_id: int) -> list[CheckRunRow]:
    """The check runs that show an experiment."""
    rows = select(check_run).where(check_run.c.experiment_id == experiment_id).order_by(check_run.c.id)
    return [_row(row) for row in connection.execute(rows).mappings()]


def find_by_github_id(connection: Connection, repository_id: int, github_id: int) -> CheckRunRow | None:
    """The one that GitHub knows by that id."""
    return _maybe(connection, _BY_GITHUB_ID, repository=repository_id, github=github_id)


def _follows_undelivered() -> ColumnElement[bool]:
    """An older check run of the same name at the same commit is still to be written."""
    older = check_run.alias()
    return exists().where(
        *(older.c[key] == check_run.c[key] for key in NAMED),
        older.c.generation < check_run.c.generation,
        older.c.wanted_digest != older.c.acknowledged_digest,
        older.c.undeliverable.is_(None),
    )


def _passed_by() -> ColumnElement[bool]:
    """It was given up before GitHub had it, and made now it would hide a newer one of its name at its commit."""
    newer = check_run.alias()
    later = exists().where(
        *(newer.c[key] == check_run.c[key] for key in NAMED), newer.c.generation > check_run.c.generation
    )
    return check_run.c.undeliverable.is_not(None) & check_run.c.github_id.is_(None) & later


def _own(connection: Connection, wanted: CheckRun, repository_id: int, experiment_id: int | None) -> CheckRunRow | None:
    if experiment_id is None:
        return None
    key = {"repository": repository_id, "sha": wanted.head_sha, "named": wanted.name}
    return _maybe(connection, _OWN, **key, experiment=experiment_id)


def _maybe(connection: Connection, rows: Select[Any], **of: Any) -> CheckRunRow | None:
    row = connection.execute(rows, of).mappings().one_or_none()
    return None if row is None else _row(row)


def _row(row: RowMapping) -> CheckRunRow:
    return CheckRunRow(**{**row, "wanted": CheckRun.model_validate_json(row["wanted"])})
