"""multi-torch: equal nodes that find each other through node 0, under torchrun, plain Python or JAX. Pure."""

from collections.abc import Mapping

from launcher.experiment import Role, Specification
from launcher.network import Network
from launcher.topology.shape import Decides, Group, Shape

MASTER, RENDEZVOUS, JAX = "master", "rendezvous", "jax"
PORTS = (MASTER, RENDEZVOUS, JAX)
"""Three, since a command may use one after the other, and what has just been closed may not be bound at once."""


def groups(specification: Specification) -> tuple[Group, ...]:
    """The workers; all of them decide."""
    return tuple(
        Group(group.role, source, group.count, group.command, Decides.ALL, PORTS)
        for source, group in enumerate(specification.groups)
    )


def environment(network: Network, rank: int) -> Mapping[str, str]:
    """One process a node for those that are started plainly; what torchrun needs; where JAX's coordinator is.

    torchrun replaces RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR and MASTER_PORT for the processes that
    it starts, and takes each of its own options from `PET_` and its name where the command does not give it. Its static
    rendezvous serves its store at the given address on node 0, and its processes use that store.

    Sources: torch/distributed/run.py, torch/distributed/argparse_util.py (env);
    https://docs.pytorch.org/docs/stable/distributed.html#environment-variable-initialization;
    jax/_src/distributed.py, which reads JAX_COORDINATOR_ADDRESS alone by itself.
    """
    node, first, count = network.nodes[rank], network.nodes[0], len(network.nodes)
    plain = {
        "MASTER_ADDR": first.address,
        "MASTER_PORT": str(first.ports[MASTER]),
        "NODE_RANK": str(rank),
        "NNODES": str(count),
        "WORLD_SIZE": str(count),
        "RANK": str(rank),
        "LOCAL_WORLD_SIZE": "1",
        "LOCAL_RANK": "0",
    }
    torchrun = {
        "PET_NNODES": str(count),
        "PET_NODE_RANK": str(rank),
        "PET_NPROC_PER_NODE": str(node.gpus or 1),
        "PET_MASTER_ADDR": first.bracketed,
        "PET_MASTER_PORT": str(first.ports[RENDEZVOUS]),
        "PET_LOCAL_ADDR": node.address,  # else the host's full name, which a DNS server may know otherwise
    }
    jax = {
        "JAX_COORDINATOR_ADDRESS": first.endpoint(JAX),
        "JAX_NUM_PROCESSES": str(count),
        "JAX_PROCESS_ID": str(rank),
    }
    return plain | torchrun | jax


def files(_network: Network) -> Mapping[str, str]:
    """None."""
    return {}


SHAPE = Shape(
    roles=(Role.WORKER,),
    commands=("experiment.run_torch_multi_node",),
    groups=groups,
    environment=environment,
    files=files,
    words=("torch",),
)
