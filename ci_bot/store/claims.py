"""Claims: what wants an experiment, and which experiments nothing wants any more."""

from sqlalchemy import Connection, select, update

from ci_bot.records import Claim, ClaimKind
from ci_bot.store.tables import claim, experiment, insert
from launcher.state import TERMINAL


def add(connection: Connection, experiment_id: int, wanted: Claim, at: float) -> None:
    """Claim an experiment; a claim that had ended is open again (a pull request that is reopened)."""
    row = {
        "experiment_id": experiment_id,
        "kind": wanted.kind,
        "key": wanted.key,
        "lasting": wanted.lasting,
        "made_at": at,
    }
    statement = insert(connection, claim).values(row)
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["experiment_id", "kind", "key"],
            set_={"lasting": wanted.lasting, "made_at": at, "ended_at": None, "ended_why": None},
            where=claim.c.ended_at.is_not(None),
        )
    )


def end(
    connection: Connection,
    *,
    repository_id: int,
    kind: ClaimKind,
    key: str,
    why: str,
    at: float,
    except_sha: str | None = None,
    only_sha: str | None = None,
) -> list[int]:
    """End the claims of that kind and key, lasting ones apart.

    Args:
        connection: the transaction.
        repository_id: whose claims.
        kind: of what.
        key: which ref, pull request…
        why: for the reader: "superseded by a1b2c3d".
        at: now.
        except_sha: the head that is still wanted.
        only_sha: end only the claims on experiments of this commit.

    Returns:
        Unfinished experiments whose last open claim ended by this; the caller's transaction wishes them cancelled.
    """
    ending = (
        select(claim.c.id, claim.c.experiment_id)
        .join(experiment, experiment.c.id == claim.c.experiment_id)
        .where(
            experiment.c.repository_id == repository_id,
            claim.c.kind == kind,
            claim.c.key == key,
            claim.c.ended_at.is_(None),
            claim.c.lasting.is_(False),
        )
        .order_by(experiment.c.id)
        # Two transactions that each end one of the last two claims must not both see the other one's as open.
        .with_for_update(of=experiment)
    )
    if except_sha is not None:
        ending = ending.where(experiment.c.head_sha != except_sha)
    if only_sha is not None:
        ending = ending.where(experiment.c.head_sha == only_sha)
    found = connection.execute(ending).all()
    connection.execute(
        update(claim)
        .where(claim.c.id.in_([row.id for row in found]), claim.c.ended_at.is_(None))
        .values(ended_at=at, ended_why=why)
    )
    return _unwanted(connection, [row.experiment_id for row in found])


def open_for(connection: Connection, repository_id: int, kind: ClaimKind, key: str) -> list[tuple[int, str]]:
    """Experiment id and head SHA of every open claim of that kind and key, lasting ones too."""
    rows = (
        select(experiment.c.id, experiment.c.head_sha)
        .join(claim, claim.c.experiment_id == experiment.c.id)
        .where(
            experiment.c.repository_id == repository_id,
            claim.c.kind == kind,
            claim.c.key == key,
            claim.c.ended_at.is_(None),
        )
        .order_by(experiment.c.id)
    )
    return [(row.id, row.head_sha) for row in connection.execute(rows)]


def of_experiment(connection: Connection, experiment_id: int) -> list[Claim]:
    """Its open claims, the oldest first."""
    rows = (
        select(claim)
        .where(claim.c.experiment_id == experiment_id, claim.c.ended_at.is_(None))
        .order_by(claim.c.made_at, claim.c.id)
    )
    return [Claim(ClaimKind(row.kind), row.key, row.lasting) for row in connection.execute(rows)]


def _unwanted(connection: Connection, experiment_ids: list[int]) -> list[int]:
    still_open = select(1).where(claim.c.experiment_id == experiment.c.id, claim.c.ended_at.is_(None))
    rows = (
        select(experiment.c.id)
        .where(experiment.c.id.in_(experiment_ids), experiment.c.state.not_in(TERMINAL), ~still_open.exists())
        .order_by(experiment.c.id)
    )
    return list(connection.scalars(rows))
