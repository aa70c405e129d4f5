"""The launch loop: what the rows want of Ray, compared with what is, one next step at a time."""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import structlog
from sqlalchemy import Connection

from ci_bot.records import Experiment
from ci_bot.report.pending import multi_node_not_supported, unknown_machine_type, unsatisfiable, why_pending
from ci_bot.report.sentence import sentence
from ci_bot.store import experiments, quarantine
from ci_bot.store.engine import LeaseLost
from ci_bot.store.quarantine import Quarantined
from ci_bot.worker.books import Books
from launcher.backend import Backend, BackendError, Capacity
from launcher.controller import Attempt, Drive, Rules
from launcher.experiment import Held, Topology
from launcher.keep import Keep
from launcher.machines import Machine, Machines
from launcher.node_types import NodeError
from launcher.placement import Limits, Needs, Running, Shortage, Waiting, admit, ever_fits, needs
from launcher.state import HOLDING, TERMINAL, Cause, Progress, Signal, State, advance

CODE_S = 6 * 3600.0
PASS_S = 1.0
SWEEP_S = 30.0
REASON_S = 60.0
MAX_FETCHES = 4
log = structlog.get_logger()


class SourceGone(Exception):
    """The commit can't be had any more."""


class SourceRefused(Exception):
    """The commit's files are not what we take."""


class SourceUnavailable(Exception):
    """The commit can't be had right now."""


class Source(Protocol):
    """Where the code of a commit comes from."""

    async def fetch(self, experiment: Experiment, destination: Path) -> tuple[str, ...]:
        """Put the archive there, whole or not at all; gives notes for the reader.

        Raises:
            SourceGone, SourceRefused, SourceUnavailable
        """

    def repository_url(self, experiment: Experiment) -> str:
        """The repository's address, as the experiment is told it."""


class Superseded(Exception):
    """The row moved under a drive; the next pass starts from what it says now."""


@dataclass
class Fetch:
    """A commit on its way here, and when to try again."""

    task: asyncio.Task[None] | None = None
    tries: int = 0
    next_try_at: float = 0.0
    why: str = ""


