"""The launch loop: what the rows want of Ray, compared with what is, one next step at a time."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import structlog

from ci_bot.records import Experiment
from ci_bot.store import experiments
from ci_bot.store.engine import LeaseLost
from ci_bot.worker.books import Books
from ci_bot.worker.fetching import (
    Fetching,
    Source,
    SourceGone,
    SourceRefused,
    SourceUnavailable,
    code_key,
)
from ci_bot.worker.journal import Journal, Superseded
from ci_bot.worker.queue import Queue, place
from ci_bot.worker.sweep import Sweep
from ci_bot.worker.waiting import any_of
from launcher.backend import Backend, BackendError
from launcher.controller import Attempt, Drive, Rules
from launcher.experiment import Held
from launcher.keep import Keep
from launcher.machines import Machines
from launcher.placement import Limits
from launcher.state import WAITING, Cause, Progress, Signal, State

__all__ = ["Launch", "Source", "SourceGone", "SourceRefused", "SourceUnavailable", "code_key", "environment"]

PASS_S = 1.0
SWEEP_S = 30.0
FIRST_ANSWER_S = 10.0
"""What the first connection may take before anybody is told of Ray's silence."""
UNSEEN_S = 600.0
"""How long what an attempt holds waits for a cluster that was never seen; then the attempt's own deadlines end it."""
log = structlog.get_logger()


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
    now: Callable[[], float] = time.time
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    connected: bool = True
    """Whether the cluster was ever reached; nothing is swept before."""
    _drives: dict[int, tuple[Drive, asyncio.Task[Progress]]] = field(default_factory=dict)
    _sweeping: asyncio.Task[None] | None = None
    _swept_at: float = float("-inf")
    _asked_at: float | None = None
    """When the cluster was first asked in vain."""
    _drives_since: float | None = None
    """When the first attempt was taken up, and with it every one that a former worker left."""

    def __post_init__(self) -> None:
        self.journal = Journal(self.books, self.changed, self.now)
        self.queue = Queue(
            self.books,
            self.backend,
            self.journal,
            self.keep,
            limits=self.limits,
            machines=self.machines,
            shared_hosts=self.rules.allow_shared_hosts,
            now=self.now,
        )
        self._fetching = Fetching(self.journal, self.keep, self.source, self._notes, self.wake.set, self.now)

    async def run(self, stop: asyncio.Event) -> None:
        """Pass after pass until told to stop."""
        await asyncio.to_thread(self.keep.forget_parts)
        while not stop.is_set():
            self.wake.clear()  # before the rows are read: what comes during the pass is not slept over
            try:
                await self.step()
            except BackendError as error:
                log.warning("ray does not answer", why=str(error))
            await any_of(self.wake, stop, limit_s=PASS_S)

    async def step(self) -> None:
        """One pass."""
        self._collect()  # first: a row that is read before its drive ended would be driven again from an old state
        unfinished = await self.books.read(experiments.unfinished)
        if unfinished:
            await self._look(unfinished)
        await self._sweep()

    async def _look(self, unfinished: list[Experiment]) -> None:
        capacity, why = None, ""
        try:
            capacity = await self.queue.look()
        except BackendError as error:
            why = str(error)
            self._asked_at = self.now() if self._asked_at is None else self._asked_at
            if not self._unseen(FIRST_ANSWER_S):
                log.warning("ray does not answer", why=why)
        for experiment in unfinished:
            try:
                await self._judge(experiment)
            except Superseded as moved:
                log.info("a row moved during the pass", why=str(moved))
        waiting = [e for e in unfinished if e.state is State.PENDING and not e.wish and e.id not in self._drives]
        if capacity is None:
            if not self._unseen(FIRST_ANSWER_S):
                await self.queue.unanswered(waiting, why)
        else:  # with nobody waiting, too: the queue forgets what it told those who have left
            held = [e for e in unfinished if e.state not in WAITING]
            for experiment in await self.queue.admitted(waiting, held, capacity):
                await self._admit(experiment)

    def _unseen(self, limit_s: float) -> bool:
        """Whether the cluster was not seen yet, and was first asked less than that long ago."""
        return not self.queue.seen and self._asked_at is not None and self.now() - self._asked_at < limit_s

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
        tasks: list[asyncio.Task[Any]] = [task for _, task in self._drives.values()]
        if self._sweeping:
            tasks.append(self._sweeping)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._fetching.leave()

    # --- one experiment ---

    async def _judge(self, experiment: Experiment) -> None:
        driven = self._drives.get(experiment.id)
        wished = {"why": experiment.wish.why, "by": experiment.wish.by} if experiment.wish else None
        if experiment.state not in WAITING:
            if not driven and self._unseen(UNSEEN_S):
                return  # what its machine types mean is not known before the cluster was seen
            drive = driven[0] if driven else self._start(experiment)
            if wished:
                drive.interrupt(Cause.WISHED, **wished)
        elif driven:
            return  # it has just been put back; the next pass sees to it
        elif wished:
            await self._end(experiment, Cause.WISHED, wished)
        elif experiment.state is State.CREATED:
            await self._resolve(experiment)
        elif self.now() - place(experiment) > self.queue_s:
            waited_s = await self.queue.waited_s(experiment)
            if waited_s > self.queue_s:
                await self._end(experiment, Cause.QUEUE_DEADLINE, {"waited_s": waited_s, "limit_s": self.queue_s})

    async def _resolve(self, experiment: Experiment) -> None:
        """CREATED: what can't run is refused, the commit's code is fetched."""
        specification = experiment.specification
        container = next((group.container for group in specification.groups if group.container), None)
        if self.require_container and container:
            why = f"The container {container} can't be used: no container engine is enabled, and one is required."
            await self._end(experiment, Cause.NOT_SUPPORTED, {"why": why})
        else:
            self._fetching.want(experiment)

    async def _end(self, experiment: Experiment, cause: Cause, detail: dict[str, Any]) -> None:
        self._fetching.forget(experiment.id)
        await self.journal.end(experiment, cause, detail)

    async def _admit(self, experiment: Experiment) -> None:
        """A new attempt begins; an archive that has gone meanwhile is fetched again first."""
        if not self._fetching.has(experiment):
            self._fetching.want(experiment)
            return
        if experiment.progress.attempt == 0:
            await self._note_machines(experiment)
        held = Held(before=experiment.held.before)
        try:
            progress = await self.journal.signal(experiment.id, experiment.progress, Signal.ADMITTED, held=held)
        except Superseded as moved:
            log.info("a row moved during the pass", why=str(moved))
            return
        self._start(replace(experiment, progress=progress, held=held, running_at=None, state_at=self.now()))

    def _start(self, experiment: Experiment) -> Drive:
        self._drives_since = self.now() if self._drives_since is None else self._drives_since
        attempt = Attempt(
            experiment_id=experiment.id,
            specification=experiment.specification,
            machines=self.queue.resolve(experiment),
            progress=experiment.progress,
            held=experiment.held,
            code=self.keep.code(code_key(experiment)),
            env=environment(experiment, self.source.repository_url(experiment)),
            storage_key=str(experiment.repository_id),
            trusted=experiment.trusted,
            running_at=experiment.running_at,
            entered_at=experiment.state_at,
            taken_up_at=self._drives_since,
            avoided_hosts=self.queue.away,
        )
        drive = Drive(attempt, self.backend, self.journal, self.keep, self.rules, self.now)
        task = asyncio.create_task(drive.run(), name=f"experiment {experiment.id}")
        task.add_done_callback(self._driven)
        self._drives[experiment.id] = (drive, task)
        return drive

    def _driven(self, task: asyncio.Task[Progress]) -> None:
        if task.cancelled() or task.exception() is None:  # one that broke off waits for the next pass
            self.wake.set()

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

    def _notes(self, experiment: Experiment) -> list[str]:
        notes = []
        for group in experiment.specification.groups:
            if group.container or group.dockerfile:
                what = f"container {group.container}" if group.container else "Dockerfile"
                notes.append(f"The {what} was not used: no container engine is enabled here.")
        return notes

    async def _note_machines(self, experiment: Experiment) -> None:
        """Say what its machine types were taken as: that is known only now that the cluster was seen."""
        known = (self.queue.machines.note(group.machine_type) for group in experiment.specification.groups)
        fresh = tuple(dict.fromkeys(note for note in known if note and note not in experiment.notes))
        if fresh:
            await self.journal.remark(experiment.id, fresh)

    async def _sweep(self) -> None:
        """Clear away what belongs to nobody, beside everything else: a node that hangs must not hold up the others."""
        if not self.connected or self._sweeping or self.now() - self._swept_at < SWEEP_S:
            return
        self._swept_at = self.now()
        sweep = Sweep(self.books, self.backend, self.keep, self.rules.grace_s)
        self._sweeping = asyncio.create_task(sweep.run(), name="sweep")
        self._sweeping.add_done_callback(self._swept)

    def _swept(self, task: asyncio.Task[None]) -> None:
        self._sweeping = None
        if not task.cancelled() and (error := task.exception()):
            log.warning("not everything could be swept", why=str(error))


def environment(experiment: Experiment, repository_url: str) -> dict[str, str]:
    """What the experiment's commands are told of the commit, with the configuration's own variables."""
    model_path = experiment.specification.model_path  # else the node gives its artifacts directory
    return {
        **({"PS_MODEL_PATH": model_path} if model_path else {}),
        "PS_GRADIENT_CI_GIT_REF": experiment.ref,
        "PS_GRADIENT_CI_GIT_SHA": experiment.head_sha,
        "PS_GRADIENT_CI_GIT_REPO_URL": repository_url,
        **experiment.specification.env,
    }
