"""Watches the commands of a gang until its end is known: who decides, and which of several ends came first."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from launcher.asking import POLL_S, Asking
from launcher.attempt import Ended
from launcher.backend import BackendError
from launcher.experiment import Held, HeldNode, NodeState
from launcher.node_types import Daemon, Exit, NodeError, NodeStatus
from launcher.state import VERDICTS, Budget, Cause

WATCH_S = 2.0
WATCH_ANSWER_S = 3.0
"""What the answer to a watch may take longer than the watch."""
SETTLE_S = 0.3
"""How long after one process failed the others are looked at: what failed first may not be on record yet."""
PROMPT_S = 2.0
"""An answer that took longer says nothing of the clocks."""
AVALANCHE_S = 1.0
"""Failures so close together are one; what was killed then comes before what merely exited."""
DAEMON_S = 10.0
"""How long a launching command may go on after a daemon of its own has gone."""
_MPIRUNS_OWN = frozenset({"SIGTERM", "SIGHUP", "SIGPIPE"})
"""How a daemon may end that was told to, or whose mpirun has gone."""


@dataclass(frozen=True)
class NodeEnd:
    """How a node's part ended, at which time of our clock."""

    node: HeldNode
    end: Ended
    at: float
    ran_s: float = 0.0

    @property
    def ours(self) -> bool:
        """It is no fault of the command's."""
        return VERDICTS[self.end.cause].budget is Budget.INFRASTRUCTURE

    @property
    def failed(self) -> bool:
        """It was no success."""
        return self.end.cause is not Cause.SUCCEEDED


