"""From nodes that are ready to commands that run: ports, the network document, peers that reach each other."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import groupby

from launcher.asking import Asking, together
from launcher.attempt import Attempt, Ended, Rules
from launcher.experiment import Held, HeldNode, NodeState
from launcher.network import Site, network
from launcher.node_types import Document, Launch, LaunchPeer, Peer, StartOrder, Unreached
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
        """Come back once every node has its network document on disk, and has reached every other.

        Raises:
            Ended: one can't, which is named.
        """
        peers = [
            Peer(rank, node.address, port)
            for rank, node in enumerate(held.nodes)
            for port in sorted(set(node.ports.values()))
        ]
        pairs = zip(held.nodes, self._documents(held), strict=True)
        answers = await together(self._connect(node, document, peers) for node, document in pairs)
        unreached: dict[tuple[int, int], Unreached] = {}
        for rank, answer in enumerate(answers):
            for found in answer:  # of several ports the first
                unreached.setdefault((rank, found.rank), found)
        if unreached:
            raise _unreachable(held, unreached)

    async def _connect(self, node: HeldNode, document: Document, peers: list[Peer]) -> tuple[Unreached, ...]:
        others = [peer for peer in peers if peer.rank != node.rank]
        agent = self.asking.backend.agent(node.node_id)
        return await self.asking.node(node, lambda: agent.connect(node.key, document, others))

    async def start(self, held: Held) -> Held:
        """Start all commands, wave after wave; those that may decide the end last.

        A gang's nodes start with the documents that they were told. They are not made again here: what they are made
        from may have changed since, and some nodes may have begun.
        """
        members = members_of(self.attempt.specification)
        told = [None for _ in held.nodes] if is_gang(held) else self._documents(held)
        places = {node.key: node.node_id for node in held.nodes}
        by_wave = sorted(members, key=lambda member: member.group.wave is Wave.LAST)
        for _, wave in groupby(by_wave, key=lambda member: member.group.wave):
            await together(self._start(held.nodes[each.rank], each, told[each.rank], places) for each in wave)
        return replace(held, nodes=tuple(replace(node, state=NodeState.RUNNING) for node in held.nodes))

    def _documents(self, held: Held) -> list[Document]:
        """The network document, as each node needs it: a function of what the nodes have reported."""
        shape, members = shape_of(self.attempt.specification), members_of(self.attempt.specification)
        pairs = zip(held.nodes, members, strict=True)
        whole = network(members, [self._site(node, member) for node, member in pairs])
        gang, files = is_gang(held), dict(shape.files(whole))
        hosts = tuple((node.address, node.name) for node in whole.nodes) if gang else ()
        return [
            Document(node.name if gang else "", hosts, files, dict(shape.environment(whole, node.rank)))
            for node in whole.nodes
        ]

    def _site(self, node: HeldNode, member: Member) -> Site:
        cpus = self.attempt.machines[member.group.source].cpus
        return Site(node.key, node.host, node.address, node.ports, gpus=len(node.gpu_ids), cpus=cpus)

    async def _start(
        self, node: HeldNode, member: Member, document: Document | None, places: Mapping[str, str]
    ) -> None:
        shape, machine = shape_of(self.attempt.specification), self.attempt.machines[member.group.source]
        order = StartOrder(
            command=member.group.command,
            env={"ATTEMPT": str(self.tries)} | self.attempt.env,  # what the configuration says itself wins
            gpu_ids=node.gpu_ids,
            isolation=node.isolation,
            memory_bytes=machine.memory_bytes,
            disk_bytes=machine.disk_bytes,
            log_max_bytes=self.rules.log_max_bytes,
            grace_s=self.rules.grace_s,
            lease_s=LEASE_S,
            document=document,
            launch=_launch(member, places, node.key) if shape.launches else None,
        )
        agent = self.asking.backend.agent(node.node_id)
        await self.asking.node(node, lambda: agent.start(node.key, order))


def is_gang(held: Held) -> bool:
    """Whether its nodes are told of each other before they start, were it only one."""
    return any(node.role for node in held.nodes)


def _launch(member: Member, places: Mapping[str, str], key: str) -> Launch:
    """Who decides may launch on all others, which serve."""
    if not member.decides:
        return Launch(serves=True, peers={})
    return Launch(serves=False, peers={name: LaunchPeer(id_, name) for name, id_ in places.items() if name != key})


def _unreachable(held: Held, unreached: Mapping[tuple[int, int], Unreached]) -> Ended:
    """The end for the first of these pairs of ranks."""
    (rank, _), found = next(iter(unreached.items()))
    node, peer = held.nodes[rank], held.nodes[found.rank]
    why = (
        f"Node {rank} ({node.words}, {node.address}) cannot reach {found.address}:{found.port} "
        f"({peer.words}): {found.why}"
    )
    others = len(unreached) - 1
    more = f"; {others} more pair{'s' if others > 1 else ''} can't either" if others else ""
    return Ended(Cause.PEER_UNREACHABLE, node=node.host, why=why + more)
