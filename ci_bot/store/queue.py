"""What a pass of the launch loop reads and tells: all that is under way, and of what waits only what is new or due."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from sqlalchemy import Connection, Select, bindparam, func, select, update

from ci_bot.records import Experiment
from ci_bot.store.deliveries import changed
from ci_bot.store.experiment_rows import PROGRESS, experiment_of, progress_of
from ci_bot.store.tables import experiment
from launcher.experiment import Specification
from launcher.state import TERMINAL, WAITING, Progress, State

UNDER_WAY = sorted(set(State) - TERMINAL - WAITING)
MOST_IDS = 500
"""In one statement: databases take only so many parameters."""
# What a pass asks is put together once: that takes longer than the database does.
_UNDER_WAY = select(experiment).where(experiment.c.state.in_(UNDER_WAY)).order_by(experiment.c.id)
# In the words of the index. With the state among them SQLite would go through all that wait.
_WISHED = experiment.c.wish_at.is_not(None) & experiment.c.ended_at.is_(None)
_UNWANTED = select(experiment).where(_WISHED).order_by(experiment.c.id)
_CREATED = (
    select(experiment.c.id)
    .where(experiment.c.state == State.CREATED)
    .order_by(experiment.c.id)
    .limit(bindparam("most"))
)
_SOME = select(experiment).where(experiment.c.id.in_(bindparam("of", expanding=True))).order_by(experiment.c.id)
_PLACE = func.coalesce(experiment.c.queued_at, experiment.c.created_at).label("place")
_QUEUED = select(
    *(experiment.c[name] for name in ("id", "repository_id", "specification", "state_at", *PROGRESS)), _PLACE
).where(experiment.c.id.in_(bindparam("of", expanding=True)), experiment.c.state == State.PENDING)
_TELL = (
    update(experiment)
    .where(experiment.c.id == bindparam("of"), experiment.c.state == State.PENDING)
    .where(experiment.c.pending_reason != bindparam("reason"))
    .values(pending_reason=bindparam("reason"), version=experiment.c.version + 1)
)


@dataclass(frozen=True)
class Queued:
    """As much of an experiment that is PENDING as its place in the queue is made of."""

    id: int
    repository_id: int
    specification: Specification
    progress: Progress
    state_at: float
    queued_at: float


@dataclass(frozen=True)
class Commit:
    """Of a repository."""

    repository_id: int
    head_sha: str


def under_way(connection: Connection) -> list[Experiment]:
    """Those that hold something, or give it back, the oldest first."""
    return _experiments(connection, _UNDER_WAY)


def unwanted(connection: Connection) -> list[Experiment]:
    """Those that wait and are wished to end."""
    return [each for each in _experiments(connection, _UNWANTED) if each.state in WAITING]


def created(connection: Connection, limit: int, *, besides: Collection[int] = ()) -> list[Experiment]:
    """The first that are CREATED, in order, besides those that are seen to."""
    found = connection.scalars(_CREATED, {"most": limit + len(besides)})
    return some(connection, list(islice((each for each in found if each not in besides), limit)))


def pending_ids(connection: Connection) -> set[int]:
    """Everybody who is PENDING."""
    return set(connection.scalars(select(experiment.c.id).where(experiment.c.state == State.PENDING)))


def queued(connection: Connection, ids: Iterable[int]) -> list[Queued]:
    """Which of these are PENDING, and their places."""
    found = []
    for some_ids in _batches(ids):
        for row in connection.execute(_QUEUED, {"of": some_ids}).mappings():
            specification = Specification.model_validate_json(row["specification"])
            found.append(
                Queued(row["id"], row["repository_id"], specification, progress_of(row), row["state_at"], row["place"])
            )
    return found


def some(connection: Connection, ids: Iterable[int]) -> list[Experiment]:
    """Those that exist of these, by id."""
    return [each for some_ids in _batches(ids) for each in _experiments(connection, _SOME, of=some_ids)]


def commits(connection: Connection) -> list[Commit]:
    """The commits of all that has not ended."""
    unfinished = experiment.c.state.in_(sorted(set(State) - TERMINAL))
    rows = select(experiment.c.repository_id, experiment.c.head_sha).where(unfinished).distinct()
    return [Commit(*row) for row in connection.execute(rows)]


def tell(connection: Connection, pending_reasons: Mapping[int, str]) -> bool:
    """Replace why those wait that still do; False if that says nothing new."""
    said = False
    for experiment_id, text in pending_reasons.items():
        said |= changed(connection, _TELL, {"of": experiment_id, "reason": text}) == 1
    return said


def _batches(ids: Iterable[int]) -> Iterator[list[int]]:
    every = list(ids)
    return (every[start : start + MOST_IDS] for start in range(0, len(every), MOST_IDS))


def _experiments(connection: Connection, rows: Select[Any], **values: Any) -> list[Experiment]:
    return [experiment_of(row) for row in connection.execute(rows, values).mappings()]