@dataclass
class Watch:
    """Follows every node of a gang; only an end comes out of it."""

    held: Held
    asking: Asking
    now: Callable[[], float]
    seen: Callable[[HeldNode], Awaitable[None]]
    """Told of each node whose state has changed."""
    fence_s: float
    """How long the head may be silent: its nodes run on for so long, and a head with a store of its own comes back."""
    linger_s: float = 0.0
    """How long the others may end by themselves, once all that decide have."""
    launches: bool = False
    """A command starts daemons on other nodes, which must end well too."""
    _gone: dict[tuple[str, str], float] = field(default_factory=dict)
    """When daemons were first seen to have ended, by node and id; on the loop's clock."""

    async def run(self) -> Ended:
        """The attempt's end."""
        return await self._with_its_head(await self._until_any_end())

    async def _with_its_head(self, end: Ended) -> Ended:
        """The end of a node that its head took along: another head does not know it, and for that it was fenced."""
        if end.cause is Cause.NODE_LOST:
            with suppress(BackendError):
                if (await self.asking.backend.capacity()).cluster_id != self.held.cluster_id:
                    return _another_head()
        return end

    async def _until_any_end(self) -> Ended:
        nodes = self.held.nodes
        tasks = [asyncio.ensure_future(self._until_end(node)) for node in nodes]
        reservation = asyncio.ensure_future(self._until_reservation_is_lost())
        waited: set[asyncio.Future[Any]] = {*tasks, reservation}
        deciding = {node.key for node in nodes if node.decides}
        try:
            while True:
                done, waited = await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
                if reservation in done:
                    return await self.already() or reservation.result()
                ends = [task.result() for task in done]
                for end in ends:
                    await self._show(end)
                if failed := next((end for end in ends if end.failed), None):
                    return await self._first_cause(failed)
                deciding -= {end.node.key for end in ends}
                if not deciding:
                    return await self._success(ends[-1], waited - {reservation})
        finally:
            for task in (*tasks, reservation):
                task.cancel()
            await asyncio.gather(*tasks, reservation, return_exceptions=True)

    async def already(self, within_s: float = math.inf) -> Ended | None:
        """The end that the gang had come to, within its first seconds of RUNNING, with nobody here to see it.

        What is on the nodes' disks counts, not what Ray says: all are asked at once.
        """
        looked = await asyncio.gather(*(self._end_now(node) for node in self.held.nodes))
        ends = [end for end in looked if end and end.ran_s <= within_s]
        lost = [end for end in looked if end and end.ours]
        if lost:  # a failure beside it may be its consequence
            return first_of(lost).end if len(self.held.nodes) > 1 and within_s == math.inf else None
        if failed := [end for end in ends if end.failed]:
            return first_of(failed).end
        won = self._won(ends)
        return await self._unless_daemons_were_lost(won) if won else None

    def _won(self, ends: Sequence[NodeEnd]) -> NodeEnd | None:
        """The last of those that decide, when all of them have ended well."""
        well = {end.node.key: end for end in ends if not end.failed}
        deciding = [well.get(node.key) for node in self.held.nodes if node.decides]
        known = [end for end in deciding if end]
        return max(known, key=lambda end: end.at) if len(known) == len(deciding) else None

    async def _success(self, last: NodeEnd, others: set[asyncio.Future[Any]]) -> Ended:
        """The deciders have ended well; the others may do so for a while, and none may have failed before."""
        if others and self.linger_s:
            await asyncio.wait(others, timeout=self.linger_s)
        looked = [end for end in await asyncio.gather(*map(self._end_now, self._but(last.node))) if end]
        for end in looked:
            await self._show(end)
        if before := [end for end in looked if end.failed and end.at < last.at - AVALANCHE_S]:
            return first_of(before).end
        return await self._unless_daemons_were_lost(last)

    async def _unless_daemons_were_lost(self, last: NodeEnd) -> Ended:
        lost = await self._any_daemon_lost() if self.launches else None
        return lost or last.end

    def _but(self, node: HeldNode) -> list[HeldNode]:
        return [each for each in self.held.nodes if each.key != node.key]

    # --- one node ---

    async def _until_end(self, node: HeldNode) -> NodeEnd:
        agent, mark, answered_at = self.asking.backend.agent(node.node_id), 0, self.now()
        while True:
            try:
                status, skew_s = await self._status(node)
                answered_at = self.now()
            except Ended as lost:
                if lost.cause is Cause.HEAD_LOST and self.now() - answered_at < self.fence_s:
                    continue
                return NodeEnd(node, lost, self.now())
            if end := self._known_end(node, status, skew_s):
                return end
            if overdue := self._overdue(node, status):
                return NodeEnd(node, overdue, self.now())
            try:
                async with asyncio.timeout(WATCH_S + WATCH_ANSWER_S):
                    mark = await agent.watch(mark, WATCH_S)
            except (BackendError, NodeError, TimeoutError):
                await asyncio.sleep(POLL_S)  # the next status decides how long that may last

    async def _status(self, node: HeldNode) -> tuple[NodeStatus, float]:
        """Where a node stands, and how far its clock is ahead of ours, in seconds."""
        asked = self.now()
        status = await self.asking.status(node)
        answered = self.now()
        prompt = status.clock and answered - asked < PROMPT_S  # else it was asked again meanwhile
        return status, status.clock - (asked + answered) / 2 if prompt else 0.0

    def _overdue(self, node: HeldNode, status: NodeStatus) -> Ended | None:
        """The end of a gang whose launching command goes on without one of its daemons: it may never end."""
        loop = asyncio.get_running_loop()
        for daemon in status.daemons:
            if daemon.at is None or not (daemon.exit_code or daemon.signal):
                continue
            since = self._gone.setdefault((node.key, daemon.id), loop.time())
            if loop.time() - since > DAEMON_S:
                return _daemon_lost(node, daemon)
        return None

    async def _until_reservation_is_lost(self) -> Ended:
        """What Ray says of it, when it says anything: of its silence the nodes' watches hear too."""
        backend = self.asking.backend
        while True:
            with suppress(BackendError):
                reservation = await backend.reservation(self.held.group)
                if reservation.state in {"lost", "absent"}:
                    if (await backend.capacity()).cluster_id != self.held.cluster_id:
                        return _another_head()
                    return Ended(Cause.RESERVATION_LOST, why=reservation.why or reservation.state)
            await asyncio.sleep(WATCH_S)

    async def _show(self, end: NodeEnd) -> None:
        await self.seen(shown(end))

    # --- which was the first ---

    async def _first_cause(self, failed: NodeEnd) -> Ended:
        """Look at every node before one is blamed: a failure may be what another's loss made of it."""
        if len(self.held.nodes) == 1:
            return failed.end
        await asyncio.sleep(SETTLE_S)
        others = self._but(failed.node)
        looks = await asyncio.gather(*map(self._end_now, others))
        looked = [failed, *filter(None, looks)]
        for end in looked[1:]:
            await self._show(end)
        ends = [end for end in looked if end.failed]
        first = first_of(ends)
        won = self._won(looked)
        if won and not first.ours and first.at >= won.at - AVALANCHE_S:  # the master's end made the others fail
            return await self._unless_daemons_were_lost(won)
        running = [node for node, end in zip(others, looks, strict=True) if end is None]
        if self.launches:
            begun_at = min(end.at for end in ends)
            first = first_of([*ends, *(end for end in await self._daemons_killed(running) if end.at <= begun_at)])
        stopped = sum(node.key != first.node.key for node in running)
        first.end.detail.update({"others": stopped} if stopped else {})
        return first.end

    async def _end_now(self, node: HeldNode) -> NodeEnd | None:
        """How a node's part has ended, if it has; of a silent head's nodes nothing is known."""
        try:
            status, skew_s = await self._status(node)
        except Ended as lost:
            return None if lost.cause is Cause.HEAD_LOST else NodeEnd(node, lost, self.now())
        return self._known_end(node, status, skew_s)

    def _known_end(self, node: HeldNode, status: NodeStatus, skew_s: float) -> NodeEnd | None:
        end, record = end_of(node, status), status.exit
        if end is None:
            return None
        if record is None:
            return NodeEnd(node, end, self.now())
        at = record.at - skew_s
        if "at" in end.detail:
            end.detail["at"] = at
        return NodeEnd(node, end, at, ran_s=record.at - (status.started_at or record.at))

    async def _daemons_killed(self, nodes: Sequence[HeldNode]) -> list[NodeEnd]:
        """The daemons that were killed on nodes that go on: an mpirun that fails for that says nothing of it."""
        found: list[NodeEnd] = []
        for node in nodes:
            with suppress(Ended):
                status, skew_s = await self._status(node)
                gone = [daemon for daemon in status.daemons if daemon.at and daemon.signal not in {None, *_MPIRUNS_OWN}]
                found += [NodeEnd(node, _daemon_lost(node, daemon), (daemon.at or 0.0) - skew_s) for daemon in gone]
        return found

    async def _any_daemon_lost(self) -> Ended | None:
        """Open MPI 5 ends with 0 although a daemon was killed: its word alone is no success."""
        for node in self.held.nodes:
            try:
                status, _ = await self._status(node)
            except Ended as lost:
                return lost
            for daemon in status.daemons:
                if daemon.exit_code or daemon.signal:
                    return _daemon_lost(node, daemon)
        return None


