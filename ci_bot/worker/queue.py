"""The queue: who may start now on what the cluster has left, and what the others wait for."""

import heapq
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace

from sqlalchemy import Connection

from ci_bot.records import Experiment
from ci_bot.report.pending import no_cluster, no_room, too_many, unknown_machine_type, unsatisfiable, why_pending
from ci_bot.store import experiments, marks
from ci_bot.store import queue as rows
from ci_bot.store.quarantine import Quarantined
from ci_bot.store.queue import Queued
from ci_bot.worker import most
from ci_bot.worker.books import Books
from ci_bot.worker.journal import Journal
from launcher.backend import Backend, Capacity
from launcher.keep import FULL_BYTES, Keep
from launcher.line import Decision, Line, Waiting
from launcher.machines import Machine, Machines
from launcher.placement import Limits, Needs, Running, ever_fits, fits, needs, placeable, unplaced_pause_s
from launcher.state import Progress, State

REASON_S = 60.0
"""How often a reader is told something else of the same wait."""
MOST_ASKED = 25
"""Of how many the reason is looked at in one pass, those first whose turn it has not been for the longest."""
TELL_S = 0.5
"""Between two passes that tell: when much happens at once, the next decision does not wait for words."""
COUNT_S = 60.0
"""How often the line is compared with the rows, should a change not have been heard of."""


@dataclass
class Reasons:
    """What those who wait were told, and whose turn it is to be told something else."""

    _said: dict[int, tuple[float, str]] = field(default_factory=dict)
    _turns: list[tuple[float, int]] = field(default_factory=list)

    def await_turn(self, experiment_id: int) -> None:
        """It begins to wait, and is told at once."""
        self._said[experiment_id] = (0.0, "")
        heapq.heappush(self._turns, (0.0, experiment_id))

    def forget(self, experiment_id: int) -> None:
        """Whoever waits again later is told at once."""
        self._said.pop(experiment_id, None)

    def fresh(self, reason: Callable[[int], str | None], now: float) -> dict[int, str]:
        """What is to be told now, to some of those who wait; `reason` is why one does, None for one who starts."""
        fresh: dict[int, str] = {}
        asked: list[int] = []
        while self._turns and self._turns[0][0] <= now and len(asked) < MOST_ASKED:
            _, experiment_id = heapq.heappop(self._turns)
            if experiment_id in self._said:
                asked.append(experiment_id)
        for experiment_id in dict.fromkeys(asked):
            (said_at, said), text = self._said[experiment_id], reason(experiment_id)
            if text is not None and text != said:
                fresh[experiment_id] = text
                said_at = now
                self._said[experiment_id] = (now, text)
            heapq.heappush(self._turns, (max(now, said_at + REASON_S), experiment_id))
        return fresh


@dataclass(frozen=True)
class Due:
    """What a pass is to read of those who wait."""

    come: frozenset[int]
    known: frozenset[int] | None
    """With those that stand in line the rows of everybody are to be compared; None: they need not be."""
    besides: frozenset[int]

    def read(self, connection: Connection) -> tuple[list[Queued], set[int] | None]:
        """Those that have come, and the ids of all who are PENDING, if that is to be known."""
        pending = None if self.known is None else rows.pending_ids(connection)
        come = self.come | ((pending or set()) - (self.known or set()) - self.besides)
        return rows.queued(connection, sorted(come)), pending


