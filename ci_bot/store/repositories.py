"""The repositories on which the App is installed."""

from collections.abc import Collection

from sqlalchemy import Connection, RowMapping, bindparam, select, update

from ci_bot.records import Repository
from ci_bot.store.tables import insert, repository

_KNOWN = select(repository).where(repository.c.id.in_(bindparam("of", expanding=True)))
_INSTALLATIONS = select(repository.c.id, repository.c.installation_id)


def remember(connection: Connection, known: Repository) -> None:
    """Store what a webhook or the API said last; a removed repository is back."""
    values = {
        "installation_id": known.installation_id,
        "full_name": known.full_name,
        "default_branch": known.default_branch,
        "private": known.private,
        "removed_at": None,
    }
    statement = insert(connection, repository).values(id=known.id, **values)
    connection.execute(statement.on_conflict_do_update(index_elements=["id"], set_=values))


def get(connection: Connection, repository_id: int) -> Repository | None:
    """One repository, unless it is unknown or removed."""
    rows = select(repository).where(repository.c.id == repository_id, repository.c.removed_at.is_(None))
    row = connection.execute(rows).mappings().one_or_none()
    return None if row is None else _repository(row)


def known(connection: Connection, repository_ids: Collection[int]) -> dict[int, Repository]:
    """Those of them that were ever seen, removed or not, as they were last seen; by id."""
    rows = connection.execute(_KNOWN, {"of": sorted(repository_ids)}).mappings()
    return {row["id"]: _repository(row) for row in rows}


def installations(connection: Connection) -> dict[int, int]:
    """The installation of each repository that was ever seen, by the repository's id."""
    return {row.id: row.installation_id for row in connection.execute(_INSTALLATIONS)}


def present(connection: Connection) -> list[Repository]:
    """All that are not removed, by name."""
    rows = select(repository).where(repository.c.removed_at.is_(None)).order_by(repository.c.full_name)
    return [_repository(row) for row in connection.execute(rows).mappings()]


def by_installation(connection: Connection, installation_id: int) -> list[Repository]:
    """Those of an installation that are not removed, by name."""
    return [one for one in present(connection) if one.installation_id == installation_id]


def removed(connection: Connection, repository_id: int, at: float) -> None:
    """The App can't reach it any more."""
    gone = (repository.c.id == repository_id) & repository.c.removed_at.is_(None)
    connection.execute(update(repository).where(gone).values(removed_at=at))


def _repository(row: RowMapping) -> Repository:
    return Repository(
        id=row["id"],
        installation_id=row["installation_id"],
        full_name=row["full_name"],
        default_branch=row["default_branch"],
        private=row["private"],
    )