@dataclass
class Launch:
    """One pass after another over the unfinished experiments; holds nothing that the rows don't say."""

    books: Books
    backend: Backend
    keep: Keep
    source: Source
    machines: Machines
    rules: Rules
    limits: Limits
    queue_s: float
    require_container: bool
    changed: Callable[[], None]
    """Called when there is something to report."""
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    _drives: dict[int, tuple[Drive, asyncio.Task[Progress]]] = field(default_factory=dict)
    _fetches: dict[int, Fetch] = field(default_factory=dict)
    _reasons: dict[int, tuple[float, str]] = field(default_factory=dict)
    _most: Capacity | None = None
    _swept_at: float = 0.0

    async def run(self, stop: asyncio.Event) -> None:
        """Pass after pass until told to stop."""
        while not stop.is_set():
            try:
                await self.step()
            except BackendError as error:
                log.warning("ray does not answer", why=str(error))
            except Superseded as moved:
                log.info("a row moved during the pass", why=str(moved))
            self.wake.clear()
            waiters = [asyncio.ensure_future(self.wake.wait()), asyncio.ensure_future(stop.wait())]
            await asyncio.wait(waiters, timeout=PASS_S, return_when=asyncio.FIRST_COMPLETED)
            for waiter in waiters:
                waiter.cancel()

    async def step(self) -> None:
        """One pass."""
        self._collect()  # first: a row that is read before its drive ended would be driven again from an old state
        unfinished = await self.books.read(experiments.unfinished)
        for experiment in unfinished:
            await self._judge(experiment)
        waiting = [e for e in unfinished if e.state is State.PENDING and not e.wish]
        if waiting:
            await self._admit(waiting, [e for e in unfinished if e.state not in {State.CREATED, State.PENDING}])
        await self._sweep()

    async def drain(self, limit_s: float) -> None:
        """Put what runs back into the queue, at no cost to its budgets, and wait for it."""
        for drive, _ in self._drives.values():
            drive.interrupt(Cause.SHUTDOWN)
        tasks = [task for _, task in self._drives.values()]
        if tasks:
            await asyncio.wait(tasks, timeout=limit_s)
        await self.leave()

    async def leave(self) -> None:
        """Let go of every drive; what runs goes on, and the next worker takes it up."""
        tasks = [task for _, task in self._drives.values()] + [f.task for f in self._fetches.values() if f.task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # --- one experiment ---

    async def _judge(self, experiment: Experiment) -> None:
        driven = self._drives.get(experiment.id)
        wished = {"why": experiment.wish.why, "by": experiment.wish.by} if experiment.wish else None
        if experiment.state in {State.CREATED, State.PENDING} and not driven:
            if wished:
                await self._end(experiment, Cause.WISHED, wished)
            elif experiment.state is State.CREATED:
                await self._resolve(experiment)
            elif (waited := time.time() - _place_in_queue(experiment)) > self.queue_s:
                await self._end(experiment, Cause.QUEUE_DEADLINE, {"waited_s": waited, "limit_s": self.queue_s})
        elif experiment.state in HOLDING or experiment.state is State.NETWORK_TEARDOWN:
            drive = driven[0] if driven else self._start(experiment)
            if wished:
                drive.interrupt(Cause.WISHED, **wished)

    async def _resolve(self, experiment: Experiment) -> None:
        """CREATED: what can't run is refused, the commit's code is fetched."""
        specification = experiment.specification
        if specification.topology is not Topology.SINGLE:
            why = multi_node_not_supported(specification.topology)
            await self._end(experiment, Cause.NOT_SUPPORTED, {"why": why})
            return
        container = next((group.container for group in specification.groups if group.container), None)
        if self.require_container and container:
            why = f"The container {container} can't be used: no container engine is enabled, and one is required."
            await self._end(experiment, Cause.NOT_SUPPORTED, {"why": why})
            return
        fetch = self._fetches.setdefault(experiment.id, Fetch())
        busy = sum(1 for each in self._fetches.values() if each.task)
        if fetch.task is None and fetch.next_try_at <= time.time() and busy < MAX_FETCHES:
            fetch.task = asyncio.create_task(self._fetch(experiment, fetch))

    async def _fetch(self, experiment: Experiment, fetch: Fetch) -> None:
        try:
            await self._bring_code(experiment, fetch)
        except Superseded:
            self._fetches.pop(experiment.id, None)  # it was cancelled meanwhile
        finally:
            fetch.task = None
            self.wake.set()

    async def _bring_code(self, experiment: Experiment, fetch: Fetch) -> None:
        archive = self.keep.code(code_key(experiment))
        try:
            notes = await self.source.fetch(experiment, archive.path)
        except SourceGone as error:
            await self._end(experiment, Cause.COMMIT_GONE, {"why": str(error)})
        except SourceRefused as error:
            await self._end(experiment, Cause.REFUSED_ARCHIVE, {"why": str(error)})
        except SourceUnavailable as error:
            waited = time.time() - experiment.created_at
            if waited > CODE_S:
                await self._end(experiment, Cause.NOT_FETCHABLE, {"waited_s": waited, "why": str(error)})
            fetch.tries += 1
            fetch.next_try_at = time.time() + min(2.0 ** min(fetch.tries, 6), 60.0)
            fetch.why = str(error)
            await self._note(experiment.id, pending_reason=f"Waits for the code: {error}")
        else:
            fresh = tuple(note for note in (*self._notes(experiment), *notes) if note not in experiment.notes)
            await self._note(experiment.id, notes=experiment.notes + fresh, pending_reason="")
            await self.signal(experiment.id, experiment.progress, Signal.COMMIT_RESOLVED)
            self._fetches.pop(experiment.id, None)

    def _notes(self, experiment: Experiment) -> list[str]:
        notes = []
        for group in experiment.specification.groups:
            if group.container or group.dockerfile:
                what = f"container {group.container}" if group.container else "Dockerfile"
                notes.append(f"The {what} was not used: no container engine is enabled here.")
            note = self.machines.note(group.machine_type)
            if note:
                notes.append(note)
        return notes

    def _start(self, experiment: Experiment) -> Drive:
        attempt = Attempt(
            experiment_id=experiment.id,
            specification=experiment.specification,
            machines=self._machines(experiment),
            progress=experiment.progress,
            held=experiment.held,
            code=self.keep.code(code_key(experiment)),
            env=environment(experiment, self.source.repository_url(experiment)),
            storage_key=str(experiment.repository_id),
            trusted=experiment.trusted,
            running_at=experiment.running_at,
        )
        drive = Drive(attempt, self.backend, self, self.keep, self.rules, time.time)
        task = asyncio.create_task(drive.run(), name=f"experiment {experiment.id}")
        task.add_done_callback(lambda _: self.wake.set())
        self._drives[experiment.id] = (drive, task)
        return drive

    def _collect(self) -> None:
        """Let go of drives that are over; what went wrong in one is told, and its row is taken up again."""
        for experiment_id, (_, task) in list(self._drives.items()):
            if not task.done():
                continue
            del self._drives[experiment_id]
            error = None if task.cancelled() else task.exception()
            if isinstance(error, LeaseLost):
                raise error
            if error and not isinstance(error, Superseded):
                log.error("a drive broke off and is taken up again", experiment_id=experiment_id, exc_info=error)

    # --- the queue ---

    async def _admit(self, waiting: list[Experiment], held: list[Experiment]) -> None:
        await self.backend.ensure_agents()
        capacity = await self.backend.capacity()
        away = {each.host for each in await self.books.read(quarantine.hosts)}
        self._most = capacity if self._most is None else self._most.at_least(capacity)
        self.machines = self.machines.seeing(self._most)
        possible = []
        for experiment in waiting:
            wanted = self._needs(experiment)
            if ever_fits(wanted, self._most, self.machines):
                possible.append(Waiting(experiment.id, experiment.repository_id, wanted, _place_in_queue(experiment)))
            else:
                why = self._never(wanted, self._most)
                await self._end(experiment, Cause.UNSATISFIABLE, {"why": why})
        running = [Running(e.id, e.repository_id, self._needs(e), tuple(n.node_id for n in e.held.nodes)) for e in held]
        decided = admit(possible, running, capacity.without(away), self.limits)
        by_id = {experiment.id: experiment for experiment in waiting}
        for experiment_id in decided.admitted:
            experiment = by_id[experiment_id]
            progress = await self.signal(experiment_id, experiment.progress, Signal.ADMITTED, held=Held())
            self._start(replace(experiment, progress=progress, held=Held(), running_at=None))
            self._reasons.pop(experiment_id, None)
        for experiment_id, shortage in decided.waiting.items():
            await self._explain(by_id[experiment_id], shortage, sorted(away))

    def _needs(self, experiment: Experiment) -> Needs:
        return needs(experiment.specification, self._machines(experiment), shared_hosts=self.rules.allow_shared_hosts)

    def _machines(self, experiment: Experiment) -> tuple[Machine, ...]:
        return tuple(self.machines.resolve(group.machine_type) for group in experiment.specification.groups)

    def _never(self, wanted: Needs, most: Capacity) -> str:
        if wanted.undeclared:
            known = sorted(self.machines.table or ())
            return " ".join(unknown_machine_type(name, known) for name in wanted.undeclared)
        largest = max(most.nodes, key=lambda node: (node.total.get("GPU", 0), node.total.get("CPU", 0)))
        return unsatisfiable(wanted.words, largest.total)

    async def _explain(self, experiment: Experiment, shortage: Shortage, away: list[str]) -> None:
        """Say why it waits: at once when it begins to, then as often as a reader can follow."""
        group, experiment_id = experiment.specification.groups[0], experiment.id
        text = why_pending(shortage, machine_type=group.machine_type or "", nodes=group.count, quarantined=away)
        said_at, said = self._reasons.get(experiment_id, (0.0, ""))
        if text != said and time.time() - said_at > REASON_S:
            self._reasons[experiment_id] = (time.time(), text)
            await self._note(experiment_id, pending_reason=text)

    # --- what belongs to no unfinished attempt ---

    async def _sweep(self) -> None:
        """End and clear what a crash left on nodes and in Ray; a host that proves itself clean may be used again."""
        if time.time() - self._swept_at < SWEEP_S:
            return
        self._swept_at = time.time()
        unfinished = await self.books.read(experiments.unfinished)
        groups = {
            f"exp-{e.id}-a{e.progress.attempt}" for e in unfinished if e.state not in {State.CREATED, State.PENDING}
        }
        capacity = await self.backend.capacity()
        away = {each.host for each in await self.books.read(quarantine.hosts)}
        dirty: set[str] = set()
        for node in capacity.nodes:
            try:
                clean = not node.alive or await self._sweep_node(node.node_id, groups)
            except (BackendError, NodeError) as error:
                log.warning("a node could not be swept", host=node.host, why=str(error))
                clean = False
            if not clean:
                dirty.add(node.host)
        for host in away - dirty:
            if any(node.alive and node.host == host for node in capacity.nodes):
                await self.books.write(partial(quarantine.remove, host=host))
        if not dirty:
            for name in await self.backend.reservations():
                if name not in groups:
                    await self.backend.release(name)
        self.keep.forget_code({code_key(e) for e in unfinished})

    async def _sweep_node(self, node_id: str, groups: set[str]) -> bool:
        agent = self.backend.agent(node_id)
        clean = True
        for key in await agent.inventory():
            if key.rsplit("-n", 1)[0] not in groups:
                await agent.stop(key, self.rules.grace_s)
                clean &= (await agent.clean(key)).empty
        return clean

    # --- the journal ---

    async def signal(
        self,
        experiment_id: int,
        expected: Progress,
        signal: Signal,
        cause: Cause | None = None,
        *,
        detail: dict[str, Any] | None = None,
        held: Held | None = None,
    ) -> Progress:
        """Record a fact; the compare-and-swap fails when the row has moved."""
        new = advance(expected, signal, cause)
        reason = sentence(cause, detail or {}) if cause else ""
        if new.state is State.PENDING and signal is Signal.NOT_PLACED:
            reason = "Ray found no room within 30 s; it keeps its place in the queue."

        def record(connection: Connection) -> bool:
            return experiments.record(
                connection, experiment_id, expected, new, at=time.time(), reason=reason, detail=detail, held=held
            )

        if not await self.books.write(record):
            raise Superseded(f"experiment {experiment_id} is not {expected.state} any more")
        log.info("state", experiment_id=experiment_id, state=str(new.state), attempt=new.attempt, reason=reason)
        if new.state in TERMINAL:
            self._reasons.pop(experiment_id, None)
        self.changed()
        return new

    async def hold(self, experiment_id: int, expected: Progress, held: Held) -> None:
        """Record what the attempt holds."""
        unmoved = await self.books.write(
            lambda c: experiments.record(c, experiment_id, expected, expected, at=time.time(), held=held)
        )
        if not unmoved:
            raise Superseded(f"experiment {experiment_id} is not {expected.state} any more")

    async def quarantine(self, host: str, why: str) -> None:
        """No admissions on a host until its agent proves it clean."""
        log.error("host not proven clean", host=host, why=why)
        await self.books.write(lambda c: quarantine.add(c, Quarantined(host, why, time.time())))

    async def _end(self, experiment: Experiment, cause: Cause, detail: Mapping[str, Any]) -> None:
        await self.signal(experiment.id, experiment.progress, Signal.ENDED, cause, detail=dict(detail))
        self._fetches.pop(experiment.id, None)

    async def _note(self, experiment_id: int, **what: Any) -> None:
        await self.books.write(lambda c: experiments.note(c, experiment_id, **what))
        self.changed()


def _place_in_queue(experiment: Experiment) -> float:
    return experiment.queued_at or experiment.created_at


def code_key(experiment: Experiment) -> str:
    """What a commit's code is called on every node."""
    return f"{experiment.repository_id}-{experiment.head_sha}"


def environment(experiment: Experiment, repository_url: str) -> dict[str, str]:
    """What the experiment's commands are told of the commit, with the configuration's own variables."""
    return {
        "PS_GRADIENT_CI_GIT_REF": experiment.ref,
        "PS_GRADIENT_CI_GIT_SHA": experiment.head_sha,
        "PS_GRADIENT_CI_GIT_REPO_URL": repository_url,
        **experiment.specification.env,
    }
