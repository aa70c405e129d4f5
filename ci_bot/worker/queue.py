"""The queue: who may start now on what the cluster has left, and what the others wait for."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from ci_bot.records import Experiment
from ci_bot.report.pending import no_cluster, no_room, too_many, unknown_machine_type, unsatisfiable, why_pending
from ci_bot.store import experiments, marks, quarantine
from ci_bot.worker import most
from ci_bot.worker.books import Books
from ci_bot.worker.journal import Journal
from launcher.backend import Backend, Capacity
from launcher.keep import Keep
from launcher.machines import Machine, Machines
from launcher.placement import (
    Limits,
    Needs,
    Running,
    Waiting,
    admit,
    ever_fits,
    fits,
    needs,
    placeable,
    unplaced_pause_s,
)
from launcher.state import Cause, State

REASON_S = 60.0
"""How often a reader is told something else of the same wait."""
FULL_BYTES = 512 << 20
"""With less room on our own disk nothing is started: its log would have no place."""


@dataclass
class Queue:
    """Those that are PENDING, in order."""

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
    _kept: str | None = None
    """What the database has of the most; None before it was asked."""
    _said: dict[int, tuple[float, str]] = field(default_factory=dict)

    async def look(self) -> Capacity:
        """See what the cluster has now.

        Raises:
            BackendError: it does not answer.
        """
        await self.backend.ensure_agents()
        capacity = await self.backend.capacity()
        await self._remember(capacity)
        self.machines = self.machines.seeing(self.most)
        self.away = frozenset(each.host for each in await self.books.read(quarantine.hosts))
        self.seen = True
        return capacity

    async def _remember(self, capacity: Capacity) -> None:
        """Keep the most that the cluster ever had; written only when it has grown."""
        if self._kept is None:
            self._kept = await self.books.read(lambda c: marks.get(c, most.MARK)) or ""
            self.most = most.load(self._kept)
        self.most = self.most.at_least(capacity)
        if (grown := most.dump(self.most)) != self._kept:
            await self.books.write(lambda c: marks.put(c, most.MARK, grown))
            self._kept = grown

    async def admitted(
        self, waiting: Sequence[Experiment], held: Sequence[Experiment], capacity: Capacity
    ) -> list[Experiment]:
        """Those that may start now, in order; the others are told what they wait for, or that they wait in vain."""
        self._forget_others(waiting)
        if (free_bytes := self.keep.free_bytes()) < FULL_BYTES:
            for experiment in waiting:
                await self._say(experiment, no_room(free_bytes))
            return []
        possible = []
        for experiment in waiting:
            wanted = self._needs(experiment)
            if ever_fits(wanted, self.most, self.machines):
                held_back = self._held_back(experiment)
                possible.append(Waiting(experiment.id, experiment.repository_id, wanted, place(experiment), held_back))
            else:
                await self.journal.end(experiment, Cause.UNSATISFIABLE, {"why": self._never(wanted)})
        running = [
            Running(e.id, e.repository_id, self._needs(e), tuple(node.node_id for node in e.held.nodes)) for e in held
        ]
        decided = admit(possible, running, capacity.without(self.away), self.limits)
        by_id = {experiment.id: experiment for experiment in waiting}
        for experiment_id, shortage in decided.waiting.items():
            experiment = by_id[experiment_id]
            group = experiment.specification.groups[0]
            await self._say(
                experiment,
                why_pending(
                    shortage,
                    machine_type=group.machine_type or "",
                    nodes=group.count,
                    quarantined=sorted(self.away),
                ),
            )
        return [by_id[experiment_id] for experiment_id in decided.admitted]

    async def unanswered(self, waiting: Sequence[Experiment], why: str) -> None:
        """The cluster does not answer, and that is what they wait for."""
        self._forget_others(waiting)
        for experiment in waiting:
            await self._say(experiment, no_cluster(why))

    async def waited_s(self, experiment: Experiment) -> float:
        """How long it has stood in the queue; its place is older where it ran before."""
        since = place(experiment)
        if experiment.progress.attempt:
            history = await self.books.read(lambda c: experiments.transitions(c, experiment.id))
            since = max((each.at for each in history if each.state is State.NETWORK_TEARDOWN), default=since)
        return self.now() - since

    def resolve(self, experiment: Experiment) -> tuple[Machine, ...]:
        """What each of its groups gets."""
        return tuple(self.machines.resolve(group.machine_type) for group in experiment.specification.groups)

    def _needs(self, experiment: Experiment) -> Needs:
        return needs(experiment.specification, self.resolve(experiment), shared_hosts=self.shared_hosts)

    def _held_back(self, experiment: Experiment) -> bool:
        """Whether Ray had no place for it just now.

        A new attempt has no cause, and every way back into the queue has one but this. Shutdowns count as well as
        placements that failed; that only makes the pause a little longer.
        """
        progress = experiment.progress
        if progress.attempt == 0 or progress.cause is not None:
            return False
        times = progress.attempt - progress.user_retries_used - progress.infrastructure_retries_used
        return 0 <= self.now() - experiment.state_at < unplaced_pause_s(times)

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

    async def _say(self, experiment: Experiment, text: str) -> None:
        """Say why it waits: at once when it begins to, then as often as a reader can follow."""
        said_at, said = self._said.get(experiment.id, (0.0, ""))
        if text != said and self.now() - said_at > REASON_S:
            self._said[experiment.id] = (self.now(), text)
            await self.journal.note(experiment.id, pending_reason=text)

    def _forget_others(self, waiting: Sequence[Experiment]) -> None:
        """Whoever waits again later is told at once."""
        ids = {experiment.id for experiment in waiting}
        self._said = {experiment_id: said for experiment_id, said in self._said.items() if experiment_id in ids}


def place(experiment: Experiment) -> float:
    """An experiment's place in the queue."""
    return experiment.queued_at or experiment.created_at
