"""The topologies: each a file of its own that exports one SHAPE, and one line here (with its import). Pure."""

from collections.abc import Sequence

from launcher.experiment import Specification
from launcher.topology import multi_grpc, multi_mpi, multi_torch, single
from launcher.topology.shape import Decides, Group, Member, Shape, Wave, members

__all__ = ["SHAPES", "Decides", "Group", "Member", "Shape", "Wave", "members", "members_of", "seat", "shape_of"]

SHAPES: dict[str, Shape] = {
    "single": single.SHAPE,
    "multi-grpc": multi_grpc.SHAPE,
    "multi-mpi": multi_mpi.SHAPE,
    "multi-torch": multi_torch.SHAPE,
}
"""By their names in a configuration file. All that reads a file, shows a plan or starts nodes learns of them here."""


def shape_of(specification: Specification) -> Shape:
    """What the experiment's topology says."""
    return SHAPES[specification.topology]


def members_of(specification: Specification) -> tuple[Member, ...]:
    """Every node of an experiment, by rank."""
    return members(shape_of(specification).groups(specification))


def seat(members: Sequence[Member], hosts: Sequence[str]) -> tuple[int, ...]:
    """Who gets which bundle, so that rank order follows placement.

    The host of the first node that decides comes first, the others as they first appear; within a group those on one
    host get neighbouring ranks. Only bundles of one node group are exchanged: others are other machines.

    Args:
        members: the nodes to be, by rank.
        hosts: where each bundle was placed, in the order of `launcher.placement.bundles`: the specification's node
            groups, one after the other.

    Returns:
        the index of its bundle for each rank.

    Raises:
        ValueError: not one bundle for each member.
    """
    if len(members) != len(hosts):
        raise ValueError(f"{len(members)} nodes need a bundle each, got {len(hosts)}")
    sources = sorted(member.group.source for member in members)  # of each bundle: groups lie one after the other
    first = next((member.group.source for member in members if member.decides), 0)
    order = {host: place for place, host in enumerate(dict.fromkeys([*hosts[sources.index(first) :], *hosts]))}
    free = {
        source: iter(sorted(_bundles(sources, source), key=lambda bundle: (order[hosts[bundle]], bundle)))
        for source in set(sources)
    }
    return tuple(next(free[member.group.source]) for member in members)


def _bundles(sources: Sequence[int], source: int) -> list[int]:
    return [bundle for bundle, each in enumerate(sources) if each == source]
