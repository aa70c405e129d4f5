"""The nodes of one attempt: reserved together, then each given code, workspace and environment."""

import asyncio
from dataclasses import dataclass, replace

from launcher.asking import POLL_S, Asking
from launcher.attempt import Attempt, Ended, Rules
from launcher.backend import AgentClient, Reservation
from launcher.experiment import Held, HeldNode
from launcher.node_types import PrepareOrder
from launcher.placement import avoiding, bundles, needs
from launcher.state import Cause

PLACEMENT_S = 30.0
CHUNK_BYTES = 4 << 20


@dataclass(frozen=True)
class Gang:
    """The gang of one attempt; every step may be taken again."""

    attempt: Attempt
    asking: Asking
    rules: Rules
    name: str

    async def place(self) -> Reservation | None:
        """The placed reservation, or None when there was no room within PLACEMENT_S."""
        ask, loop = self.asking.cluster, asyncio.get_running_loop()
        wanted = needs(self.attempt.specification, self.attempt.machines, shared_hosts=self.rules.allow_shared_hosts)
        avoided: list[str] = []
        if self.attempt.avoided_hosts:
            nodes = (await ask(self.asking.backend.capacity)).nodes
            avoided = [node.node_id for node in nodes if node.host in self.attempt.avoided_hosts]
        give_up_at = loop.time() + PLACEMENT_S
        await ask(lambda: self.asking.backend.reserve(self.name, avoiding(wanted.bundles, avoided), wanted.strategy))
        pause_s = 0.002
        while True:
            reservation = await ask(lambda: self.asking.backend.reservation(self.name))
            if reservation.state == "placed":
                return reservation
            if reservation.state in {"lost", "absent"}:
                raise Ended(Cause.RESERVATION_LOST, why=reservation.why or reservation.state)
            if loop.time() > give_up_at:  # what is infeasible now may be a node that restarts
                return None
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, POLL_S)

    async def nodes_of(self, placed: Reservation) -> Held:
        """What the reservation holds, with the GPUs that are its own."""
        capacity = await self.asking.cluster(self.asking.backend.capacity)
        wanted = bundles(self.attempt.specification, self.attempt.machines)
        by_id = {node.node_id: node for node in capacity.nodes}
        nodes = []
        for index, node_id in enumerate(placed.node_ids):
            where = by_id.get(node_id)
            if where is None:
                raise Ended(Cause.RESERVATION_LOST, why=f"node {node_id[:8]} left the cluster")
            gpus = await self._gpus(index, int(wanted[index].resources.get("GPU", 0)))
            nodes.append(
                HeldNode(
                    key=f"{self.name}-n{index}", node_id=node_id, host=where.host, address=where.address, gpu_ids=gpus
                )
            )
        return Held(group=self.name, cluster_id=capacity.cluster_id, nodes=tuple(nodes))

    async def _gpus(self, index: int, count: int) -> tuple[str, ...]:
        return await self.asking.cluster(lambda: self.asking.backend.gpu_ids(self.name, index, count))

    async def prepare(self, node: HeldNode) -> HeldNode:
        """Make a node ready; gives it as it has shown itself."""
        agent = self.asking.backend.agent(node.node_id)
        facts = await self.asking.node(node, agent.facts)
        isolation = self._isolation(node, facts.isolation, facts.isolation_why)
        await self._send_code(node, agent)
        order = PrepareOrder(
            code_key=self.attempt.code.key,
            storage_key=self.attempt.storage_key,
            trusted=self.attempt.trusted,
            isolation=isolation,
            workdir=self.attempt.specification.workdir,
            artifacts=self.attempt.specification.artifacts,
        )
        await self.asking.node(node, lambda: agent.prepare(node.key, order))
        return replace(node, isolation=isolation, address=facts.address or node.address)

    def _isolation(self, node: HeldNode, capable: str, why: str) -> str:
        wanted = self.rules.isolation
        if wanted == "none" and self.attempt.trusted:
            return "none"
        if capable == "bubblewrap":
            return "bubblewrap"
        raise Ended(Cause.PREPARATION_FAILED, node=node.host, why=f"commands can't be isolated there: {why}")

    async def _send_code(self, node: HeldNode, agent: AgentClient) -> None:
        """The archive, from where the node's copy ends; -1 says that it has the whole tree."""
        code = self.attempt.code
        offset = await self.asking.node(node, lambda: agent.code_offset(code.key))
        while offset >= 0:
            try:
                chunk, last = await asyncio.to_thread(code.read, offset, CHUNK_BYTES)
            except OSError as error:  # the next attempt begins with fetching it
                why = f"the code can't be read on Descent's host: {error}"
                raise Ended(Cause.PREPARATION_FAILED, node=node.host, why=why) from error
            start = offset
            await self.asking.node(node, lambda: agent.put_code(code.key, start, chunk, last))  # noqa: B023 - awaited here
            offset = -1 if last else offset + len(chunk)
