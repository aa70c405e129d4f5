"""Those that wait, kept in order: who may start is found without asking everybody, and why anyone waits is told. Pure.

The line is kept current by whoever adds and removes. A decision looks at the first of each group that asks the same of
the same queues, so that it costs what there are kinds of experiments, not what there are experiments.
"""

import heapq
from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from launcher.backend import Capacity, NodeCapacity
from launcher.placement import Blocked, Limits, Needs, Running, Shortage, free_of, placed, shortage

Key = TypeVar("Key")
Place = tuple[float, int]
"""When it came into the queue, and its id: what orders it."""


@dataclass(frozen=True)
class Waiting:
    """An experiment in the queue; `queued_at` is its place, which retries keep."""

    id: int
    repository_id: int
    needs: Needs
    queued_at: float
    unplaced_at: float = 0.0
    unplaced_s: float = 0.0
    """When Ray found no place for it, and how long it is not tried again; it holds its place in the queue."""

    @property
    def place(self) -> Place:
        """Its place in every queue on which it stands."""
        return (self.queued_at, self.id)

    def unplaced(self, now: float) -> bool:
        """Whether Ray had no place for it just now; nothing that lies in the future was just now."""
        return 0 <= now - self.unplaced_at < self.unplaced_s


@dataclass(frozen=True)
class _Group:
    """Those that ask the same of the same queues; of one repository, where repositories have a limit."""

    lanes: tuple[str, ...]
    shape: tuple[object, ...]
    repository_id: int | None


