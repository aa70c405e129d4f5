"""What a pass of the launch loop reads and tells: all that is under way, and of what waits only what is new or due."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

from sqlalchemy import Connection, Select, func, select, update

from ci_bot.records import Experiment
from ci_bot.store.deliveries import changed
from ci_bot.store.experiments import PROGRESS, experiment_of, progress_of
from ci_bot.store.tables import experiment
from launcher.experiment import Specification
from launcher.state import TERMINAL, WAITING, Progress, State

UNDER_WAY = sorted(set(State) - TERMINAL - WAITING)
MOST_IDS = 500
"""In one statement: databases take only so many parameters."""


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
    rows = select(experiment).where(experiment.c.state.in_(UNDER_WAY)).order_by(experiment.c.id)
    return _experiments(connection, rows)


def unwanted(connection: Connection) -> list[Experiment]:
    """Those that wait and are wished to end."""
    # In the words of the index. With the state among them SQLite would go through all that wait.
    wished = experiment.c.wish_at.is_not(None) & experiment.c.ended_at.is_(None)
    found = _experiments(connection, select(experiment).where(wished).order_by(experiment.c.id))
    return [each for each in found if each.state in WAITING]


def created(connection: Connection, limit: int, *, besides: Collection[int] = ()) -> list[Experiment]:
    """The first that are CREATED, in order, besides those that are seen to."""
    ids = select(experiment.c.id).where(experiment.c.state == State.CREATED).order_by(experiment.c.id)
    found = connection.scalars(ids.limit(limit + len(besides)))
    return some(connection, list(islice((each for each in found if each not in besides), limit)))


def pending_ids(connection: Connection) -> set[int]:
    """Everybody who is PENDING."""
    return set(connection.scalars(select(experiment.c.id).where(experiment.c.state == State.PENDING)))


def queued(connection: Connection, ids: Iterable[int]) -> list[Queued]:
    """Which of these are PENDING, and their places."""
    columns = [experiment.c[name] for name in ("id", "repository_id", "specification", "state_at", *PROGRESS)]
    place = func.coalesce(experiment.c.queued_at, experiment.c.created_at).label("place")
    found = []
    for some_ids in _batches(ids):
        rows = select(*columns, place).where(experiment.c.id.in_(some_ids), experiment.c.state == State.PENDING)
        for row in connection.execute(rows).mappings():
            specification = Specification.model_validate_json(row["specification"])
            found.append(
                Queued(row["id"], row["repository_id"], specification, progress_of(row), row["state_at"], row["place"])
            )
    return found


def some(connection: Connection, ids: Iterable[int]) -> list[Experiment]:
    """Those that exist of these, by id."""
    rows = select(experiment).order_by(experiment.c.id)
    return [
        each
        for some_ids in _batches(ids)
        for each in _experiments(connection, rows.where(experiment.c.id.in_(some_ids)))
    ]


def commits(connection: Connection) -> list[Commit]:
    """The commits of all that has not ended."""
    unfinished = experiment.c.state.in_(sorted(set(State) - TERMINAL))
    rows = select(experiment.c.repository_id, experiment.c.head_sha).where(unfinished).distinct()
    return [Commit(*row) for row in connection.execute(rows)]


def tell(connection: Connection, pending_reasons: Mapping[int, str]) -> bool:
    """Replace why those wait that still do; False if that says nothing new."""
    said = False
    for experiment_id, text in pending_reasons.items():
        waits = (experiment.c.id == experiment_id) & (experiment.c.state == State.PENDING)
        statement = (
            update(experiment)
            .where(waits, experiment.c.pending_reason != text)
            .values(pending_reason=text, version=experiment.c.version + 1)
        )
        said |= changed(connection, statement) == 1
    return said


def _batches(ids: Iterable[int]) -> Iterator[list[int]]:
    every = list(ids)
    return (every[start : start + MOST_IDS] for start in range(0, len(every), MOST_IDS))


def _experiments(connection: Connection, rows: Select[tuple[object, ...]]) -> list[Experiment]:
    return [experiment_of(row) for row in connection.execute(rows).mappings()]
