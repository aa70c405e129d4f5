"""What the controller asks of the thing that runs processes: reservations, node agents, capacity. Pure."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from typing import Literal, Protocol

from launcher.node_types import (
    Artifact,
    Clean,
    Document,
    Extracted,
    LogChunk,
    NodeFacts,
    NodeStatus,
    Peer,
    PrepareOrder,
    StartOrder,
    Unreached,
)

Strategy = Literal["PACK", "STRICT_SPREAD"]
ReservationState = Literal["placed", "waiting", "infeasible", "lost", "absent"]


class BackendError(Exception):
    """The backend could not answer now; nothing is known about what was asked, and it may be asked again."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


class HeadLost(BackendError):
    """The cluster's head does not answer; a later answer may come from another cluster."""


class NodeUnavailable(BackendError):
    """A node's agent does not answer; it may be gone, restarting or cut off."""


@dataclass(frozen=True)
class Bundle:
    """What one node of a gang gets: Ray's resource names to amounts, and the labels its node must carry."""

    resources: Mapping[str, float]
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class NodeCapacity:
    """A node of the cluster and all it has, used or not."""

    node_id: str
    host: str
    address: str
    alive: bool
    total: Mapping[str, float]
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Capacity:
    """The nodes of the cluster that `cluster_id` names; a new head is a new cluster."""

    nodes: tuple[NodeCapacity, ...]
    cluster_id: str

    @property
    def alive(self) -> tuple[NodeCapacity, ...]:
        """The nodes that answer."""
        return tuple(node for node in self.nodes if node.alive)

    def without(self, hosts: Collection[str]) -> "Capacity":
        """The same, less the nodes on some hosts."""
        return replace(self, nodes=tuple(node for node in self.nodes if node.host not in hosts))

    def at_least(self, other: "Capacity") -> "Capacity":
        """The most of both: on each address as many nodes as either had, each with the most that it had.

        A node that comes back has a new id, so that only its address tells who it is.
        """
        merged: list[NodeCapacity] = []
        before, now = _by_address(self), _by_address(other)
        for address in before | now:
            pairs = zip_longest(before.get(address, ()), now.get(address, ()))
            merged += [_most(old, new) for old, new in pairs]
        return Capacity(tuple(merged), other.cluster_id)


def _by_address(capacity: Capacity) -> dict[str, list[NodeCapacity]]:
    nodes: dict[str, list[NodeCapacity]] = {}
    for node in sorted(capacity.alive, key=lambda node: (sorted(node.labels.items()), sorted(node.total.items()))):
        nodes.setdefault(node.address, []).append(node)
    return nodes


def _most(old: NodeCapacity | None, new: NodeCapacity | None) -> NodeCapacity:
    node = new or old
    assert node is not None  # zip_longest gives one of both  # noqa: S101
    if old is None or new is None:
        return node
    names = old.total.keys() | new.total.keys()
    return replace(node, total={name: max(old.total.get(name, 0), new.total.get(name, 0)) for name in names})


@dataclass(frozen=True)
class Reservation:
    """Where a reservation stands; `node_ids` are in bundle order, and only there when it is placed."""

    state: ReservationState
    node_ids: tuple[str, ...] = ()
    why: str = ""


class AgentClient(Protocol):
    """A node's agent, asked from afar. Every method may be repeated.

    Raises:
        NodeError: the node could not do it, for a cause.
        BackendError: no answer came; the node may or may not have done it.
    """

    async def facts(self) -> NodeFacts:
        """What the host is and can do."""

    async def code_offset(self, code_key: str) -> int:
        """How much of the archive the node has; -1 when it has the whole tree."""

    async def put_code(self, code_key: str, offset: int, chunk: bytes, last: bool) -> Extracted | None:
        """The next piece of the archive; with the last one, what it held."""

    async def prepare(self, key: str, order: PrepareOrder) -> None:
        """Make an attempt's directories, workspace and environment."""

    async def put_artifact(self, key: str, path: str, offset: int, data: bytes, last: bool) -> None:
        """The next piece of an earlier attempt's file, put back into a prepared one."""

    async def reserve_ports(self, key: str, names: Sequence[str]) -> dict[str, int]:
        """A port of the node for each name, the attempt's until it is cleared."""

    async def connect(self, key: str, document: Document, peers: Sequence[Peer]) -> tuple[Unreached, ...]:
        """Have the node keep its network document, and tell which peers it can't reach, and why."""

    async def start(self, key: str, order: StartOrder) -> None:
        """Start an attempt's command."""

    async def status(self, keys: Sequence[str]) -> dict[str, NodeStatus]:
        """Where attempts stand on the node."""

    async def watch(self, after: int, timeout_s: float) -> int:
        """Wait until something happened on the node since `after`, or until the timeout; gives the new mark."""

    async def read_log(self, key: str, offset: int, limit: int) -> LogChunk:
        """A piece of an attempt's log."""

    async def stop(self, key: str, grace_s: float) -> None:
        """SIGTERM to all of an attempt's processes, SIGKILL after the grace."""

    async def artifacts(self, key: str) -> list[Artifact]:
        """The files below an attempt's artifacts directory."""

    async def read_artifact(self, key: str, path: str, offset: int, limit: int) -> bytes:
        """A piece of an artifact; empty at its end."""

    async def clean(self, key: str) -> Clean:
        """Prove that no process of an attempt is left, then remove what it had."""

    async def inventory(self) -> list[str]:
        """The App's attempts that have anything on the node; those that go with their owner are left out."""


class Backend(Protocol):
    """A cluster that reserves machines and reaches the agents on them. Every method may be repeated.

    Raises:
        BackendError: no answer came.
    """

    async def connect(self, timeout_s: float = 60) -> None:
        """Reach the cluster, and keep reaching for it until `close`."""

    async def close(self) -> None:
        """Let go of the cluster; what is reserved or runs there stays."""

    async def capacity(self) -> Capacity:
        """The nodes and what they have in total."""

    async def reserve(self, name: str, bundles: tuple[Bundle, ...], strategy: Strategy) -> None:
        """Ask for a gang; it is placed whole or not at all, and outlives us if its name is the App's."""

    async def reservation(self, name: str) -> Reservation:
        """Where a gang's reservation stands."""

    async def reservations(self) -> list[str]:
        """The names of the App's reservations; those that go with their owner are left out."""

    async def gpu_ids(self, name: str, bundle_index: int, count: int) -> tuple[str, ...]:
        """The ids of a placed bundle's GPUs, `count` being all that it has; before anything uses them."""

    async def release(self, name: str) -> None:
        """Give a gang's machines back."""

    def agent(self, node_id: str) -> AgentClient:
        """The agent of a node."""
