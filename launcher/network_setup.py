"""From nodes that are ready to commands that run: ports, the network document, peers that reach each other."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import groupby

from launcher.asking import Asking, together
from launcher.attempt import Attempt, Ended, Rules
from launcher.experiment import Held, HeldNode, NodeState
from launcher.network import Network, Site, network
from launcher.node_types import Launch, LaunchPeer, Peer, StartOrder, Unreached
from launcher.state import Cause
from launcher.teardown import LEASE_S
from launcher.topology import Member, Wave, members_of, shape_of


@dataclass(frozen=True)
class NetworkSetup:
    """Connects and starts the nodes of one attempt; every step may be taken again."""

    attempt: Attempt
    asking: Asking
    rules: Rules
    tries: int

    async def reserve(self, held: Held) -> Held:
        """Every node's address and ports."""
        members = members_of(self.attempt.specification)
        pairs = zip(held.nodes, members, strict=True)
        return replace(held, nodes=tuple(await together(self._reserve(node, member) for node, member in pairs)))

    async def _reserve(self, node: HeldNode, member: Member) -> HeldNode:
        if not node.address:
            raise Ended(Cause.PREPARATION_FAILED, node=node.host, why="it gave no address")
        if not member.group.ports:
            return node
        agent = self.asking.backend.agent(node.node_id)
        return replace(
            node, ports=await self.asking.node(node, lambda: agent.reserve_ports(node.key, member.group.ports))
        )

    async def connect(self, held: Held) -> None:
        """Come back once every node has reached every other.

        Raises:
            Ended: one can't, which is named.
        """
        peers = [Peer(rank, node.address, min(node.ports.values())) for rank, node in enumerate(held.nodes)]
        answers = await together(self._connect(rank, node, peers) for rank, node in enumerate(held.nodes))
        unreached = [(rank, found) for rank, each in enumerate(answers) for found in each]
        if unreached:
            raise _unreachable(held, unreached)

    async def _connect(self, rank: int, node: HeldNode, peers: list[Peer]) -> tuple[Unreached, ...]:
        others = [peer for peer in peers if peer.rank != rank]
        agent = self.asking.backend.agent(node.node_id)
        return await self.asking.node(node, lambda: agent.connect(node.key, others))

    async def start(self, held: Held) -> Held:
        """Start all commands, wave after wave; those that may decide the end last."""
        members = members_of(self.attempt.specification)
        document, places = self.network(held), {node.key: node.node_id for node in held.nodes}
        by_wave = sorted(members, key=lambda member: member.group.wave is Wave.LAST)
        for _, wave in groupby(by_wave, key=lambda member: member.group.wave):
            await together(self._start(held.nodes[member.rank], member, document, places) for member in wave)
        return replace(held, nodes=tuple(replace(node, state=NodeState.RUNNING) for node in held.nodes))

    def network(self, held: Held) -> Network:
        """The network document: a function of what the nodes have reported."""
        members = members_of(self.attempt.specification)
        pairs = zip(held.nodes, members, strict=True)
        return network(members, [self._site(node, member) for node, member in pairs])

    def _site(self, node: HeldNode, member: Member) -> Site:
        cpus = self.attempt.machines[member.group.source].cpus
        return Site(node.key, node.host, node.address, node.ports, gpus=len(node.gpu_ids), cpus=cpus)

    async def _start(self, node: HeldNode, member: Member, document: Network, places: Mapping[str, str]) -> None:
        shape, machine = shape_of(self.attempt.specification), self.attempt.machines[member.group.source]
        told = {**shape.environment(document, member.rank), "ATTEMPT": str(self.tries)}
        order = StartOrder(
            command=member.group.command,
            env=told | self.attempt.env,  # what the configuration says itself wins
            gpu_ids=node.gpu_ids,
            isolation=node.isolation,
            memory_bytes=machine.memory_bytes,
            disk_bytes=machine.disk_bytes,
            log_max_bytes=self.rules.log_max_bytes,
            grace_s=self.rules.grace_s,
            lease_s=LEASE_S,
            hostname=node.key if node.role else "",
            hosts=tuple((peer.address, peer.name) for peer in document.nodes) if node.role else (),
            files=dict(shape.files(document)),
            launch=_launch(member, places, node.key) if shape.launches else None,
        )
        agent = self.asking.backend.agent(node.node_id)
        await self.asking.node(node, lambda: agent.start(node.key, order))


def _launch(member: Member, places: Mapping[str, str], key: str) -> Launch:
    """Who decides may launch on all others, which serve."""
    if not member.decides:
        return Launch(serves=True, peers={})
    return Launch(serves=False, peers={name: LaunchPeer(id_, name) for name, id_ in places.items() if name != key})


def _unreachable(held: Held, unreached: list[tuple[int, Unreached]]) -> Ended:
    rank, found = unreached[0]
    node, peer = held.nodes[rank], held.nodes[found.rank]
    why = (
        f"Node {rank} ({node.words}, {node.address}) cannot reach {found.address}:{found.port} "
        f"({peer.words}): {found.why}"
    )
    more = f"; {len(unreached) - 1} more pairs can't either" if len(unreached) > 1 else ""
    return Ended(Cause.PEER_UNREACHABLE, node=node.host, why=why + more)
