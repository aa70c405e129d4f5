"""Emptying a node after an attempt: stop what runs, keep what it made, prove that nothing is left."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from launcher.asking import POLL_S, Asking
from launcher.attempt import Ended, Rules
from launcher.backend import AgentClient, BackendError
from launcher.experiment import HeldNode, NodeState
from launcher.keep import NO_ROOM, ArtifactStore
from launcher.log_copy import LogCopy
from launcher.node_types import NodeError, Phase
from launcher.state import Cause

T = TypeVar("T")
Kept = Literal["log", "artifacts"]

TEARDOWN_S = 300.0
"""Without any progress."""
STOP_S = 30.0
"""What a tree may take to end after its grace; then it is asked again."""
LEASE_S = 15.0
"""How long a guardian outlives its agent."""
CHUNK_BYTES = 4 << 20


@dataclass
class Teardown:
    """Empties one node; every step may be taken again."""

    node: HeldNode
    asking: Asking
    rules: Rules
    log: LogCopy
    store: ArtifactStore
    not_kept: Callable[[Kept, str], Awaitable[None]]
    """Told what can't be kept and why, before the node forgets it; of each at most once."""
    _told: set[Kept] = field(default_factory=set)
    _progress_at: float = 0.0

    @property
    def fence_s(self) -> float:
        """After that long without its cluster nothing of the attempt can run on a node any more."""
        return self.rules.fence_s + LEASE_S + self.rules.grace_s + 1

    async def run(self) -> None:
        """Come back when nothing of the attempt is left on the node.

        A node that the cluster has lost is waited for until its agent's fence, its guardians' lease and the grace have
        passed. That *we* hear nothing proves nothing.

        Raises:
            Ended: it is not proven clean.
        """
        loop = asyncio.get_running_loop()
        self._progress_at = loop.time()
        gone_since: float | None = None
        left: list[str] = []
        while loop.time() - self._progress_at < max(TEARDOWN_S, 2 * self.fence_s):
            try:
                agent = await self.asking.agent_of(self.node)
                if agent is not None:
                    gone_since = None
                    left = await self._empty(agent)
                    if not left:
                        return
                elif gone_since is None:
                    gone_since = loop.time()
            except BackendError as error:
                left, gone_since = [f"it does not answer ({error})"], None
            except NodeError as error:
                left = [error.why]
            if gone_since is not None and loop.time() - gone_since > self.fence_s:
                if self.node.state not in {NodeState.HELD, NodeState.READY}:  # else it has made nothing
                    await self._tell("artifacts", f"{self.node.host} left the cluster with them")
                return
            await asyncio.sleep(POLL_S)
        who = {"rank": self.node.rank} if self.node.role else {}
        why = ", ".join(left) or "it left the cluster"
        raise Ended(Cause.NOT_PROVEN_CLEAN, node=self.node.host, why=why, **who)

    async def _empty(self, agent: AgentClient) -> list[str]:
        """What is left there."""
        key = self.node.key
        phase = (await agent.status([key]))[key].phase
        if phase == "running":
            phase = await self._stopped(agent)
        if phase == "running":
            return ["its command, which does not end"]
        if phase in {"ended", "lost"}:
            await self._try_to_keep("log", self.log.pull_rest(agent, key))
            await self._try_to_keep("artifacts", self._store_artifacts(agent))
        clean = await agent.clean(key)
        return [] if clean.empty else list(clean.left) or ["something that has no name"]

    async def _try_to_keep(self, what: Kept, moving: Awaitable[None]) -> None:
        """What can't be kept is told, and holds up nothing."""
        try:
            await moving
        except NodeError as error:
            await self._tell(what, error.why)
        except OSError as error:
            await self._tell(what, error.strerror or str(error) if error.errno in NO_ROOM else str(error))

    async def _tell(self, what: Kept, why: str) -> None:
        """Say it once: steps are taken again, and find the disk with another byte left each time."""
        if what not in self._told:
            self._told.add(what)
            await self.not_kept(what, why)

    async def _stopped(self, agent: AgentClient) -> Phase:
        """The phase after the command was told to end."""
        key, loop = self.node.key, asyncio.get_running_loop()
        await agent.stop(key, self.rules.grace_s)
        give_up_at = loop.time() + self.rules.grace_s + STOP_S
        phase: Phase = "running"
        seen = 0
        while phase == "running" and loop.time() < give_up_at:
            seen = await agent.watch(seen, 1.0)
            phase = (await agent.status([key]))[key].phase
        return phase

    async def _store_artifacts(self, agent: AgentClient) -> None:
        """Keep all of them; where the disk here has no room for all, it gets back what some have taken."""
        try:
            await self._receive_artifacts(agent)
            await asyncio.to_thread(self.store.seal)
        except OSError as error:
            if error.errno in NO_ROOM:
                await asyncio.to_thread(self.store.discard)
            raise

    async def _receive_artifacts(self, agent: AgentClient) -> None:
        for artifact in await agent.artifacts(self.node.key):
            async with _in_threads(self.store.receive(artifact.path, artifact.size)) as file:
                while file.offset < artifact.size:
                    data = await agent.read_artifact(self.node.key, artifact.path, file.offset, CHUNK_BYTES)
                    if not data:
                        break
                    await asyncio.to_thread(file.write, data)
                    self._progress_at = asyncio.get_running_loop().time()


@asynccontextmanager
async def _in_threads(context: AbstractContextManager[T]) -> AsyncIterator[T]:
    """The same context, whose beginning and end wait for the disk in threads."""
    value = await asyncio.to_thread(context.__enter__)
    try:
        yield value
    except BaseException as error:
        if not await asyncio.to_thread(context.__exit__, type(error), error, error.__traceback__):
            raise
    else:
        await asyncio.to_thread(context.__exit__, None, None, None)
