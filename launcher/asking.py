"""Asking the cluster and its nodes, which may be silent for a while: for how long, and what longer silence means."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
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
HEAD_S = 3.0
"""What a living head takes to answer, at most."""
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
            silent = f"it has not answered for {NODE_LOST_S:.0f} s"
            if not await self._head_answers():  # through which the question goes
                raise Ended(Cause.HEAD_LOST, why=silent) from error
            raise Ended(Cause.NODE_LOST, node=node.host, why=silent) from error

    async def _head_answers(self) -> bool:
        try:
            async with asyncio.timeout(HEAD_S):
                await self.backend.capacity()
        except (BackendError, TimeoutError):
            return False
        return True

    async def agent_of(self, node: HeldNode) -> AgentClient | None:
        """The agent that now serves the node's directory: the node's own, or its successor's after a restart of Ray.

        Machines may share a name, and an address may go to another: who has the name or the address is asked for the
        id of its directory. None where nobody in the cluster can be it.

        Raises:
            BackendError: somebody might be it, and does not answer.
        """
        alive = (await self.backend.capacity()).alive
        if any(each.node_id == node.node_id for each in alive):
            return self.backend.agent(node.node_id)
        candidates = [each for each in alive if each.host == node.host or each.address == node.address]
        # Of a cloned disk there are two with one id; then the one at the old address is it.
        candidates.sort(key=lambda each: each.address != node.address)
        if not node.root_id:
            candidates = [each for each in candidates if each.host == node.host]
            return self.backend.agent(candidates[0].node_id) if candidates else None
        return await self._with_root(node.root_id, [self.backend.agent(each.node_id) for each in candidates])

    async def _with_root(self, root_id: str, candidates: Sequence[AgentClient]) -> AgentClient | None:
        """The first of them that serves this directory; all are asked at once, since one may be slow to refuse."""
        asked = [asyncio.ensure_future(each.facts()) for each in candidates]
        silent: BackendError | NodeError | None = None
        try:
            for agent, answer in zip(candidates, asked, strict=True):
                try:
                    if (await answer).root_id == root_id:
                        return agent
                except (BackendError, NodeError) as error:
                    silent = error
        finally:
            for answer in asked:
                answer.cancel()
            await asyncio.gather(*asked, return_exceptions=True)
        if silent is not None:
            raise NodeUnavailable(f"what may be its successor does not say who it is: {silent}") from silent
        return None


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
