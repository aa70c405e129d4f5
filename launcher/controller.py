"""Drives one attempt: reserve, prepare, connect, run, tear down; every step may be taken again after any crash."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from launcher.asking import POLL_S, Asking, together
from launcher.attempt import Attempt, Ended, Journal, Rules
from launcher.backend import Backend, BackendError
from launcher.experiment import Held, HeldNode, NodeState
from launcher.gang import Gang
from launcher.keep import Keep
from launcher.log_copy import LogCopy
from launcher.network_setup import NetworkSetup, is_gang
from launcher.node_types import NodeError
from launcher.state import HOLDING, Cause, Progress, Signal, State
from launcher.teardown import TEARDOWN_S, Kept, Teardown
from launcher.topology import shape_of
from launcher.watch import Watch

__all__ = ["Attempt", "Drive", "Journal", "Rules"]

PROVISIONING_S = 900.0
NETWORK_S = 120.0
RETURNED_S = 60.0
"""What PROVISIONING may take at least after each piece of an earlier attempt's artifacts that a node has got back: of
those there may be 200 GB, which no fixed deadline fits. One that does not get on with them is ended all the same."""
TAKEN_UP_S = 60.0
"""What a state may take at least after a worker took the attempt up, however long there was none."""


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
    entered_at: float = field(init=False)

    def __post_init__(self) -> None:
        self.progress = self.attempt.progress
        self.held = self.attempt.held
        self.running_at = self.attempt.running_at
        self.entered_at = self.attempt.entered_at
        self._asking = Asking(self.backend)
        self._interruption: asyncio.Future[Ended] = asyncio.get_running_loop().create_future()
        self._logs: dict[int, LogCopy] = {}
        self._telling = asyncio.Lock()
        self._not_before = -math.inf
        """On the loop's clock: the deadline of the current state is not over before."""

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
            for log in self._logs.values():
                log.close()

    # --- one state after another ---

    async def _advance(self) -> None:
        steps: dict[State, Callable[[], Awaitable[Signal]]] = {
            State.PROVISIONING: self._provision,
            State.PROVISIONED: self._report,
            State.NETWORK_SETUP: self._start,
            State.RUNNING: self._follow,
        }
        try:
            signal = await self._bounded(steps[self.progress.state], self._deadline())
        except Ended as end:
            if end.cause is Cause.TIME_LIMIT:
                end = await self._watch.already(self._may_run_s) or end  # nobody may have been here to see it
            await self._record(Signal.ENDED, end)
        else:
            await self._record(signal)

    def _deadline(self) -> tuple[float, Ended]:
        """Seconds that the current state may still take, and the end when they are over.

        They count from when the state was entered, so that workers that come and go don't make them longer. But a
        worker's absence is not the attempt's fault: what could simply go on gets TAKEN_UP_S from each worker to do so.
        Only workers that all die sooner than that prolong it for ever, and under them nothing else goes on either.
        """
        state, now = self.progress.state, self.now()
        if state is State.RUNNING:
            left_s = (self.running_at or now) + self._may_run_s - now
            return max(left_s, 0.0), Ended(Cause.TIME_LIMIT, limit_s=self._may_run_s)
        limit_s = PROVISIONING_S if state is State.PROVISIONING else NETWORK_S
        left_s = max(self.entered_at + limit_s, self.attempt.taken_up_at + TAKEN_UP_S) - now
        # never longer than the limit: the clock may have been set back
        return min(max(left_s, 0.0), limit_s), Ended(Cause.DEADLINE, state=state.words, limit_s=limit_s)

    @property
    def _may_run_s(self) -> int:
        return self.attempt.specification.timeout_s or self.rules.time_limit_s

    async def _bounded(self, step: Callable[[], Awaitable[Signal]], deadline: tuple[float, Ended]) -> Signal:
        """The step's fact, unless an interruption or the deadline comes first."""
        if self._interruption.done():
            raise self._interruption.result()
        limit_s, overdue = deadline
        loop = asyncio.get_running_loop()
        until, self._not_before = loop.time() + limit_s, -math.inf
        task = asyncio.ensure_future(step())
        try:
            either: set[asyncio.Future[Any]] = {task, self._interruption}
            done, left_s = set[asyncio.Future[Any]](), limit_s
            while not done:
                done, _ = await asyncio.wait(either, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
                if (left_s := max(until, self._not_before) - loop.time()) <= 0:
                    break
            if task.done():
                return task.result()
            raise self._interruption.result() if self._interruption.done() else overdue
        finally:
            if not task.done():
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    async def _record(self, signal: Signal, end: Ended | None = None) -> None:
        cause, detail = (end.cause, end.detail) if end else (None, None)
        if end and end.cause is Cause.NODE_LOST:
            for node in self.held.nodes:
                if node.host == end.detail["node"] and node.state is not NodeState.ENDED:
                    self._update(replace(node, state=NodeState.LOST))
        self.entered_at = self.now()
        self.progress = await self.journal.signal(
            self.attempt.experiment_id, self.progress, signal, cause, detail=detail, held=self.held
        )

    @property
    def _group(self) -> str:
        """The attempt's reservation: known before it is made, so that it can be removed whatever was recorded."""
        return f"{self.rules.group_prefix}exp-{self.attempt.experiment_id}-a{self.progress.attempt}"

    # --- PROVISIONING ---

    async def _provision(self) -> Signal:
        """Reserve the gang, then make code and environment ready on every node."""
        group = self._group
        gang = Gang(self.attempt, self._asking, self.rules, group, self.keep, self._returned)
        placed = await gang.place(self.held.lost)
        if placed is None:  # the next time a host that was lost will do too
            self.held = Held(before=self.held.before)
            await self._hold()  # proves that the attempt is still ours: the group may be in use by who took over
            await self._asking.cluster(lambda: self.backend.release(group))
            return Signal.NOT_PLACED
        self.held = replace(await gang.nodes_of(placed), before=self.held.before)
        offsets = [asyncio.ensure_future(gang.code_offset(node)) for node in self.held.nodes]  # beside the record
        try:
            await self._hold()  # before anything is there
            await self._tell_of_storage(self.held.before)
            pairs = zip(self.held.nodes, offsets, strict=True)
            prepared = together(gang.prepare(node, offset) for node, offset in pairs)
            self.held = replace(self.held, nodes=tuple(await self._asking.while_reserved(self.held, prepared)))
        finally:
            for offset in offsets:
                offset.cancel()
            await asyncio.gather(*offsets, return_exceptions=True)
        return Signal.NODES_READY

    def _returned(self) -> None:
        self._not_before = asyncio.get_running_loop().time() + RETURNED_S

    async def _tell_of_storage(self, before: tuple[str, ...]) -> None:
        elsewhere = sorted({node.host for node in self.held.nodes} - set(before))
        if before and elsewhere and not self.rules.shared_storage:
            note = (
                f"/storage begins empty, or as an older experiment left it, on {', '.join(elsewhere)}: the attempt "
                f"before ran on {', '.join(before)}, and STORAGE_DIR is not set to a file system that all nodes share."
            )
            await self.journal.remark(self.attempt.experiment_id, [note])

    async def _hold(self) -> None:
        await self.journal.hold(self.attempt.experiment_id, self.progress, self.held)

    # --- PROVISIONED, NETWORK_SETUP ---

    @property
    def _network(self) -> NetworkSetup:
        return NetworkSetup(self.attempt, self._asking, self.rules, self.progress.tries)

    async def _report(self) -> Signal:
        """Every node has given its address with its facts, and reserves the ports that the gang needs there."""
        self.held = await self._asking.while_reserved(self.held, self._network.reserve(self.held))
        return Signal.NODES_REPORTED

    async def _start(self) -> Signal:
        """Tell the nodes of each other and connect them, once, since some may have begun after that; then start."""
        if is_gang(self.held) and not self.held.connected:
            await self._asking.while_reserved(self.held, self._network.connect(self.held))
            self.held = replace(self.held, connected=True)
            await self._hold()
        self.held = await self._asking.while_reserved(self.held, self._network.start(self.held))
        self.running_at = self.now()
        return Signal.COMMANDS_STARTED

    # --- RUNNING ---

    async def _follow(self) -> Signal:
        """Follow every node and its log; only an end comes out of it."""
        logs = [asyncio.ensure_future(self._follow_log(rank)) for rank in range(len(self.held.nodes))]
        try:
            raise await self._watch.run()
        finally:
            for task in logs:
                task.cancel()
            await asyncio.gather(*logs, return_exceptions=True)

    @property
    def _watch(self) -> Watch:
        shape = shape_of(self.attempt.specification)
        return Watch(
            self.held,
            self._asking,
            self.now,
            self._seen,
            fence_s=self.rules.fence_s,
            linger_s=shape.linger_s,
            launches=shape.launches,
        )

    async def _seen(self, seen: HeldNode) -> None:
        """Keep what a node has come to; of a single one it is recorded with the end that follows."""
        self._update(seen)
        if len(self.held.nodes) > 1:
            await self._hold()

    def _update(self, changed: HeldNode) -> None:
        nodes = (changed if node.key == changed.key else node for node in self.held.nodes)
        self.held = replace(self.held, nodes=tuple(nodes))

    async def _follow_log(self, rank: int) -> None:
        node, pause_s = self.held.nodes[rank], 0.05
        while True:
            try:
                moved = await self._log(rank).pull(self.backend.agent(node.node_id), node.key)
            except (BackendError, NodeError, OSError):
                moved = 0  # the watch decides what a silent node means, the teardown what a full disk here does
            pause_s = 0.05 if moved else min(2 * pause_s, 1.0)
            await asyncio.sleep(pause_s)

    def _log(self, rank: int) -> LogCopy:
        if rank not in self._logs:
            experiment_id, attempt = self.attempt.experiment_id, self.progress.attempt
            self._logs[rank] = LogCopy(self.keep.log(experiment_id, attempt, rank, self.rules.log_max_bytes))
        return self._logs[rank]

    # --- NETWORK_TEARDOWN ---

    async def _tear_down(self) -> None:
        """Prove every tree empty, keep what it made, then give the group back."""
        unclean = [end for end in await together(map(self._clear, range(len(self.held.nodes)))) if end]
        if unclean:
            await self._record(Signal.ENDED, _in_one(unclean))
            return
        await self._release()
        interruption = self._interruption.result() if self._interruption.done() else None
        if self.progress.intended is State.PENDING and interruption and interruption.cause is Cause.WISHED:
            await self._record(Signal.ENDED, interruption)
        if self.progress.intended is State.PENDING:  # an end keeps the record of where it ran
            before = tuple(node.host for node in self.held.nodes) or self.held.before
            self.held = Held(before=before, lost=tuple(sorted(_lost_with(self.held.nodes))))
        await self._record(Signal.RELEASED)

    async def _clear(self, rank: int) -> Ended | None:
        """Have a node proven clean; the end where that could not be done."""
        node = self.held.nodes[rank]
        store = self.keep.artifacts(self.attempt.experiment_id, self.progress.attempt, node.place)
        try:
            told = partial(self._not_kept, node)
            await Teardown(node, self._asking, self.rules, self._log(rank), store, told).run()
        except Ended as end:
            await self.journal.quarantine(node.host, str(end.detail["why"]))
            return end
        if node.state not in {NodeState.ENDED, NodeState.LOST}:
            self._update(replace(self.held.nodes[rank], state=NodeState.STOPPED))
        return None

    async def _not_kept(self, node: HeldNode, what: Kept, why: str) -> None:
        """Without what it made, a success is none; every other end stays what it is, and a reader is told."""
        async with self._telling:  # several nodes may say so at once
            intended = self.progress.intended
            if intended is State.STOPPED:
                why = why if what == "artifacts" else f"the log could not be kept: {why}"
                await self._record(Signal.ENDED, Ended(Cause.ARTIFACTS_NOT_STORED, why=why))
                return
            note = f"The {what} of attempt {self.progress.attempt} on {node.words} could not be kept: {why}."
            if intended is State.PENDING and what == "artifacts":
                note += " A next attempt begins without them."
            await self.journal.remark(self.attempt.experiment_id, [note])

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


def _lost_with(nodes: Sequence[HeldNode]) -> set[str]:
    return {node.host for node in nodes if node.state is NodeState.LOST}


def _in_one(unclean: Sequence[Ended]) -> Ended:
    """The end that names every host which was not proven clean, and why."""
    hosts = dict.fromkeys(str(end.detail["node"]) for end in unclean)
    if len(hosts) == 1:
        return unclean[0]
    whys = dict.fromkeys(f"{end.detail['node']}: {end.detail['why']}" for end in unclean)
    told = {"node": ", ".join(hosts), "why": "; ".join(whys)}
    return Ended(Cause.NOT_PROVEN_CLEAN, **(unclean[0].detail | told))
