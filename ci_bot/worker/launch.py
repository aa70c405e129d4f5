"""The launch loop: what the rows want of Ray, compared with what is, one next step at a time."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, replace
from typing import Any

import structlog
from sqlalchemy import Connection
from sqlalchemy.exc import InterfaceError, OperationalError

from ci_bot.records import Experiment
from ci_bot.store import quarantine
from ci_bot.store import queue as rows
from ci_bot.store.engine import LeaseLost
from ci_bot.store.quarantine import Quarantined
from ci_bot.store.queue import Queued
from ci_bot.worker.books import Books
from ci_bot.worker.fetching import (
    CODE_S,
    DEFECT,
    Fetching,
    Source,
    SourceGone,
    SourceRefused,
    SourceUnavailable,
    code_key,
)
from ci_bot.worker.journal import Journal, Superseded
from ci_bot.worker.queue import Queue
from ci_bot.worker.sweep import Sweep
from ci_bot.worker.waiting import any_of
from launcher.backend import Backend, BackendError, Capacity
from launcher.controller import Attempt, Drive, Rules
from launcher.experiment import Held
from launcher.keep import Keep
from launcher.machines import Machines
from launcher.placement import Limits
from launcher.state import WAITING, Cause, Progress, Signal, State

__all__ = ["Launch", "Source", "SourceGone", "SourceRefused", "SourceUnavailable", "code_key", "environment"]

PASS_S = 1.0
SWEEP_S = 30.0
BROKEN_S = 30.0
"""Between two tries at a row that could not be seen to."""
MOST_CREATED = 32
"""Of how many that are new a pass sees to the code."""
FIRST_ANSWER_S = 10.0
"""What the first connection may take before anybody is told of Ray's silence."""
UNSEEN_S = 600.0
"""How long what an attempt holds waits for a cluster that was never seen; then the attempt's own deadlines end it."""
Rows = tuple[list[Experiment], list[Experiment], tuple[list[Queued], set[int] | None], list[Quarantined]]
"""Those under way, those that wait and are seen to in this pass, of the queue what has come, hosts not proven clean."""
log = structlog.get_logger()


@dataclass
class Launch:
    """One pass after another over what is under way and what waits; holds nothing that the rows don't say."""

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
    _broken: dict[int, float] = field(default_factory=dict)
    """Rows that could not be seen to, and when each is tried again."""
    _asked_at: float | None = None
    """When the cluster was first asked in vain."""
    _drives_since: float | None = None
    """When the first attempt was taken up, and with it every one that a former worker left."""

    def __post_init__(self) -> None:
        self.journal = Journal(self.books, self.changed, self._moved, self.now)
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

    def _moved(self, experiment_id: int, old: Progress, new: Progress) -> None:
        self._broken.pop(experiment_id, None)
        self.queue.moved(experiment_id, old, new)

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
        seen_to, due = self._fetching.seen_to() | self._put_off(), self.queue.due(self._drives)

        def read(connection: Connection) -> Rows:
            waiting = [*rows.unwanted(connection), *rows.created(connection, MOST_CREATED, besides=seen_to)]
            return rows.under_way(connection), waiting, due.read(connection), quarantine.hosts(connection)

        held, waiting, (come, pending), away = await self.books.read(read)
        self.queue.take(due, come, pending)
        if held or waiting or self.queue.line:
            await self._look(held, waiting, away)
        await self._sweep()

    async def _look(self, held: list[Experiment], waiting: list[Experiment], away: list[Quarantined]) -> None:
        capacity, why = None, ""
        try:
            capacity = await self.queue.look(away)
        except BackendError as error:
            why = str(error)
            self._asked_at = self.now() if self._asked_at is None else self._asked_at
            if not self._unseen(FIRST_ANSWER_S):
                log.warning("ray does not answer", why=why)
        for experiment in {each.id: each for each in (*held, *waiting)}.values():
            await self._apart(experiment, self._judge(experiment))
        for experiment, waited_s in await self.queue.overdue(self.queue_s):
            detail = {"waited_s": waited_s, "limit_s": self.queue_s}
            await self._apart(experiment, self._end(experiment, Cause.QUEUE_DEADLINE, detail))
        if capacity is not None:
            await self._start_who_may(held, capacity)
        elif not self._unseen(FIRST_ANSWER_S):
            await self.queue.unanswered(why)

    async def _start_who_may(self, held: list[Experiment], capacity: Capacity) -> None:
        if not self.queue.has_room:
            await self.queue.tell_no_room()
            return
        for experiment, why in await self.queue.impossible():
            await self._apart(experiment, self._end(experiment, Cause.UNSATISFIABLE, {"why": why}))
        decision = self.queue.decide(held, capacity)
        for experiment in await self.queue.admitted(decision):
            await self._apart(experiment, self._admit(experiment))
        await self.queue.tell(decision)

    async def _apart(self, experiment: Experiment, step: Coroutine[Any, Any, None]) -> None:
        """One row's step: what goes wrong in it holds up no other row, and is not tried again at once."""
        if experiment.id in self._put_off():
            step.close()
            return
        try:
            await step
        except Superseded as moved:
            log.info("a row moved during the pass", why=str(moved))
            self.queue.doubt()
        except (LeaseLost, BackendError, InterfaceError, OperationalError):  # no row's: lease, cluster or database
            raise
        except Exception:
            log.exception("a row could not be seen to: this is a defect of Descent's", experiment_id=experiment.id)
            self._broken[experiment.id] = self.now() + BROKEN_S

    def _put_off(self) -> set[int]:
        """Rows that could not be seen to a moment ago."""
        return {number for number, until in self._broken.items() if until > self.now()}

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

    async def _resolve(self, experiment: Experiment) -> None:
        """CREATED: what can't run is refused, the commit's code is fetched."""
        specification = experiment.specification
        container = next((group.container for group in specification.groups if group.container), None)
        if self.require_container and container:
            why = f"The container {container} can't be used: no container engine is enabled, and one is required."
            await self._end(experiment, Cause.NOT_SUPPORTED, {"why": why})
        elif experiment.id in self._broken and (waited_s := self.now() - experiment.created_at) > CODE_S:
            await self._end(experiment, Cause.NOT_FETCHABLE, {"waited_s": waited_s, "why": DEFECT})
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
        held = Held(before=experiment.held.before, lost=experiment.held.lost)
        progress = await self.journal.signal(experiment.id, experiment.progress, Signal.ADMITTED, held=held)
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
