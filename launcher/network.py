"""The network document of an attempt: who is where, computed once when every node has reported, never changed. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True)
class NetworkNode:
    """One node of a gang as its peers see it.

    `rank` counts over all nodes, `index` within the role; `name` is its host name inside the gang, resolvable on every
    node of it; `ports` were reserved there under names that the topology chose; `slots` is how many processes it is
    meant for (its GPUs, else its CPUs, at least 1), `gpus` how many GPUs of it are the attempt's.
    """

    rank: int
    role: str
    index: int
    name: str
    host: str
    address: str
    ports: Mapping[str, int] = field(default_factory=dict)
    slots: int = 1
    gpus: int = 0

    def endpoint(self, port: str) -> str:
        """Where a peer connects to, for the port of that name: "10.0.0.1:29500", "[fd00::1]:29500"."""
        return f"{self.bracketed}:{self.ports[port]}"

    @property
    def bracketed(self) -> str:
        """The address as it stands before a port: "10.0.0.1", "[fd00::1]"."""
        return f"[{self.address}]" if ":" in self.address else self.address

    @property
    def words(self) -> str:
        """The node for a person: "worker 2 on host-c"."""
        return f"{self.role} {self.index} on {self.host}"


@dataclass(frozen=True)
class Network:
    """All nodes of an attempt by rank; one node is a network too."""

    nodes: tuple[NetworkNode, ...]

    def of(self, role: str) -> tuple[NetworkNode, ...]:
        """The nodes of one role, by index."""
        return tuple(node for node in self.nodes if node.role == role)

    def peers(self, rank: int) -> Iterator[NetworkNode]:
        """All nodes but one."""
        return (node for node in self.nodes if node.rank != rank)


@dataclass(frozen=True)
class Site:
    """What a node has reported, or is known to have been given; `name` is its host name inside the gang."""

    name: str
    host: str
    address: str
    ports: Mapping[str, int] = field(default_factory=dict)
    gpus: int = 0
    cpus: float = 1.0


class Ranked(Protocol):
    """A node to be, as a topology numbers it."""

    @property
    def rank(self) -> int:
        """Its number over all nodes."""

    @property
    def role(self) -> str:
        """What it does."""

    @property
    def index(self) -> int:
        """Its number within the role."""


def network(members: Sequence[Ranked], sites: Sequence[Site]) -> Network:
    """The document.

    Args:
        members: the nodes to be, by rank.
        sites: where each of them is, in the same order.

    Raises:
        ValueError: not one site for each member, or two of one name.
    """
    if len({site.name for site in sites}) < len(sites):
        raise ValueError(f"each node needs a name of its own, got {[site.name for site in sites]}")
    pairs = zip(members, sites, strict=True)
    return Network(tuple(_node(member, site) for member, site in pairs))


def _node(member: Ranked, site: Site) -> NetworkNode:
    return NetworkNode(
        rank=member.rank,
        role=member.role,
        index=member.index,
        name=site.name,
        host=site.host,
        address=site.address,
        ports=dict(site.ports),
        slots=site.gpus or max(1, int(site.cpus)),
        gpus=site.gpus,
    )
