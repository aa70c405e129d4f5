"""Asking the cluster and its nodes, which may be silent for a while: for how long, and what longer silence means."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

from launcher.attempt import Ended
from launcher.backend import AgentClient, Backend, BackendError, HeadLost, NodeUnavailable
from launcher.experiment import HeldNode
from launcher.node_types import NodeError, NodeStatus
from launcher.state import Cause

T = TypeVar("T")

NODE_LOST_S = 15.0
"""How long a node, or the head, may be silent before its attempt ends."""
POLL_S = 0.25


@dataclass(frozen=True)
class Asking:
    """Questions that are asked again until they are answered, or until silence is an end."""

    backend: Backend

    async def node(self, node: HeldNode, call: Callable[[], Awaitable[T]]) -> T:
        """A node's answer; an agent that restarts gets NODE_LOST_S to come back, one whose node has gone none.

        Raises:
            Ended: the node could not do it, or is lost.
        """

        async def ask() -> T:
            try:
                return await call()
            except NodeUnavailable as error:
                if await self._has_left(node):
                    raise Ended(Cause.NODE_LOST, node=node.host, why="it left the cluster") from error
                raise

        return await self._ask(node, ask)

    async def _has_left(self, node: HeldNode) -> bool:
        return all(each.node_id != node.node_id for each in (await self.backend.capacity()).alive)

    async def _ask(self, node: HeldNode, call: Callable[[], Awaitable[T]]) -> T:
        try:
            return await _patiently(call)
        except NodeError as error:
            raise Ended(error.cause, node=node.host, why=error.why) from error
        except HeadLost as error:
            raise Ended(Cause.HEAD_LOST, why=str(error)) from error
        except BackendError as error:
            raise Ended(Cause.NODE_LOST, node=node.host, why=str(error)) from error

    async def cluster(self, call: Callable[[], Awaitable[T]]) -> T:
        """The cluster's answer.

        Raises:
            Ended: its head does not answer for NODE_LOST_S.
        """
        try:
            return await _patiently(call)
        except BackendError as error:
            raise Ended(Cause.HEAD_LOST, why=str(error)) from error

    async def status(self, node: HeldNode) -> NodeStatus:
        """The node's word on the attempt, asked of its successor too.

        Raises:
            Ended: nobody answers for NODE_LOST_S.
        """

        async def ask() -> NodeStatus:
            agent = await self.agent_of(node)
            if agent is None:
                raise NodeUnavailable(f"{node.host} is not in the cluster")
            return (await agent.status([node.key]))[node.key]

        try:
            async with asyncio.timeout(NODE_LOST_S + 1):  # a node that is cut off does not even refuse
                return await self._ask(node, ask)
        except TimeoutError as error:
            why = f"it has not answered for {NODE_LOST_S:.0f} s"
            raise Ended(Cause.NODE_LOST, node=node.host, why=why) from error

    async def agent_of(self, node: HeldNode) -> AgentClient | None:
        """The agent that now serves the host: the node's own, or its successor's after a restart of Ray there.

        None where the cluster says that it has no such host.
        """
        alive = (await self.backend.capacity()).alive
        found = next((each for each in alive if each.node_id == node.node_id), None)
        found = found or next((each for each in alive if each.host == node.host), None)
        return self.backend.agent(found.node_id) if found else None


async def _patiently(call: Callable[[], Awaitable[T]]) -> T:
    """The answer to a call that is repeated for NODE_LOST_S after it first failed."""
    loop = asyncio.get_running_loop()
    silent_since: float | None = None
    while True:
        try:
            return await call()
        except BackendError:
            silent_since = loop.time() if silent_since is None else silent_since
            if loop.time() - silent_since > NODE_LOST_S:
                raise
        await asyncio.sleep(POLL_S)


async def together(calls: Iterable[Awaitable[T]]) -> list[T]:
    """All of them, and their outcomes in order; the first failure cancels the others and is raised."""
    tasks = [asyncio.ensure_future(call) for call in calls]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
