"""multi-mpi: a master whose command calls mpirun, and workers on which it starts processes. Pure."""

from collections.abc import Mapping, Sequence
from ipaddress import IPv4Network, ip_address

from launcher.experiment import Role, Specification
from launcher.network import Network
from launcher.topology.shape import Decides, Group, Shape, Wave

PORT = "probe"
"""It shows that nodes reach each other; MPI itself takes ports as it likes."""
HOSTFILE = "hostfile"
HOSTFILE_PATH = f"/generated/{HOSTFILE}"
WAIT = "sleep infinity"
"""The command of a worker that only waits."""
LINGER_S = 2.0
"""For the daemons of an mpirun that has ended: how they end is part of the verdict."""
CONCURRENT = 128
"""How many launch agents Open MPI lets run at once, by default; ours run as long as what they started."""


def groups(specification: Specification) -> tuple[Group, ...]:
    """The master, started when all workers are ready, and the workers.

    In a file without `master` worker 0 is the master: it runs the workers' command, and the others wait for it.
    """
    if any(group.role is Role.MASTER for group in specification.groups):
        return tuple(
            _master(source, group.command, group.count)
            if group.role is Role.MASTER
            else _workers(source, group.command, group.count)
            for source, group in enumerate(specification.groups)
        )
    (only,) = specification.groups
    others = (_workers(0, WAIT, only.count - 1),) if only.count > 1 else ()
    return (_master(0, only.command, 1), *others)


def environment(network: Network, _rank: int) -> Mapping[str, str]:
    """The same for every node: daemons and ranks get the environment of the node that they are on.

    How mpirun reaches the other nodes is the node's to say (`launcher.mpi.variables`): paths differ from node to node.
    A parameter of Open MPI is a variable `OMPI_MCA_` and its name, from version 5 on `PRTE_MCA_` for what starts
    processes; `HYDRA_` is MPICH's and Intel's. mpirun without a hostfile uses ours.
    """
    open_mpi_4 = {
        "orte_default_hostfile": HOSTFILE_PATH,
        "orte_set_default_slots": "1",  # a host that stands there once has one slot, not one for each of its cores
        "if_base_do_not_resolve": "1",  # else nodes that share a host are one to it, and all ranks are the master's
        "hwloc_base_binding_policy": "none",  # others use this host too, and each mpirun would begin at core 0
        "plm_rsh_no_tree_spawn": "1",  # only the master's launch agent serves anybody
        "plm_rsh_num_concurrent": _concurrent(network),
        **_interfaces(network, "oob_tcp_if_include", "btl_tcp_if_include"),
    }
    open_mpi_5 = {
        "prte_default_hostfile": HOSTFILE_PATH,
        "prte_set_default_slots": "1",
        "hwloc_default_binding_policy": "none",
        "plm_ssh_no_tree_spawn": "1",
        "plm_ssh_num_concurrent": _concurrent(network),
    }
    return {
        # Open MPI refuses to run as root, which the user of a sandbox is
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        **{f"OMPI_MCA_{name}": value for name, value in open_mpi_4.items()},
        **{f"PRTE_MCA_{name}": value for name, value in open_mpi_5.items()},
        "HYDRA_LAUNCHER": "ssh",
        "HYDRA_LAUNCHER_AUTOFORK": "0",  # else it starts the ranks of all nodes that share its host beside itself
        "HYDRA_HOST_FILE": HOSTFILE_PATH,
    }


def files(network: Network) -> Mapping[str, str]:
    """The hostfile: a line for each slot, which every MPI understands; `slots=` is not MPICH's.

    The master takes part, unless it has no GPU while workers have: then it would be the odd one.
    """
    with_gpus = any(node.gpus for node in network.of(Role.WORKER))
    taking_part = [node for node in network.nodes if node.role != Role.MASTER or node.gpus or not with_gpus]
    return {HOSTFILE: "".join(f"{node.name}\n" * node.slots for node in taking_part)}


def common_network(addresses: Sequence[str]) -> str | None:
    """The smallest network of IPv4 that holds all addresses, as "10.0.0.0/24".

    None where one would name the loopback device beside others, through which nothing goes out, or for IPv6, which
    Open MPI's builds seldom have.
    """
    try:
        found = [ip_address(address) for address in addresses]
    except ValueError:
        return None
    if not found or any(address.version != 4 for address in found):
        return None
    low, high = int(min(found)), int(max(found))
    network = IPv4Network((low, 32 - (low ^ high).bit_length()), strict=False)
    loopback = IPv4Network("127.0.0.0/8")
    return None if network.overlaps(loopback) and not network.subnet_of(loopback) else str(network)


def _master(source: int, command: str, count: int) -> Group:
    return Group(Role.MASTER, source, count, command, Decides.FIRST, (PORT,), Wave.LAST)


def _workers(source: int, command: str, count: int) -> Group:
    return Group(Role.WORKER, source, count, command, Decides.NONE, (PORT,))


def _concurrent(network: Network) -> str:
    return str(max(CONCURRENT, len(network.nodes)))


def _interfaces(network: Network, *parameters: str) -> dict[str, str]:
    """The network that all nodes share, for parameters that choose among a host's several."""
    common = common_network([node.address for node in network.nodes])
    return dict.fromkeys(parameters, common) if common else {}


SHAPE = Shape(
    roles=(Role.MASTER, Role.WORKER),
    commands=("experiment.run_multi_node", "experiment.run_mpi_multi_node"),
    groups=groups,
    environment=environment,
    files=files,
    words=("mpi",),
    launches=True,
    linger_s=LINGER_S,
)
