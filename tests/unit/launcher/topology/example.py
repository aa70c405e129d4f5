"""Small gangs that the tests start from."""

from launcher.experiment import NodeGroup, Role, Specification
from launcher.network import Network, Site, network
from launcher.topology import Member, members_of, shape_of


def specification(
    topology: str, *, master: int = 0, worker: int = 0, server: int = 0, command: str = "python train.py"
) -> Specification:
    """An experiment with so many nodes of each role."""
    counts = {Role.MASTER: master, Role.WORKER: worker, Role.PARAMETER_SERVER: server}
    groups = (NodeGroup(role=role, count=count, command=command) for role, count in counts.items() if count)
    return Specification(name="e", topology=topology, groups=tuple(groups))


def gang(topology: str, **counts: int) -> tuple[Member, ...]:
    """Its nodes to be."""
    return members_of(specification(topology, **counts))


def placed(asked: Specification, *, gpus: tuple[int, ...] = (), cpus: float = 1) -> Network:
    """Its nodes on hosts 10.0.0.1 and so on, named n0 and so on; ports count from 7000 on each."""
    members = members_of(asked)
    sites = []
    for member in members:
        ports = {name: 7000 + number for number, name in enumerate(member.group.ports)}
        count = gpus[member.rank] if gpus else 0
        address = f"10.0.0.{member.rank + 1}"
        sites.append(Site(f"n{member.rank}", f"host-{member.rank}", address, ports, gpus=count, cpus=cpus))
    return network(members, sites)


def told(asked: Specification, rank: int) -> dict[str, str]:
    """What one of its nodes is told."""
    return dict(shape_of(asked).environment(placed(asked), rank))