class Line:
    """The queue of each machine type, in order."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._waiting: dict[int, Waiting] = {}
        self._order: list[Place] = []
        self._lanes: dict[str, list[Place]] = {}
        self._groups: dict[_Group, list[Place]] = {}

    def __len__(self) -> int:
        """How many wait."""
        return len(self._waiting)

    def __iter__(self) -> Iterator[int]:
        """The ids, in order."""
        return (experiment_id for _, experiment_id in self._order)

    def get(self, experiment_id: int) -> Waiting | None:
        """One that waits."""
        return self._waiting.get(experiment_id)

    def add(self, waiting: Waiting) -> None:
        """Put it into its place; one that stands there already stands there anew."""
        self.remove(waiting.id)
        self._waiting[waiting.id] = waiting
        insort(self._order, waiting.place)
        insort(self._groups.setdefault(self._group(waiting), []), waiting.place)
        for lane in waiting.needs.lanes:
            insort(self._lanes.setdefault(lane, []), waiting.place)

    def remove(self, experiment_id: int) -> None:
        """It waits no more."""
        waiting = self._waiting.pop(experiment_id, None)
        if waiting is None:
            return
        _drop(self._order, waiting.place)
        _drop_from(self._groups, self._group(waiting), waiting.place)
        for lane in waiting.needs.lanes:
            _drop_from(self._lanes, lane, waiting.place)

    def queued_before(self, at: float) -> list[int]:
        """Those that came before then."""
        return [experiment_id for _, experiment_id in self._order[: bisect_left(self._order, (at, 0))]]

    def kinds(self) -> list[Waiting]:
        """The first of those that ask the same of the same queues."""
        return [self._waiting[places[0][1]] for places in self._groups.values()]

    def alike(self, waiting: Waiting) -> list[int]:
        """The ids of those that ask the same, in order."""
        return [experiment_id for _, experiment_id in self._groups.get(self._group(waiting), ())]

    def ahead(self, waiting: Waiting, gone: Collection[int] = ()) -> int:
        """How many come before it on the longest of its queues, less those that are about to go."""
        before = {lane: bisect_left(self._lanes.get(lane, ()), waiting.place) for lane in waiting.needs.lanes}
        for each in filter(None, map(self.get, gone)):
            for lane in set(each.needs.lanes) & before.keys() if each.place < waiting.place else ():
                before[lane] -= 1
        return max(before.values())

    def decide(self, running: Sequence[Running], capacity: Capacity, now: float) -> "Decision":
        """Who may start now: first in, first out on each machine type.

        Nobody overtakes on the same machine type, but a repository that has reached its own limit holds up only
        itself. Nodes that must not be used are to be taken out of the capacity before.
        """
        decision = Decision(
            self, free_of(capacity, running), len(running), Counter(each.repository_id for each in running)
        )
        heads = [(places[0], 0, number) for number, places in enumerate(self._groups.values())]
        groups = list(self._groups.items())
        heapq.heapify(heads)
        while heads and not decision.full:
            (_, experiment_id), index, number = heapq.heappop(heads)
            group, places = groups[number]
            if decision.passes(group.lanes, group.repository_id) and decision.judge(self._waiting[experiment_id], now):
                for following in places[index + 1 : index + 2]:
                    heapq.heappush(heads, (following, index + 1, number))
        return decision

    def _group(self, waiting: Waiting) -> _Group:
        per_repository = self.limits.max_running_per_repository is not None
        repository_id = waiting.repository_id if per_repository else None
        return _Group(waiting.needs.lanes, waiting.needs.shape, repository_id)


@dataclass
class Decision:
    """Who may start, in order, and why the others may not; true until the line or the cluster changes."""

    line: Line
    free: list[NodeCapacity]
    running: int
    by_repository: Counter[int]
    admitted: list[int] = field(default_factory=list)
    _closed: set[str] = field(default_factory=set)
    """The machine types on whose queue somebody waits already."""
    _first: dict[int, Blocked] = field(default_factory=dict)
    """Why each of those waits that are the first of a queue."""
    _shortages: dict[tuple[object, ...], Shortage] = field(default_factory=dict)

    @property
    def full(self) -> bool:
        """Whether as many run as ever may."""
        limit = self.line.limits.max_running
        return limit is not None and self.running >= limit

    def passes(self, lanes: Sequence[str], repository_id: int | None) -> bool:
        """Whether nobody stands before it on these queues, and its repository may have one more."""
        return self._closed.isdisjoint(lanes) and not self._at_limit(repository_id)

    def judge(self, waiting: Waiting, now: float) -> bool:
        """Admit it, or close its queues behind it; whether it was admitted."""
        left = placed(waiting.needs, self.free)
        if left is None or waiting.unplaced(now):
            self._closed.update(waiting.needs.lanes)
            self._first[waiting.id] = Blocked.MACHINES if left is None else Blocked.UNPLACED
            return False
        self.free = left
        self.admitted.append(waiting.id)
        self.running += 1
        self.by_repository[waiting.repository_id] += 1
        return True

    def why(self, waiting: Waiting) -> Shortage:
        """Why it waits, and how many are ahead of it."""
        limits, wanted = self.line.limits, waiting.needs
        ahead = self.line.ahead(waiting, self.admitted)
        first = self._first.get(waiting.id)
        if self.full:
            return Shortage(Blocked.MAX_RUNNING, ahead, limit=limits.max_running)
        if self._at_limit(waiting.repository_id):
            return Shortage(Blocked.MAX_RUNNING_PER_REPOSITORY, ahead, limit=limits.max_running_per_repository)
        if first is Blocked.UNPLACED:
            return Shortage(Blocked.UNPLACED, ahead, needed=wanted.bundles[0].resources)
        return replace(self._shortage(wanted), blocked=first or Blocked.AHEAD, ahead=ahead)

    def _at_limit(self, repository_id: int | None) -> bool:
        limit = self.line.limits.max_running_per_repository
        return limit is not None and repository_id is not None and self.by_repository[repository_id] >= limit

    def _shortage(self, wanted: Needs) -> Shortage:
        """Computed once for each shape: thousands may wait for the same."""
        if wanted.shape not in self._shortages:
            self._shortages[wanted.shape] = shortage(wanted, self.free)
        return self._shortages[wanted.shape]


def _drop(places: list[Place], place: Place) -> None:
    del places[bisect_left(places, place)]


def _drop_from(kept: dict[Key, list[Place]], key: Key, place: Place) -> None:
    _drop(kept[key], place)
    if not kept[key]:
        del kept[key]