@dataclass
class Queue:
    """Those that are PENDING, in order: read once, then kept current by what the journal tells."""

    books: Books
    backend: Backend
    journal: Journal
    keep: Keep
    limits: Limits
    machines: Machines
    shared_hosts: bool
    now: Callable[[], float] = time.time
    seen: bool = False
    """Whether the cluster has answered yet."""
    most: Capacity = most.NOTHING
    """The most that it ever had, under former workers too."""
    away: frozenset[str] = frozenset()
    """Hosts that were not proven clean."""
    reasons: Reasons = field(default_factory=Reasons)
    _kept: str | None = None
    """What the database has of the most; None before it was asked."""
    _last: Capacity | None = None
    """What the cluster had when it was last looked at."""
    _arrived: set[int] = field(default_factory=set)
    _needs: dict[tuple[tuple[str | None, int], ...], Needs] = field(default_factory=dict)
    _possible: set[tuple[object, ...]] = field(default_factory=set)
    """What was found to fit into the most that there ever was, since that last grew."""
    _counted_at: float = float("-inf")
    _told_at: float = float("-inf")

    def __post_init__(self) -> None:
        """Nobody was seen to wait yet."""
        self.line = Line(self.limits)

    # --- who waits ---

    def moved(self, experiment_id: int, old: Progress, new: Progress) -> None:
        """An experiment comes into the queue, or leaves it."""
        if old.state is State.PENDING:
            self._leave(experiment_id)
        if new.state is State.PENDING:
            self._arrived.add(experiment_id)

    def doubt(self) -> None:
        """Something was not as it was taken to be: the next pass looks at all rows."""
        self._counted_at = float("-inf")

    def due(self, besides: Collection[int]) -> "Due":
        """What the next pass is to read: who has come, besides those that are not through with their last attempt."""
        counted = 0 <= self.now() - self._counted_at < COUNT_S
        known = None if counted else frozenset(self.line)
        return Due(frozenset(self._arrived.difference(besides)), known, frozenset(besides))

    def take(self, due: "Due", come: Sequence[Queued], pending: Collection[int] | None) -> None:
        """Those that have come stand in line from now on; with all that are PENDING, nobody else does."""
        self._arrived -= due.come
        for each in come:
            self.line.add(self._waiting(each))
            self.reasons.await_turn(each.id)
        if pending is None:
            return
        self._counted_at = self.now()
        there = set(self.line)
        for experiment_id in there.difference(pending):
            self._leave(experiment_id)
        self._arrived.update(set(pending) - there)

    def _leave(self, experiment_id: int) -> None:
        self.line.remove(experiment_id)
        self.reasons.forget(experiment_id)
        self._arrived.discard(experiment_id)

    def _waiting(self, each: Queued) -> Waiting:
        """Its place; thousands that ask the same share what they ask.

        Ray had no place for it just now where it comes back without a cause: a new attempt has none, and every way
        back into the queue has one but this. Shutdowns count as well as placements that failed; that only makes the
        pause a little longer.
        """
        progress, pause_s = each.progress, 0.0
        if progress.attempt and progress.cause is None:
            times = progress.attempt - progress.user_retries_used - progress.infrastructure_retries_used
            pause_s = unplaced_pause_s(times)
        wanted = self.needs(each)
        return Waiting(
            each.id, each.repository_id, wanted, each.queued_at, unplaced_at=each.state_at, unplaced_s=pause_s
        )

    def needs(self, one: Experiment | Queued) -> Needs:
        """What it asks of the cluster."""
        asked = tuple((group.machine_type, group.count) for group in one.specification.groups)
        if asked not in self._needs:
            machines = self.resolve(one)
            self._needs[asked] = needs(one.specification, machines, shared_hosts=self.shared_hosts)
        return self._needs[asked]

    def resolve(self, one: Experiment | Queued) -> tuple[Machine, ...]:
        """What each of its groups gets."""
        return tuple(self.machines.resolve(group.machine_type) for group in one.specification.groups)

    # --- what there is ---

    async def look(self, away: Iterable[Quarantined]) -> Capacity:
        """See what the cluster has now, besides the hosts that were not proven clean.

        Raises:
            BackendError: it does not answer.
        """
        self.away = frozenset(each.host for each in away)
        capacity = await self.backend.capacity()
        if capacity != self._last:
            await self._remember(capacity)
            self._last = capacity
        self.seen = True
        return capacity

    async def _remember(self, capacity: Capacity) -> None:
        """Keep the most that the cluster ever had; written only when it has grown."""
        if self._kept is None:
            self._kept = await self.books.read(lambda c: marks.get(c, most.MARK)) or ""
            self.most = most.load(self._kept)
        self.most = self.most.at_least(capacity)
        self._possible.clear()
        if (grown := most.dump(self.most)) != self._kept:
            await self.books.write(lambda c: marks.put(c, most.MARK, grown))
            self._kept = grown
        if (meant := self.machines.seeing(self.most)) != self.machines:
            self.machines = meant
            await self._ask_anew()

    async def _ask_anew(self) -> None:
        """Machine types mean something else from now on."""
        self._needs.clear()
        everybody = list(self.line)
        for each in await self.books.read(lambda c: rows.queued(c, everybody)):
            if self.line.get(each.id):
                self.line.add(self._waiting(each))

    # --- who may start ---

    async def impossible(self) -> list[tuple[Experiment, str]]:
        """Those who wait in vain, and what would not be in vain."""
        found = []
        for first in self.line.kinds():
            wanted, asked = first.needs, (first.needs.undeclared, first.needs.shape)
            if asked not in self._possible and not ever_fits(wanted, self.most, self.machines):
                vain = await self._pending(self.line.alike(first))
                found += [(experiment, self._never(wanted)) for experiment in vain]
            else:
                self._possible.add(asked)
        return found

    async def _pending(self, ids: Collection[int]) -> list[Experiment]:
        """The rows of those of them that do wait."""
        found = await self.books.read(lambda c: rows.some(c, ids)) if ids else []
        return [each for each in found if each.state is State.PENDING and not each.wish]

    def decide(self, held: Sequence[Experiment], capacity: Capacity) -> Decision:
        """Who may start now."""
        running = [
            Running(e.id, e.repository_id, self.needs(e), tuple(node.node_id for node in e.held.nodes)) for e in held
        ]
        return self.line.decide(running, capacity.without(self.away), self.now())

    async def admitted(self, decision: Decision) -> list[Experiment]:
        """Those that may start, in order."""
        found = {each.id: each for each in await self._pending(decision.admitted)}
        return [found[each] for each in decision.admitted if each in found]

    # --- what the others are told ---

    @property
    def has_room(self) -> bool:
        """Whether there is room on our own disk for what would be started."""
        return self.keep.free_bytes() >= FULL_BYTES

    async def tell_no_room(self) -> None:
        """Our own disk is what they wait for."""
        free_bytes = self.keep.free_bytes()
        await self._tell(lambda _: no_room(free_bytes))

    async def tell(self, decision: Decision) -> None:
        """Say to some of those who wait why they do, at once when they begin to, then in turn."""
        starting = set(decision.admitted)

        def reason(experiment_id: int) -> str | None:
            waiting = self.line.get(experiment_id)
            if waiting is None or experiment_id in starting:
                return None
            return why_pending(
                decision.why(waiting),
                machine_type=waiting.needs.machine_type,
                nodes=waiting.needs.nodes,
                quarantined=sorted(self.away),
            )

        await self._tell(reason)

    async def unanswered(self, why: str) -> None:
        """The cluster does not answer, and that is what they wait for."""
        await self._tell(lambda _: no_cluster(why))

    async def _tell(self, reason: Callable[[int], str | None]) -> None:
        if 0 <= self.now() - self._told_at < TELL_S:
            return
        self._told_at = self.now()
        await self.journal.tell(self.reasons.fresh(reason, self.now()))

    async def overdue(self, queue_s: float) -> list[tuple[Experiment, float]]:
        """Those that wait for longer than that, and how long."""
        found = await self._pending(self.line.queued_before(self.now() - queue_s))
        waited = [(each, await self._waited_s(each)) for each in found]
        return [each for each in waited if each[1] > queue_s]

    async def _waited_s(self, experiment: Experiment) -> float:
        """How long it has stood in the queue; its place is older where it ran before."""
        since = place(experiment)
        if experiment.progress.attempt:
            history = await self.books.read(lambda c: experiments.transitions(c, experiment.id))
            since = max((each.at for each in history if each.state is State.NETWORK_TEARDOWN), default=since)
        return self.now() - since

    def _never(self, wanted: Needs) -> str:
        if wanted.undeclared:
            known = sorted(self.machines.table or ())
            return " ".join(unknown_machine_type(name, known) for name in wanted.undeclared)
        alone = (replace(wanted, bundles=(bundle,)) for bundle in wanted.bundles)
        if all(fits(each, self.most.alive) for each in alone):
            nodes, placed = len(wanted.bundles), placeable(wanted, self.most.alive)
            return too_many(wanted.words, nodes, placed, shared_hosts=self.shared_hosts)
        largest = max(self.most.nodes, key=lambda node: (node.total.get("GPU", 0), node.total.get("CPU", 0)))
        return unsatisfiable(wanted.words, largest.total)


def place(experiment: Experiment) -> float:
    """An experiment's place in the queue."""
    return experiment.queued_at or experiment.created_at
