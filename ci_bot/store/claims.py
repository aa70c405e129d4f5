"""Claims: what wants an experiment, and which experiments nothing wants any more."""

from sqlalchemy import Connection, bindparam, or_, select, update

from ci_bot.records import Claim, ClaimKind
from ci_bot.store.tables import Text, claim, experiment, insert
from launcher.state import TERMINAL

# What is asked for each push is put together once: that takes longer than the database does.
_OPEN = (
    claim.c.experiment_id == experiment.c.id,
    experiment.c.repository_id == bindparam("repository"),
    claim.c.kind == bindparam("kind"),
    claim.c.key == bindparam("key"),
    claim.c.ended_at.is_(None),
)
_EXCEPT_SHA, _ONLY_SHA = bindparam("except_sha", type_=Text), bindparam("only_sha", type_=Text)
_OPEN_FOR = select(experiment.c.id, experiment.c.head_sha).where(*_OPEN).order_by(experiment.c.id)
_ENDING = (
    select(claim.c.id, claim.c.experiment_id)
    .where(*_OPEN, claim.c.lasting.is_(False))
    .where(or_(_EXCEPT_SHA.is_(None), experiment.c.head_sha != _EXCEPT_SHA))
    .where(or_(_ONLY_SHA.is_(None), experiment.c.head_sha == _ONLY_SHA))
    .order_by(experiment.c.id)
    # Two transactions that each end one of the last two claims must not both see the other one's as open.
    .with_for_update(of=experiment)
)


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
    of = {"repository": repository_id, "kind": kind, "key": key, "except_sha": except_sha, "only_sha": only_sha}
    found = connection.execute(_ENDING, of).all()
    if not found:
        return []
    connection.execute(
        update(claim)
        .where(claim.c.id.in_([row.id for row in found]), claim.c.ended_at.is_(None))
        .values(ended_at=at, ended_why=why)
    )
    return _unwanted(connection, [row.experiment_id for row in found])


def open_for(connection: Connection, repository_id: int, kind: ClaimKind, key: str) -> list[tuple[int, str]]:
    """Experiment id and head SHA of every open claim of that kind and key, lasting ones too."""
    rows = connection.execute(_OPEN_FOR, {"repository": repository_id, "kind": kind, "key": key})
    return [(row.id, row.head_sha) for row in rows]


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
