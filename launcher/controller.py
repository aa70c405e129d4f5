"""Drives one attempt: reserve, prepare, connect, run, tear down; every step may be taken again after any crash."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn

from launcher.asking import POLL_S, Asking, together
from launcher.attempt import Attempt, Ended, Journal, Rules
from launcher.backend import Backend, BackendError
from launcher.experiment import Held, HeldNode
from launcher.gang import Gang
from launcher.keep import Keep
from launcher.log_copy import LogCopy
from launcher.node_types import Exit, NodeError, StartOrder
from launcher.state import HOLDING, Cause, Progress, Signal, State
from launcher.teardown import LEASE_S, TEARDOWN_S, Teardown

__all__ = ["Attempt", "Drive", "Journal", "Rules"]

PROVISIONING_S = 900.0
NETWORK_S = 120.0
WATCH_S = 2.0
WATCH_ANSWER_S = 3.0
"""What the answer to a watch may take longer than the watch."""


@dataclass
class Drive:
    """One attempt on its way; `interrupt` may be called at any time, its first cause counts."""

    attempt: Attempt
    backend: Backend
    journal: Journal
    keep: Keep
    rules: Rules
    now: Callable[[], float]
    progress: Progress = field(init=False)
    held: Held = field(init=False)
    running_at: float | None = field(init=False)

    def __post_init__(self) -> None:
        self.progress = self.attempt.progress
        self.held = self.attempt.held
        self.running_at = self.attempt.running_at
        self._asking = Asking(self.backend)
        self._interruption: asyncio.Future[Ended] = asyncio.get_running_loop().create_future()
        experiment_id, attempt = self.attempt.experiment_id, self.progress.attempt
        self._log = LogCopy(self.keep.log(experiment_id, attempt, self.rules.log_max_bytes))
        self._store = self.keep.artifacts(experiment_id, attempt)

    def interrupt(self, cause: Cause, **detail: Any) -> None:
        """End the attempt for a wish or a shutdown."""
        if not self._interruption.done():
            self._interruption.set_result(Ended(cause, **detail))

    async def run(self) -> Progress:
        """Take the attempt to its end, or to PENDING for another."""
        try:
            while self.progress.state in HOLDING:
                await self._advance()
            if self.progress.state is State.NETWORK_TEARDOWN:
                await self._tear_down()
            return self.progress
        finally:
            self._log.close()

    # --- one state after another ---

    async def _advance(self) -> None:
        steps: dict[State, Callable[[], Awaitable[Signal]]] = {
            State.PROVISIONING: self._provision,
            State.PROVISIONED: self._connect,
            State.NETWORK_SETUP: self._start,
            State.RUNNING: self._watch,
        }
        try:
            signal = await self._bounded(steps[self.progress.state], self._deadline())
        except Ended as end:
            if end.cause is Cause.TIME_LIMIT:
                end = await self._end_before(end)
            await self._record(Signal.ENDED, end)
        else:
            await self._record(signal)

    def _deadline(self) -> tuple[float, Ended]:
        """Seconds that the current state may still take, and the end when they are over."""
        state = self.progress.state
        if state is State.RUNNING:
            left_s = (self.running_at or self.now()) + self._may_run_s - self.now()
            return max(left_s, 0.0), Ended(Cause.TIME_LIMIT, limit_s=self._may_run_s)
        limit_s = PROVISIONING_S if state is State.PROVISIONING else NETWORK_S
        return limit_s, Ended(Cause.DEADLINE, state=state.words, limit_s=limit_s)

    @property
    def _may_run_s(self) -> int:
        return self.attempt.specification.timeout_s or self.rules.time_limit_s

    async def _bounded(self, step: Callable[[], Awaitable[Signal]], deadline: tuple[float, Ended]) -> Signal:
        """The step's fact, unless an interruption or the deadline comes first."""
        if self._interruption.done():
            raise self._interruption.result()
        limit_s, overdue = deadline
        task = asyncio.ensure_future(step())
        try:
            either: set[asyncio.Future[Any]] = {task, self._interruption}
            await asyncio.wait(either, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            raise self._interruption.result() if self._interruption.done() else overdue
        finally:
            if not task.done():
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    async def _record(self, signal: Signal, end: Ended | None = None) -> None:
        cause, detail = (end.cause, end.detail) if end else (None, None)
        self.progress = await self.journal.signal(
            self.attempt.experiment_id, self.progress, signal, cause, detail=detail, held=self.held
        )

    @property
    def _group(self) -> str:
        """The attempt's reservation: known before it is made, so that it can be removed whatever was recorded."""
        return f"exp-{self.attempt.experiment_id}-a{self.progress.attempt}"

    # --- PROVISIONING ---

    async def _provision(self) -> Signal:
        """Reserve the gang, then make code and environment ready on every node."""
        group = self._group
        gang = Gang(self.attempt, self._asking, self.rules, group)
        placed = await gang.place()
        if placed is None:
            self.held = Held()
            await self._hold()  # proves that the attempt is still ours: the group may be in use by who took over
            await self._asking.cluster(lambda: self.backend.release(group))
            return Signal.NOT_PLACED
        self.held = await gang.nodes_of(placed)
        await self._hold()  # before anything is there
        self.held = replace(self.held, nodes=tuple(await together(gang.prepare(node) for node in self.held.nodes)))
        return Signal.NODES_READY

    async def _hold(self) -> None:
        await self.journal.hold(self.attempt.experiment_id, self.progress, self.held)

    # --- PROVISIONED, NETWORK_SETUP ---

    async def _connect(self) -> Signal:
        """Every node has given its address with its facts; one node needs no network document."""
        for node in self.held.nodes:
            if not node.address:
                raise Ended(Cause.PREPARATION_FAILED, node=node.host, why="it gave no address")
        return Signal.NODES_REPORTED

    async def _start(self) -> Signal:
        await together(self._start_on(node) for node in self.held.nodes)
        self.running_at = self.now()
        return Signal.COMMANDS_STARTED

    async def _start_on(self, node: HeldNode) -> None:
        group, machine = self.attempt.specification.groups[0], self.attempt.machines[0]
        order = StartOrder(
            command=group.command,
            env=self.attempt.env | {"ATTEMPT": str(self.progress.tries)},
            gpu_ids=node.gpu_ids,
            isolation=node.isolation,
            memory_bytes=machine.memory_bytes,
            disk_bytes=machine.disk_bytes,
            log_max_bytes=self.rules.log_max_bytes,
            grace_s=self.rules.grace_s,
            lease_s=LEASE_S,
        )
        await self._asking.node(node, lambda: self.backend.agent(node.node_id).start(node.key, order))

    # --- RUNNING ---

    async def _watch(self) -> Signal:
        """Follow every node and its log; only an end comes out of it."""
        logs = [asyncio.ensure_future(self._follow_log(node)) for node in self.held.nodes]
        try:
            await together(self._watch_node(node) for node in self.held.nodes)
        finally:
            for task in logs:
                task.cancel()
            await asyncio.gather(*logs, return_exceptions=True)
        raise AssertionError("watching ends by raising Ended")

    async def _watch_node(self, node: HeldNode) -> NoReturn:
        agent, seen = self.backend.agent(node.node_id), 0
        while True:
            status = await self._asking.status(node)
            if status.phase == "ended" and status.exit:
                raise _end_of(status.exit, node)
            if status.phase == "lost":
                raise Ended(Cause.GUARDIAN_LOST, node=node.host)
            if status.phase != "running":
                raise Ended(Cause.NODE_LOST, node=node.host, why="it does not know the attempt any more")
            await self._check_reservation()
            try:
                async with asyncio.timeout(WATCH_S + WATCH_ANSWER_S):
                    seen = await agent.watch(seen, WATCH_S)
            except (BackendError, NodeError, TimeoutError):
                await asyncio.sleep(POLL_S)  # the next status decides how long that may last

    async def _check_reservation(self) -> None:
        reservation = await self._asking.cluster(lambda: self.backend.reservation(self.held.group))
        if reservation.state in {"lost", "absent"}:
            capacity = await self._asking.cluster(self.backend.capacity)
            if capacity.cluster_id != self.held.cluster_id:
                raise Ended(Cause.HEAD_LOST, why="another one took its place")
            raise Ended(Cause.RESERVATION_LOST, why=reservation.why or reservation.state)

    async def _follow_log(self, node: HeldNode) -> None:
        pause_s = 0.05
        while True:
            try:
                moved = await self._log.pull(self.backend.agent(node.node_id), node.key)
            except (BackendError, NodeError, OSError):
                moved = 0  # the watch decides what a silent node means, the teardown what a full disk here does
            pause_s = 0.05 if moved else min(2 * pause_s, 1.0)
            await asyncio.sleep(pause_s)

    async def _end_before(self, overdue: Ended) -> Ended:
        """The time limit, unless the command ended in time while nobody was here to see it."""
        for node in self.held.nodes:
            try:
                status = await self._asking.status(node)
            except Ended:
                continue
            if status.exit and status.exit.at - (status.started_at or status.exit.at) <= self._may_run_s:
                return _end_of(status.exit, node)
        return overdue

    # --- NETWORK_TEARDOWN ---

    async def _tear_down(self) -> None:
        """Prove every tree empty, keep what it made, then give the group back."""
        unclean = [end for node in self.held.nodes if (end := await self._clear(node))]
        if unclean:
            await self._record(Signal.ENDED, unclean[0])
            return
        await self._release()
        interruption = self._interruption.result() if self._interruption.done() else None
        if self.progress.intended is State.PENDING and interruption and interruption.cause is Cause.WISHED:
            await self._record(Signal.ENDED, interruption)
        if self.progress.intended is State.PENDING:
            self.held = Held()  # an end keeps the record of where it ran
        await self._record(Signal.RELEASED)

    async def _clear(self, node: HeldNode) -> Ended | None:
        """Have a node proven clean; the end where that could not be done."""
        try:
            await Teardown(node, self._asking, self.rules, self._log, self._store, self._not_kept).run()
        except Ended as end:
            await self.journal.quarantine(node.host, str(end.detail["why"]))
            return end
        return None

    async def _not_kept(self, why: str) -> None:
        """Without what it made, a success is none; every other end stays what it is."""
        if self.progress.intended is State.STOPPED:
            await self._record(Signal.ENDED, Ended(Cause.ARTIFACTS_NOT_STORED, why=why))

    async def _release(self) -> None:
        """Give the group back; one that can't be reached now is swept away later."""
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + TEARDOWN_S
        while loop.time() < give_up_at:
            try:
                await self.backend.release(self._group)
                return
            except BackendError:
                await asyncio.sleep(POLL_S)


def _end_of(record: Exit, node: HeldNode) -> Ended:
    """What the end of a command means; one that was stopped was not stopped by us, who do so in NETWORK_TEARDOWN."""
    if record.detail.get("stopped"):
        return Ended(Cause.NODE_LOST, node=node.host, why="it was cut off and ended what it ran")
    return Ended(record.cause, node=node.host, **record.told())
