"""Watches the commands of a gang until its end is known: who decides, and which of several ends came first."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from launcher.asking import NODE_LOST_S, POLL_S, Asking, another_head, together
from launcher.attempt import Ended
from launcher.backend import BackendError
from launcher.experiment import Held, HeldNode
from launcher.first_cause import NodeEnd, daemon_lost, decided, end_of, first_of, is_loss, shown
from launcher.node_types import Daemon, NodeError, NodeStatus
from launcher.state import Cause

WATCH_S = 2.0
WATCH_ANSWER_S = 3.0
"""What the answer to a watch may take longer than the watch."""
ANSWER_S = 3.0
"""What an answer may take at least, however long the node was not heard of before."""
LOOK_S = 1.0
"""What is left of NODE_LOST_S, once a node of a gang is lost, to look at all the others."""
SETTLE_S = 0.3
"""How long after one process failed the others are looked at: what failed first may not be on record yet."""
PROMPT_S = 2.0
"""An answer that took longer says nothing of the clocks."""
CLOCK_S = 60.0
"""How long the promptest answer counts for a clock."""
DAEMON_S = 10.0
"""How long a launching command may go on after a daemon of its own was lost."""


@dataclass(frozen=True)
class Heard:
    """What was last heard of a node: when, on the loop's clock; and of its clock, by the promptest answer of late."""

    at: float
    running_at: float = -math.inf
    """When it was asked and its command ran, on our clock."""
    skew_s: float = 0.0
    took_s: float = math.inf
    clock_at: float = -math.inf


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
    _heard: dict[str, Heard] = field(default_factory=dict)
    """By node."""
    _mpirun_gone: dict[str, float] = field(default_factory=dict)
    """When the mpirun of a daemon had gone, by the daemon's id; on our clock."""
    _lost: dict[tuple[str, str], float] = field(default_factory=dict)
    """When daemons were first seen to be lost, by node and id; on the loop's clock."""
    _asked: dict[str, float] = field(default_factory=dict)
    """When a node was first asked since it was last heard, on the loop's clock."""
    _said: dict[str, NodeStatus] = field(default_factory=dict)
    """The last word of each node."""
    _over: set[str] = field(default_factory=set)
    """The nodes that have ended: nobody listens to them any more."""

    async def run(self) -> Ended:
        """The attempt's end."""
        return await self._with_its_head(await self._until_any_end())

    async def _with_its_head(self, end: Ended) -> Ended:
        """The end of a node that its head took along: another head does not know it, and for that it was fenced."""
        if end.cause is Cause.NODE_LOST:
            with suppress(BackendError):
                if (await self.asking.backend.capacity()).cluster_id != self.held.cluster_id:
                    return another_head()
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
                self._over |= {end.node.key for end in ends if not end.ours}
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
        by = self._looked_by()
        looked = [end for end in await asyncio.gather(*(self._end_now(node, by) for node in self.held.nodes)) if end]
        if any(end.ours for end in looked):  # a failure beside it may be its consequence
            failed = [end for end in looked if end.failed]
            return first_of(failed).end if len(self.held.nodes) > 1 and within_s == math.inf else None
        return await self._verdict(decided([end for end in looked if end.ran_s <= within_s], self.held.nodes))

    async def _success(self, last: NodeEnd, others: set[asyncio.Future[Any]]) -> Ended:
        """The deciders have ended well; the others may do so for a while, and none may have failed before."""
        if others and self.linger_s:
            await asyncio.wait(others, timeout=self.linger_s)
        by = self._looked_by()
        looks = await asyncio.gather(*(self._end_now(node, by) for node in self._but(last.node)))
        looked = [end for end in looks if end]
        for end in looked:
            await self._show(end)
        known = [end for end in looked if not end.ours or end.at < last.at]
        return await self._verdict(decided([last, *known], self.held.nodes)) or last.end

    async def _verdict(self, end: NodeEnd | None) -> Ended | None:
        """The end that it means, which is no success where a daemon was lost."""
        if end is None:
            return None
        return (await self._any_daemon_lost() if self.launches and not end.failed else None) or end.end

    def _but(self, node: HeldNode) -> list[HeldNode]:
        return [each for each in self.held.nodes if each.key != node.key]

    # --- one node ---

    async def _until_end(self, node: HeldNode) -> NodeEnd:
        agent, mark, answered_at = self.asking.backend.agent(node.node_id), 0, self.now()
        while True:
            try:
                status = await self._status(node)
                answered_at = self.now()
            except Ended as lost:
                if lost.cause is Cause.HEAD_LOST and self.now() - answered_at < self.fence_s:
                    continue
                return self._lost_end(node, lost)
            if end := self._known_end(node, status):
                return end
            if overdue := self._overdue(node, status):
                return NodeEnd(node, overdue, self.now())
            try:
                async with asyncio.timeout(WATCH_S + WATCH_ANSWER_S):
                    mark = await agent.watch(mark, WATCH_S)
                self._hear(node)
            except (BackendError, NodeError, TimeoutError):
                await asyncio.sleep(POLL_S)  # the next status decides how long that may last

    async def _status(self, node: HeldNode, by: float = math.inf) -> NodeStatus:
        """Where a node stands, if it answers in the time that is left to it, and by then on the loop's clock."""
        asked, now, due = self.now(), asyncio.get_running_loop().time(), self._due(node)
        silent_s = now - self._heard[node.key].at if node.key in self._heard else 0.0
        try:
            status = await self.asking.status(
                node,
                cluster_id=self.held.cluster_id,
                within_s=max(min(due, by) - now, 0.0),
                silent_s=silent_s,
            )
        except Ended as lost:
            if lost.cause is Cause.HEAD_LOST:
                self._hear(node)  # of a silent head's nodes nothing is known: they are silent from when it answers
            raise
        self._hear(node)
        self._said[node.key] = status
        self._compare_clocks(node, status, asked)
        if status.phase == "running":
            self._heard[node.key] = replace(self._heard[node.key], running_at=asked)
        for daemon_id, gone_at in status.mpirun_gone.items():
            self._mpirun_gone[daemon_id] = gone_at - self._heard[node.key].skew_s
        return status

    def _due(self, node: HeldNode) -> float:
        """When a node that is asked now is lost, unless it is heard before; on the loop's clock."""
        asked_at = self._asked.setdefault(node.key, asyncio.get_running_loop().time())
        heard_at = self._heard[node.key].at if node.key in self._heard else asked_at
        return max(heard_at + self._patience_s, asked_at + ANSWER_S)

    @property
    def _patience_s(self) -> float:
        return NODE_LOST_S - (LOOK_S if len(self.held.nodes) > 1 else 0.0)

    def _looked_by(self) -> float:
        """When a look at all the nodes is over, on the loop's clock.

        Nodes are lost together, or one after the other, with a switch or a rack: the first of them says when.
        """
        now = asyncio.get_running_loop().time()
        due = [self._due(node) for node in self.held.nodes if node.key not in self._over]
        return max(now, min(due, default=now + ANSWER_S)) + LOOK_S

    def _hear(self, node: HeldNode) -> None:
        at = asyncio.get_running_loop().time()
        self._asked.pop(node.key, None)
        self._heard[node.key] = replace(self._heard.get(node.key, Heard(at)), at=at)

    def _compare_clocks(self, node: HeldNode, status: NodeStatus, asked: float) -> None:
        """Learn how far a node's clock is ahead of ours."""
        answered, heard = self.now(), self._heard[node.key]
        took_s, old = answered - asked, heard.at - heard.clock_at > CLOCK_S
        if status.clock and 0 <= took_s < PROMPT_S and (old or took_s <= heard.took_s):
            skew_s = status.clock - (asked + answered) / 2
            self._heard[node.key] = replace(heard, skew_s=skew_s, took_s=took_s, clock_at=heard.at)

    def _our_time(self, node: HeldNode, theirs: float) -> float:
        return theirs - self._heard[node.key].skew_s

    def _is_loss(self, node: HeldNode, daemon: Daemon) -> bool:
        at = self._our_time(node, daemon.at or 0.0)
        return is_loss(daemon, at, self._mpirun_gone.get(daemon.id))

    def _overdue(self, node: HeldNode, status: NodeStatus) -> Ended | None:
        """The end of a gang whose launching command goes on without one of its daemons: it may never end."""
        now = asyncio.get_running_loop().time()
        for daemon in status.daemons:
            since = self._lost.setdefault((node.key, daemon.id), now) if self._is_loss(node, daemon) else now
            if now - since > DAEMON_S:
                return daemon_lost(node, daemon)
        return None

    async def _until_reservation_is_lost(self) -> Ended:
        while True:
            if lost := await self.asking.reservation_lost(self.held):
                return lost
            await asyncio.sleep(WATCH_S)

    async def _show(self, end: NodeEnd) -> None:
        await self.seen(shown(end))

    # --- which was the first ---

    async def _first_cause(self, failed: NodeEnd) -> Ended:
        """Look at every node before one is blamed: a failure may be what another's loss made of it."""
        if len(self.held.nodes) == 1:
            return failed.end
        by, others, began_at = self._looked_by(), self._but(failed.node), asyncio.get_running_loop().time()
        await asyncio.sleep(SETTLE_S)
        looks = await asyncio.gather(*(self._end_now(node, by) for node in others))
        looked = [failed, *filter(None, looks)]
        for end in looked[1:]:
            await self._show(end)
        first = decided(looked, self.held.nodes) or failed
        if not first.failed:  # the master's end made the others fail
            return await self._verdict(first) or first.end
        unended = [node for node, end in zip(others, looks, strict=True) if end is None]
        running = [node for node in unended if node.key in self._heard and self._heard[node.key].at >= began_at]
        if self.launches:
            begun_at = min(end.at for end in looked if end.failed)
            first = first_of([first, *(end for end in self._daemons_killed(unended) if end.at <= begun_at)])
        stopped = sum(node.key != first.node.key for node in running)
        first.end.detail.update({"others": stopped} if stopped else {})
        return first.end

    async def _end_now(self, node: HeldNode, by: float) -> NodeEnd | None:
        """How a node's part has ended, if it has.

        Nothing is known of a silent head's nodes, and of one that is silent for a shorter time than makes it lost.
        """
        try:
            status = await self._status(node, by)
        except Ended as lost:
            early = lost.cause is Cause.NODE_LOST and self._due(node) > by
            return None if lost.cause is Cause.HEAD_LOST or early else self._lost_end(node, lost)
        return self._known_end(node, status)

    def _known_end(self, node: HeldNode, status: NodeStatus) -> NodeEnd | None:
        end, record = end_of(node, status), status.exit
        if end is None:
            return None
        if record is None:
            return self._lost_end(node, end)
        at = self._our_time(node, record.at)
        if "at" in end.detail:
            end.detail["at"] = at
        return NodeEnd(node, end, at, ran_s=record.at - (status.started_at or record.at))

    def _lost_end(self, node: HeldNode, lost: Ended) -> NodeEnd:
        heard = self._heard.get(node.key)
        return NodeEnd(node, lost, self.now(), well_at=heard.running_at if heard else -math.inf)

    # --- the daemons of an mpirun ---

    def _daemons_killed(self, nodes: Sequence[HeldNode]) -> list[NodeEnd]:
        """The daemons that were killed on nodes that go on: an mpirun that fails for that says nothing of it."""
        found = [
            (node, each)
            for node in nodes
            if (status := self._said.get(node.key))
            for each in status.daemons
            if each.signal and self._is_loss(node, each)
        ]
        return [NodeEnd(node, daemon_lost(node, each), self._our_time(node, each.at or 0.0)) for node, each in found]

    async def _any_daemon_lost(self) -> Ended | None:
        """Open MPI 5 ends with 0 although a daemon was killed: its word alone is no success."""
        try:
            statuses = await together(map(self._status, self.held.nodes))
        except Ended as lost:
            return lost
        for node, status in zip(self.held.nodes, statuses, strict=True):
            for daemon in status.daemons:
                if self._is_loss(node, daemon):
                    return daemon_lost(node, daemon)
        return None
