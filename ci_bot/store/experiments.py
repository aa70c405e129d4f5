"""Experiments and their timelines; every change is one transaction's, by compare-and-swap."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from sqlalchemy import Connection, bindparam, func, or_, select, update

from ci_bot.records import Claim, Experiment, Held, Transition, Wish
from ci_bot.store import claims
from ci_bot.store.deliveries import changed
from ci_bot.store.experiment_rows import PROGRESS, experiment_of
from ci_bot.store.tables import experiment, insert, transition
from launcher.experiment import Specification
from launcher.state import TERMINAL, Cause, Progress, State

# What is asked for each step of each experiment is put together once: that takes longer than the database does.
_ONE = select(experiment).where(experiment.c.id == bindparam("of"))
_AT_COMMIT = (
    select(experiment)
    .where(experiment.c.repository_id == bindparam("repository"), experiment.c.head_sha == bindparam("sha"))
    .order_by(experiment.c.rerun)
)
_SHOWN = or_(
    experiment.c.state.not_in(bindparam("passing", expanding=True)),
    experiment.c.state_at < bindparam("before"),
    experiment.c.pending_reason != "",
    experiment.c.reported_version == 0,
)
_UNREPORTED = (
    select(experiment)
    .where(experiment.c.version != experiment.c.reported_version, _SHOWN)
    .order_by(experiment.c.id)
    .limit(bindparam("most"))
)
_REPORTED = update(experiment).where(experiment.c.id == bindparam("of")).values(reported_version=bindparam("rendered"))
_AS_EXPECTED = (experiment.c[name].is_not_distinct_from(bindparam(f"expected_{name}")) for name in PROGRESS)
_RECORD = (
    update(experiment).where(experiment.c.id == bindparam("of"), *_AS_EXPECTED).values(version=experiment.c.version + 1)
)
_RECORD_QUEUED = _RECORD.values(queued_at=func.coalesce(experiment.c.queued_at, bindparam("at")))
_TIMELINES = (
    select(transition)
    .where(transition.c.experiment_id.in_(bindparam("of", expanding=True)))
    .order_by(transition.c.sequence)
)
_LAST = select(func.coalesce(func.max(transition.c.sequence), 0)).where(transition.c.experiment_id == bindparam("of"))
_APPEND = transition.insert().values(sequence=_LAST.scalar_subquery() + 1)


@dataclass(frozen=True)
class Draft:
    """An experiment that is to be created; the words are those of `records.Experiment`."""

    repository_id: int
    installation_id: int
    full_name: str
    head_sha: str
    ref: str
    name: str
    specification: Specification
    configuration_path: str
    configuration_source: str
    rerun: int = 0
    title: str = ""
    trusted: bool = True
    notes: tuple[str, ...] = ()
    progress: Progress = field(default_factory=Progress)
    """In state CREATED, with its budgets."""


def create(connection: Connection, draft: Draft, claim: Claim, at: float) -> tuple[int, bool]:
    """Create an experiment, or find the one of the same repository, SHA, name and re-run number; then add the claim.

    Returns:
        Its id, and True if it is new.
    """
    row = {
        "repository_id": draft.repository_id,
        "installation_id": draft.installation_id,
        "full_name": draft.full_name,
        "head_sha": draft.head_sha,
        "ref": draft.ref,
        "name": draft.name,
        "rerun": draft.rerun,
        "title": draft.title,
        "specification": draft.specification.model_dump_json(),
        "configuration_path": draft.configuration_path,
        "configuration_source": draft.configuration_source,
        "created_at": at,
        "state_at": at,
        "trusted": draft.trusted,
        "notes": json.dumps(draft.notes),
        **_progress_columns(draft.progress),
    }
    statement = insert(connection, experiment).values(row).on_conflict_do_nothing().returning(experiment.c.id)
    experiment_id = connection.execute(statement).scalar()
    created = experiment_id is not None
    if experiment_id is None:
        key = {name: row[name] for name in ("repository_id", "head_sha", "name", "rerun")}
        experiment_id = connection.scalars(select(experiment.c.id).filter_by(**key)).one()
    else:
        _append(connection, experiment_id, draft.progress, at=at, reason="")
    claims.add(connection, experiment_id, claim, at)
    return experiment_id, created


def get(connection: Connection, experiment_id: int) -> Experiment | None:
    """One experiment, if it exists."""
    row = connection.execute(_ONE, {"of": experiment_id}).mappings().one_or_none()
    return None if row is None else experiment_of(row)


def listed(
    connection: Connection,
    *,
    repository_ids: Collection[int] | None = None,
    states: Collection[State] | None = None,
    before: int | None = None,
    limit: int = 100,
) -> list[Experiment]:
    """Experiments, newest first.

    Args:
        connection: the transaction.
        repository_ids: only of these; None: of all.
        states: only in these; None: in any.
        before: only those with a smaller id, for the next page.
        limit: how many at most.
    """
    rows = select(experiment).order_by(experiment.c.id.desc()).limit(limit)
    if repository_ids is not None:
        rows = rows.where(experiment.c.repository_id.in_(repository_ids))
    if states is not None:
        rows = rows.where(experiment.c.state.in_(states))
    if before is not None:
        rows = rows.where(experiment.c.id < before)
    return [experiment_of(row) for row in connection.execute(rows).mappings()]


def unfinished(connection: Connection) -> list[Experiment]:
    """All that have not ended, in the order of their places in the queue."""
    rows = (
        select(experiment)
        .where(experiment.c.state.in_([state for state in State if state not in TERMINAL]))
        .order_by(func.coalesce(experiment.c.queued_at, experiment.c.created_at), experiment.c.id)
    )
    return [experiment_of(row) for row in connection.execute(rows).mappings()]


def newest(connection: Connection, repository_id: int, head_sha: str, name: str) -> Experiment | None:
    """The newest re-run of that name at that commit."""
    found = [one for one in at_commit(connection, repository_id, head_sha) if one.name == name]
    return found[0] if found else None


def at_commit(connection: Connection, repository_id: int, head_sha: str) -> list[Experiment]:
    """The newest re-run of each name at that commit, by name."""
    rows = connection.execute(_AT_COMMIT, {"repository": repository_id, "sha": head_sha})
    by_name = {row["name"]: row for row in rows.mappings()}
    return [experiment_of(by_name[name]) for name in sorted(by_name)]


def unreported(
    connection: Connection, limit: int = 100, *, passing: Collection[State] = (), before: float = 0.0
) -> list[Experiment]:
    """Those whose present version was not rendered yet, the oldest first.

    Of those in a state that is `passing` only who entered it `before`, has a reason to wait, or was never rendered.
    """
    rows = connection.execute(_UNREPORTED, {"passing": sorted(passing), "before": before, "most": limit})
    return [experiment_of(row) for row in rows.mappings()]


def reported(connection: Connection, experiment_id: int, version: int) -> None:
    """Say that every check run of that version is wanted now; part of the transaction that wants them."""
    connection.execute(_REPORTED, {"of": experiment_id, "rendered": version})


def record(
    connection: Connection,
    experiment_id: int,
    expected: Progress,
    new: Progress,
    *,
    at: float,
    reason: str = "",
    detail: Mapping[str, Any] | None = None,
    held: Held | None = None,
) -> bool:
    """Write where an experiment stands now; a compare-and-swap on all of its progress.

    A changed progress becomes a line of the timeline; an equal one only replaces what is given.

    Args:
        connection: the transaction.
        experiment_id: which one.
        expected: what the caller read.
        new: what `state.advance` made of it.
        at: when it happened.
        reason: the sentence of the timeline.
        detail: replaces the detail.
        held: replaces what it holds.

    Returns:
        False if somebody else has changed it since; nothing was written.
    """
    values: dict[str, Any] = {"of": experiment_id}
    values |= {f"expected_{name}": value for name, value in _progress_columns(expected).items()}
    statement = _RECORD
    if new != expected:
        values |= _progress_columns(new) | _times(expected, new, at)
        if new.state is State.PENDING:  # its place in the queue is kept
            statement, values["at"] = _RECORD_QUEUED, at
    if detail is not None:
        values["detail"] = json.dumps(dict(detail))
    if held is not None:
        values["held"] = json.dumps(asdict(held))
    if changed(connection, statement, values) == 0:
        return False
    if new != expected:
        _append(connection, experiment_id, new, at=at, reason=reason)
    return True


def wish(connection: Connection, experiment_id: int, wished: Wish) -> bool:
    """Wish that it be cancelled; False if it has ended or somebody wished so before."""
    statement = (
        update(experiment)
        .where(experiment.c.id == experiment_id, experiment.c.wish_at.is_(None), experiment.c.state.not_in(TERMINAL))
        .values(wish_by=wished.by, wish_why=wished.why, wish_at=wished.at, version=experiment.c.version + 1)
    )
    return changed(connection, statement) == 1


def note(
    connection: Connection,
    experiment_id: int,
    *,
    pending_reason: str | None = None,
    notes: Sequence[str] | None = None,
) -> bool:
    """Replace what is given; False if it says nothing new, and then its version stays."""
    values: dict[str, Any] = {}
    if pending_reason is not None:
        values["pending_reason"] = pending_reason
    if notes is not None:
        values["notes"] = json.dumps(list(notes))
    if not values:
        return False
    differs = [experiment.c[name] != value for name, value in values.items()]
    statement = (
        update(experiment)
        .where(experiment.c.id == experiment_id, or_(*differs))
        .values(values | {"version": experiment.c.version + 1})
    )
    return changed(connection, statement) == 1


def remark(connection: Connection, experiment_id: int, notes: Sequence[str], *, replacing: str = "") -> bool:
    """Add the notes that are not there yet; False if that changes nothing.

    Args:
        connection: the transaction.
        experiment_id: whose.
        notes: what a reader of the results must know.
        replacing: older notes that begin so make room; what takes their place stands first.
    """
    row = select(experiment.c.notes).where(experiment.c.id == experiment_id).with_for_update()
    there: list[str] = json.loads(connection.execute(row).scalar_one())
    if replacing:
        kept = [each for each in there if not each.startswith(replacing)]
        return note(connection, experiment_id, notes=[*notes, *kept])
    return note(connection, experiment_id, notes=list(dict.fromkeys([*there, *notes])))


def transitions(connection: Connection, experiment_id: int) -> list[Transition]:
    """Its timeline, from the start."""
    return timelines(connection, [experiment_id])[experiment_id]


def timelines(connection: Connection, experiment_ids: Collection[int]) -> dict[int, list[Transition]]:
    """The timelines of a page of experiments, each from the start; empty of one that is not there."""
    found: dict[int, list[Transition]] = {each: [] for each in experiment_ids}
    for row in connection.execute(_TIMELINES, {"of": list(found)}).mappings() if found else ():
        found[row["experiment_id"]].append(
            Transition(
                sequence=row["sequence"],
                attempt=row["attempt"],
                state=State(row["state"]),
                at=row["at"],
                reason=row["reason"],
                cause=None if row["cause"] is None else Cause(row["cause"]),
            )
        )
    return found


def _append(connection: Connection, experiment_id: int, progress: Progress, *, at: float, reason: str) -> None:
    row = {
        "of": experiment_id,
        "experiment_id": experiment_id,
        "attempt": progress.attempt,
        "state": progress.state,
        "at": at,
        "reason": reason,
        "cause": progress.cause,
    }
    connection.execute(_APPEND, row)


def _progress_columns(progress: Progress) -> dict[str, Any]:
    return asdict(progress)


def _times(old: Progress, new: Progress, at: float) -> dict[str, Any]:
    """The times that a step of the state machine sets, and the words that it makes untrue."""
    values: dict[str, Any] = {}
    if new.attempt != old.attempt:
        values["running_at"] = None
    if (new.state, new.attempt) != (old.state, old.attempt):
        values |= {"state_at": at, "pending_reason": ""}
    if new.state is State.RUNNING:
        values["running_at"] = at
    if new.state in TERMINAL:
        values["ended_at"] = at
    return values