def first_of(ends: list[NodeEnd]) -> NodeEnd:
    """The first cause among the ends of one gang. Pure.

    What is ours (a node, a guardian lost) comes before what a command did, which may be its consequence. Among commands
    the earliest counts; within AVALANCHE_S one that was killed, or ran out of something, comes before one that exited.
    """
    ours = [end for end in ends if end.ours]
    if ours:
        return min(ours, key=lambda end: end.at)
    earliest = min(end.at for end in ends)
    return min(
        (end for end in ends if end.at <= earliest + AVALANCHE_S),
        key=lambda end: (end.end.cause is Cause.COMMAND_EXITED, end.at),
    )


def shown(end: NodeEnd) -> HeldNode:
    """The node as a person is shown it after its end. Pure."""
    if end.ours:
        return replace(end.node, state=NodeState.LOST)
    detail: Mapping[str, Any] = end.end.detail
    code = 0 if end.end.cause is Cause.SUCCEEDED else detail.get("exit_code")
    return replace(end.node, state=NodeState.ENDED, exit_code=code, signal=detail.get("signal"))


def _another_head() -> Ended:
    return Ended(Cause.HEAD_LOST, why="another one took its place")


def end_of(node: HeldNode, status: NodeStatus) -> Ended | None:
    """What a node's word means for the attempt; None while its command runs. Pure.

    A command that was stopped was not stopped by us, who do so in NETWORK_TEARDOWN only.
    """
    if status.phase == "ended" and status.exit:
        return _of_record(status.exit, node)
    if status.phase == "lost":
        return Ended(Cause.GUARDIAN_LOST, node=node.host)
    if status.phase != "running":
        return Ended(Cause.NODE_LOST, node=node.host, why="it does not know the attempt any more")
    return None


def _of_record(record: Exit, node: HeldNode) -> Ended:
    if record.detail.get("put_down"):
        return Ended(Cause.SHUTDOWN)
    if record.detail.get("stopped"):
        return Ended(Cause.NODE_LOST, node=node.host, why="it was cut off and ended what it ran")
    who = {"who": node.words, "rank": node.rank, "at": record.at} if node.role else {}
    return Ended(record.cause, node=node.host, **who, **record.told())


def _daemon_lost(node: HeldNode, daemon: Daemon) -> Ended:
    how = f"was killed by {daemon.signal}" if daemon.signal else f"exited with code {daemon.exit_code}"
    return Ended(Cause.DAEMON_LOST, node=node.host, who=node.words, rank=node.rank, why=how)
