"""Asking the cluster and its nodes, which may be silent for a while: for how long, and what longer silence means."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NoReturn, TypeVar

from launcher.attempt import Ended
from launcher.backend import AgentClient, Backend, BackendError, HeadLost, NodeUnavailable
from launcher.experiment import Held, HeldNode
from launcher.node_types import NodeError, NodeStatus
from launcher.state import Cause

T = TypeVar("T")

NODE_LOST_S = 14.0
"""How long a node, or the head, may be silent before its attempt ends: with the next look, that is within 15 s."""
HEAD_S = 3.0
"""What a living head takes to answer, at most."""
POLL_S = 0.25
BEAT_S = 2.0
"""How often a node that is busy, or Ray, is asked whether what is held is still there."""


@dataclass(frozen=True)
class Asking:
    """Questions that are asked again until they are answered, or until silence is an end."""

    backend: Backend

    async def node(self, node: HeldNode, call: Callable[[], Awaitable[T]], *, met: bool = True) -> T:
        """A node's answer, for which a living one may take its time.

        An agent that restarts gets NODE_LOST_S to come back, one whose node has gone none. Beside a call that takes
        long something cheap is asked, so that what has died is noticed as soon. A node that was not `met` before may
        only now be beginning: of that one Ray's word alone counts.

        Raises:
            Ended: the node could not do it, or is lost.
        """

        async def ask() -> T:
            try:
                return await call()
            except NodeUnavailable as error:
                if await self._has_left(node):
                    raise _left(node) from error
                raise

        return await _unless(self._ask(node, ask), self._until_lost(node, met=met))

    async def _until_lost(self, node: HeldNode, *, met: bool) -> NoReturn:
        while True:
            await asyncio.sleep(BEAT_S)
            with suppress(BackendError, TimeoutError):  # the head is silent, which the call itself will hear of
                async with asyncio.timeout(HEAD_S):
                    if await self._has_left(node):
                        raise _left(node)
            if met:
                await self.status(node, within_s=NODE_LOST_S - BEAT_S, silent_s=BEAT_S)

    async def while_reserved(self, held: Held, step: Awaitable[T]) -> T:
        """What comes of a step, if the reservation lasts so long.

        Raises:
            Ended: it is lost; names a node that took it along.
        """
        return await _unless(step, self._until_reservation_ends(held))

    async def _until_reservation_ends(self, held: Held) -> NoReturn:
        while True:
            await asyncio.sleep(BEAT_S)
            if lost := await self.reservation_lost(held):
                raise lost

    async def reservation_lost(self, held: Held) -> Ended | None:
        """The end that Ray's word on a reservation means, if any; of its silence the nodes' watches hear too."""
        with suppress(BackendError):
            reservation = await self.backend.reservation(held.group)
            if reservation.state in {"lost", "absent"}:
                capacity = await self.backend.capacity()
                if capacity.cluster_id != held.cluster_id:
                    return another_head()
                alive = {each.node_id for each in capacity.alive}
                gone = next((node for node in held.nodes if node.node_id not in alive), None)
                return _left(gone) if gone else Ended(Cause.RESERVATION_LOST, why=reservation.why or reservation.state)
        return None

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

    async def status(
        self, node: HeldNode, *, cluster_id: str = "", within_s: float = NODE_LOST_S, silent_s: float = 0.0
    ) -> NodeStatus:
        """The node's word on the attempt, asked of its successor too.

        The question goes through the head. If that was silent meanwhile, the time begins anew when it answers, once.

        Args:
            node: the node.
            cluster_id: the cluster that it was in: a node that has left that one, with no successor in it, is not
                waited for. The nodes of another join it one after the other.
            within_s: how long it may take.
            silent_s: how long it was not heard of before.

        Raises:
            Ended: nobody answers within that time.
        """

        why, head_was_silent, anew = f"it has not answered for {silent_s + within_s:.0f} s", False, False
        limit = asyncio.timeout(within_s)  # a node that is cut off does not even refuse

        async def ask() -> NodeStatus:
            nonlocal why, head_was_silent, anew
            try:
                agent = await self.agent_of(node)
                if head_was_silent and not anew:
                    anew = True
                    limit.reschedule(asyncio.get_running_loop().time() + silent_s + within_s)
                if agent is None:
                    if (await self.backend.capacity()).cluster_id == cluster_id:
                        raise _left(node)
                    raise NodeUnavailable(f"{node.host} is not in the cluster")
                return (await agent.status([node.key]))[node.key]
            except BackendError as error:
                why, head_was_silent = error.why, head_was_silent or isinstance(error, HeadLost)
                raise

        try:
            async with limit:
                return await self._ask(node, ask)
        except TimeoutError as error:
            if not await self._head_answers():
                raise Ended(Cause.HEAD_LOST, why=why) from error
            raise Ended(Cause.NODE_LOST, node=node.host, why=why) from error

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


def another_head() -> Ended:
    """The end of what another head does not know. Pure."""
    return Ended(Cause.HEAD_LOST, why="another one took its place")


def _left(node: HeldNode) -> Ended:
    return Ended(Cause.NODE_LOST, node=node.host, why="it left the cluster")


async def _unless(step: Awaitable[T], end: Awaitable[NoReturn]) -> T:
    """What comes of a step, unless the end is there first, which is raised."""
    asked, ended = asyncio.ensure_future(step), asyncio.ensure_future(end)
    try:
        await asyncio.wait({asked, ended}, return_when=asyncio.FIRST_COMPLETED)
        return asked.result() if asked.done() else ended.result()
    finally:
        for task in (asked, ended):
            task.cancel()
        await asyncio.gather(asked, ended, return_exceptions=True)


async def _patiently(call: Callable[[], Awaitable[T]]) -> T:
    """The answer to a call that is repeated for NODE_LOST_S after it first failed, by the head or by who is asked."""
    loop = asyncio.get_running_loop()
    silent_since: dict[bool, float] = {}
    while True:
        try:
            return await call()
        except BackendError as error:
            of_head = isinstance(error, HeadLost)
            silent_since.pop(not of_head, None)
            if loop.time() - silent_since.setdefault(of_head, loop.time()) > NODE_LOST_S:
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
