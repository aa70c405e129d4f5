"""multi-ring: equal nodes, of which each knows the next. As a file of `launcher/topology` would be. Pure."""

from collections.abc import Mapping

from launcher.experiment import Role, Specification
from launcher.network import Network
from launcher.topology.shape import Decides, Group, Shape

PORT = "ring"


def groups(specification: Specification) -> tuple[Group, ...]:
    """The workers; all of them decide."""
    (only,) = specification.groups
    return (Group(only.role, 0, only.count, only.command, Decides.ALL, (PORT,)),)


def environment(network: Network, rank: int) -> Mapping[str, str]:
    """Where the next one is."""
    return {"NEXT": network.nodes[(rank + 1) % len(network.nodes)].endpoint(PORT)}


def files(network: Network) -> Mapping[str, str]:
    """The ring's names."""
    return {"ring": " ".join(node.name for node in network.nodes)}


SHAPE = Shape(
    roles=(Role.WORKER,),
    commands=("experiment.run_ring_multi_node",),
    groups=groups,
    environment=environment,
    files=files,
    words=("ring",),
)
