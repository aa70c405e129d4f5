"""Types of experiments and their node groups, as either version of the file writes them. Pure."""

from dataclasses import dataclass

from ci_bot.config.gangs import background
from ci_bot.config.mask import shown
from ci_bot.config.problems import Kind
from ci_bot.config.section import Section, normal
from launcher.experiment import Dockerfile, NodeGroup, Role, Topology

MAX_COUNT = 10_000

TYPES = {
    "single": Topology.SINGLE,
    "singlenode": Topology.SINGLE,
    "multigrpc": Topology.MULTI_GRPC,
    "grpc": Topology.MULTI_GRPC,
    "multimpi": Topology.MULTI_MPI,
    "mpi": Topology.MULTI_MPI,
    "multitorch": Topology.MULTI_TORCH,
    "torch": Topology.MULTI_TORCH,
}
ROLES: dict[Topology, tuple[Role, ...]] = {
    Topology.SINGLE: (Role.WORKER,),
    Topology.MULTI_GRPC: (Role.WORKER, Role.PARAMETER_SERVER),
    Topology.MULTI_MPI: (Role.MASTER, Role.WORKER),
    Topology.MULTI_TORCH: (Role.WORKER,),
}


@dataclass(frozen=True)
class GroupKeys:
    """What the keys of one group are called; no count for a group that is always one node."""

    container: str
    command: str
    machine_type: str
    count: str | None

    @property
    def all(self) -> tuple[str, ...]:
        return tuple(key for key in (self.container, self.command, self.machine_type, self.count) if key)


def group_keys(prefix: str) -> GroupKeys:
    """The parameter names of version 2 for a group: `workerCommand` and its like."""
    return GroupKeys(f"{prefix}Container", f"{prefix}Command", f"{prefix}MachineType", f"{prefix}Count")


SINGLE_KEYS = GroupKeys("container", "command", "machineType", None)
MULTI_KEYS = {
    Role.WORKER: group_keys("worker"),
    Role.PARAMETER_SERVER: group_keys("parameterServer"),
    Role.MASTER: group_keys("master"),
}


def node_group(
    section: Section, role: Role, keys: GroupKeys, *, dockerfile: Dockerfile | None = None
) -> NodeGroup | None:
    """One group; None, after noting why, when its command is missing or its count is wrong."""
    command = section.text(keys.command)
    if not section.has(keys.command):
        section.missing(keys.command, f"`{keys.command}: python train.py`", is_example=True)
    container, machine_type = section.text(keys.container), section.text(keys.machine_type)
    count = _count(section, keys.count) if keys.count else 1
    if role is Role.MASTER and keys.count and count is not None and count > 1:
        section.wrong(keys.count, "1, for one node runs mpirun", f"`{keys.count}: 1`, and the others as workers")
        return None
    if command is None or count is None:
        return None
    if mark := background(command):
        path = section.path(keys.command)
        message = (
            f"`{path}` goes into the background (`{mark}`), and where a command returns its node is done and all that "
            f"it started ends. Remove `{mark}`, or let `wait` be the last line."
        )
        section.notes.warning(section.at(keys.command), Kind.VALUE, message, found=f"`{mark}`")
    return NodeGroup(
        role=role, count=count, command=command, machine_type=machine_type, container=container, dockerfile=dockerfile
    )


def _count(section: Section, key: str) -> int | None:
    if not section.has(key):
        path = section.path(key)
        message = f"`{path}` is missing and taken as 1. Write `{key}: 1`, or the number of nodes you want."
        section.notes.warning(section.at(key), Kind.MISSING, message, found="nothing", expected=f"`{key}: 1`")
        return 1
    count = section.integer(key, 1)
    if count is not None and count > MAX_COUNT:
        section.wrong(key, f"at most {MAX_COUNT}", f"`{key}: 2`", is_example=True)
        return None
    return count


def topology_of(word: str, section: Section, key: str, *, multinode: Topology | None = None) -> Topology | None:
    """The topology that a word means; spellings are accepted with a warning.

    Args:
        word: what is written as `key` in the section.
        section: where to note problems.
        key: the key of the type.
        multinode: what a bare `multinode` means here, as the original's own pages have it.
    """
    topology = multinode if normal(word) == "multinode" else TYPES.get(normal(word))
    if topology is None:
        expected = "one of " + ", ".join(Topology)
        section.wrong(key, expected, f"`{key}: {Topology.SINGLE}`", kind=Kind.TYPE, is_example=True)
    elif word != topology:
        node = section.get(key)
        message = f"the type {shown(word)} was read as `{topology}`. Write `{key}: {topology}`."
        at = node.at if node else section.at(key)
        section.notes.warning(at, Kind.SPELLING, message, found=shown(word), expected=f"`{topology}`")
    return topology
