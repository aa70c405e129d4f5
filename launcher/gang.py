"""The nodes of one attempt: reserved together, then each given code, workspace and environment."""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, replace
from functools import partial

from launcher.asking import POLL_S, Asking, together
from launcher.attempt import Attempt, Ended, Rules
from launcher.backend import AgentClient, NodeCapacity, Reservation
from launcher.experiment import Held, HeldNode, NodeState
from launcher.keep import Keep, artifacts_so_far
from launcher.node_types import PrepareOrder
from launcher.placement import avoiding, bundles, fits, needs
from launcher.state import Cause
from launcher.topology import Member, members_of, seat, shape_of

PLACEMENT_S = 30.0
CHUNK_BYTES = 4 << 20


@dataclass(frozen=True)
class Gang:
    """The gang of one attempt; every step may be taken again."""

    attempt: Attempt
    asking: Asking
    rules: Rules
    name: str
    keep: Keep
    returned: Callable[[], None]
    """Told of each piece of an earlier attempt that is back on a node."""

    async def place(self, lost: Collection[str] = ()) -> Reservation | None:
        """The placed reservation, or None when there was no room within PLACEMENT_S.

        Hosts that an attempt before this was lost with are avoided, if the others can hold the gang at all.
        """
        ask, loop = self.asking.cluster, asyncio.get_running_loop()
        wanted = needs(self.attempt.specification, self.attempt.machines, shared_hosts=self.rules.allow_shared_hosts)
        avoided: list[str] = []
        if lost or self.attempt.avoided_hosts:
            capacity = await ask(self.asking.backend.capacity)
            others = capacity.without({*self.attempt.avoided_hosts, *lost})
            unwanted = {*self.attempt.avoided_hosts, *(lost if fits(wanted, others.alive) else ())}
            avoided = [node.node_id for node in capacity.nodes if node.host in unwanted]
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
        """What the reservation holds: nodes that have answered, with the GPUs that are theirs.

        Who they are is known, and can be put on record, before anything is there.
        """
        specification = self.attempt.specification
        capacity = await self.asking.cluster(self.asking.backend.capacity)
        by_id = {node.node_id: node for node in capacity.nodes}
        gone = next((node_id for node_id in placed.node_ids if node_id not in by_id), None)
        if gone is not None:
            raise Ended(Cause.RESERVATION_LOST, why=f"node {gone[:8]} left the cluster")
        where = [by_id[node_id] for node_id in placed.node_ids]
        members = members_of(specification)
        seats = seat(members, [f"{node.address} {node.host}" for node in where])
        pairs = zip(members, seats, strict=True)
        nodes = await together(self._meet(member, bundle, where[bundle]) for member, bundle in pairs)
        return Held(group=self.name, cluster_id=capacity.cluster_id, nodes=tuple(nodes))

    async def _meet(self, member: Member, bundle: int, where: NodeCapacity) -> HeldNode:
        """A node as it has shown itself, with the GPUs of its bundle."""
        specification, wanted = self.attempt.specification, bundles(self.attempt.specification, self.attempt.machines)
        node = HeldNode(
            key=f"{self.name}-n{member.rank}",
            node_id=where.node_id,
            host=where.host,
            address=where.address,
            gpu_ids=await self._gpus(bundle, int(wanted[bundle].resources.get("GPU", 0))),
            role="" if shape_of(specification).one_node else member.group.role,
            index=member.index,
            machine_type=specification.groups[member.group.source].machine_type,
            decides=member.decides,
        )
        facts = await self.asking.node(node, self.asking.backend.agent(node.node_id).facts, met=False)
        return replace(
            node,
            address=facts.address or node.address,
            isolation=self._isolation(node, facts.isolation, facts.isolation_why),
            root_id=facts.root_id,
        )

    async def _gpus(self, index: int, count: int) -> tuple[str, ...]:
        if not count:
            return ()
        return await self.asking.cluster(lambda: self.asking.backend.gpu_ids(self.name, index, count))

    async def code_offset(self, node: HeldNode) -> int:
        """How much of the code a node has; asking changes nothing there."""
        agent = self.asking.backend.agent(node.node_id)
        return await self.asking.node(node, lambda: agent.code_offset(self.attempt.code.key))

    async def prepare(self, node: HeldNode, code_offset: Awaitable[int]) -> HeldNode:
        """Make a node ready, which has said how much of the code it has."""
        agent = self.asking.backend.agent(node.node_id)
        await self._send_code(node, agent, await code_offset)
        order = PrepareOrder(
            code_key=self.attempt.code.key,
            storage_key=self.attempt.storage_key,
            trusted=self.attempt.trusted,
            isolation=node.isolation,
            workdir=self.attempt.specification.workdir,
            artifacts=self.attempt.specification.artifacts,
        )
        await self.asking.node(node, lambda: agent.prepare(node.key, order))
        await self._put_back(node, agent)
        return replace(node, state=NodeState.READY)

    async def _put_back(self, node: HeldNode, agent: AgentClient) -> None:
        """What an earlier attempt left among its artifacts is there again, so that training can resume."""
        experiment_id, before = self.attempt.experiment_id, range(1, self.attempt.progress.attempt)
        stores = [self.keep.artifacts(experiment_id, attempt, node.place) for attempt in before]
        for store, stored in await asyncio.to_thread(artifacts_so_far, stores):
            offset, last = 0, False
            while not last:
                data, last = await asyncio.to_thread(store.read, stored.path, offset, CHUNK_BYTES)
                put = partial(agent.put_artifact, node.key, stored.path, offset, data, last)
                await self.asking.node(node, put)
                self.returned()
                offset += len(data)

    def _isolation(self, node: HeldNode, capable: str, why: str) -> str:
        wanted = self.rules.isolation
        if wanted == "none" and self.attempt.trusted:
            return "none"
        if capable == "bubblewrap":
            return "bubblewrap"
        raise Ended(Cause.PREPARATION_FAILED, node=node.host, why=f"commands can't be isolated there: {why}")

    async def _send_code(self, node: HeldNode, agent: AgentClient, offset: int) -> None:
        """The archive, from where the node's copy ends; -1 says that it has the whole tree."""
        code = self.attempt.code
        while offset >= 0:
            try:
                chunk, last = await asyncio.to_thread(code.read, offset, CHUNK_BYTES)
            except OSError as error:  # the next attempt begins with fetching it
                why = f"the code can't be read on Descent's host: {error}"
                raise Ended(Cause.PREPARATION_FAILED, node=node.host, why=why) from error
            start = offset
            await self.asking.node(node, lambda: agent.put_code(code.key, start, chunk, last))  # noqa: B023 - awaited here
            offset = -1 if last else offset + len(chunk)
