"""What a topology says of an experiment: its nodes, who decides, what a failure means, what each is told. Pure."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from launcher.experiment import Role, Specification
from launcher.network import Network


class Decides(StrEnum):
    """Whose ends are the attempt's end. Whoever fails before fails the gang, decider or not."""

    ALL = "all"  # the attempt succeeds when every node of the group has ended with 0
    FIRST = "first"  # ... when the group's first node has
    NONE = "none"  # the group's nodes are stopped when the deciders have ended; that is no failure


class Wave(StrEnum):
    """When a group's commands start."""

    TOGETHER = "together"
    LAST = "last"  # once all others have


@dataclass(frozen=True)
class Group:
    """The nodes of one role: `source` is the index of the specification's node group whose machines they are.

    `ports` are the names under which each of its nodes reserves one port.
    """

    role: str
    source: int
    count: int
    command: str
    decides: Decides
    ports: tuple[str, ...] = ()
    wave: Wave = Wave.TOGETHER


@dataclass(frozen=True)
class Shape:
    """One topology.

    A configuration file has a group for each of `roles`, in this order; it calls the topology by its name or by one of
    `words` (version 1), or by one of `commands` (version 2). `one_node` is set where there is never more than that.
    `groups` are in rank order and cover every node of the specification once. `environment` gives what the node of a
    rank is told besides what every command sees; `files` are the texts below /generated, by name. `launches` is set
    where a command starts processes on other nodes itself (MPI). `linger_s` is how long the nodes that do not decide
    have to end by themselves, once the deciders have.
    """

    roles: tuple[Role, ...]
    commands: tuple[str, ...]
    groups: Callable[[Specification], tuple[Group, ...]]
    environment: Callable[[Network, int], Mapping[str, str]]
    files: Callable[[Network], Mapping[str, str]]
    words: tuple[str, ...] = ()
    one_node: bool = False
    launches: bool = False
    linger_s: float = 0.0


@dataclass(frozen=True)
class Member:
    """One node to be: its rank over all, its group, its index within the role."""

    rank: int
    group: Group
    index: int

    @property
    def role(self) -> str:
        """What it does."""
        return self.group.role

    @property
    def decides(self) -> bool:
        """Its end is (part of) the attempt's end."""
        return self.group.decides is Decides.ALL or (self.group.decides is Decides.FIRST and self.index == 0)


def members(groups: tuple[Group, ...]) -> tuple[Member, ...]:
    """Every node by rank, group after group."""

    def each() -> Iterator[tuple[Group, int]]:
        return ((group, index) for group in groups for index in range(group.count))

    return tuple(Member(rank, group, index) for rank, (group, index) in enumerate(each()))
