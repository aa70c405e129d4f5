"""single: one node, one command. Pure."""

from collections.abc import Mapping

from launcher.experiment import Role, Specification
from launcher.network import Network
from launcher.topology.shape import Decides, Group, Shape


def groups(specification: Specification) -> tuple[Group, ...]:
    """The one group."""
    return tuple(
        Group(group.role, source, group.count, group.command, Decides.ALL)
        for source, group in enumerate(specification.groups)
    )


def environment(_network: Network, _rank: int) -> Mapping[str, str]:
    """Nothing: there is nobody to find."""
    return {}


def files(_network: Network) -> Mapping[str, str]:
    """None."""
    return {}


SHAPE = Shape(
    roles=(Role.WORKER,),
    commands=("experiment.run_single_node",),
    groups=groups,
    environment=environment,
    files=files,
    words=("single-node",),
    one_node=True,
)
