"""Types of experiments and their node groups, as either version of the file writes them. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches

from ci_bot.config.gangs import Written, background
from ci_bot.config.mask import shown
from ci_bot.config.problems import Kind
from ci_bot.config.section import Section, normal
from launcher.experiment import Dockerfile, NodeGroup, Role
from launcher.topology import SHAPES

MAX_COUNT = 10_000


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
    section: Section, role: Role, keys: GroupKeys, *, dockerfile: Dockerfile | None = None, instead: str = ""
) -> Written:
    """One group, noting what is wrong with it; `instead` says what else may be meant where its command is missing."""
    container = section.text(keys.container)
    group = _node_group(section, role, keys, instead)
    if group:
        group = group.model_copy(update={"container": container, "dockerfile": dockerfile})
    image = f"Dockerfile {dockerfile.path}" if dockerfile else container
    return Written(role, image, section.at(keys.container if container else "dockerfile"), group)


def _node_group(section: Section, role: Role, keys: GroupKeys, instead: str) -> NodeGroup | None:
    """One group without its image; None when its command is missing or its count is wrong."""
    command = section.text(keys.command)
    if not section.has(keys.command):
        section.missing(keys.command, f"`{keys.command}: python train.py`{instead}", is_example=True)
    machine_type = section.text(keys.machine_type)
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
    return NodeGroup(role=role, count=count, command=command, machine_type=machine_type)


def _count(section: Section, key: str) -> int | None:
    if not section.has(key):
        path = section.path(key)
        message = f"`{path}` is missing and taken as 1. Write `{key}: 1`, or the number of nodes you want."
        section.notes.warning(section.at(key), Kind.MISSING, message, found="nothing", expected=f"`{key}: 1`")
        return 1
    return section.integer(key, 1, MAX_COUNT)


def topologies_with(roles: Iterable[Role]) -> tuple[str, ...]:
    """The topologies on several nodes that have groups of all these roles."""
    wanted = set(roles)
    return tuple(name for name, shape in SHAPES.items() if not shape.one_node and wanted <= set(shape.roles))


def topology_of(word: str, section: Section, key: str, *, multinode: str | None = None) -> str | None:
    """The topology that a word means; spellings are accepted with a warning.

    Args:
        word: what is written as `key` in the section.
        section: where to note problems.
        key: the key of the type.
        multinode: what a bare `multinode` means here, as the original's own pages have it.
    """
    types = {normal(each): name for name, shape in SHAPES.items() for each in (name, *shape.words)}
    topology = multinode if normal(word) == "multinode" else types.get(normal(word))
    if topology is None:
        expected = "one of " + ", ".join(SHAPES)
        near = get_close_matches(normal(word)[:60], types, n=1, cutoff=0.83) if normal(word) != "multinode" else []
        meant = types[near[0]] if near else next(iter(SHAPES))
        section.wrong(key, expected, f"`{key}: {meant}`", kind=Kind.TYPE, is_example=not near)
    elif word != topology:
        node = section.get(key)
        message = f"the type {shown(word)} was read as `{topology}`. Write `{key}: {topology}`."
        at = node.at if node else section.at(key)
        section.notes.warning(at, Kind.SPELLING, message, found=shown(word), expected=f"`{topology}`")
    return topology
