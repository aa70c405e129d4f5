"""What `descent run --plan` shows: what would start where, with which environment. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ci_bot.config import is_secret_name, mask_text
from ci_bot.config.mask import MASK
from ci_bot.report.durations import duration
from ci_bot.report.markdown import Ink
from launcher.controller import Rules
from launcher.experiment import NodeGroup, Specification
from launcher.machines import Machine, Machines
from launcher.network import Network, Site, network
from launcher.placement import bundles, words
from launcher.topology import Member, Wave, members_of, shape_of

NODES_SHOWN = 8
"""Of each role, for a terminal."""
VALUE_CHARACTERS = 400
SAMPLE = "198.18.0.1"  # of the addresses for measurements (RFC 2544), which no node has


class Unknown(int):
    """A port that is not reserved yet: a number that reads as what it stands for."""

    words: str

    def __new__(cls, words: str) -> "Unknown":
        port = super().__new__(cls, 0)
        port.words = words
        return port

    def __str__(self) -> str:
        return self.words

    def __format__(self, _specification: str) -> str:
        return self.words


@dataclass(frozen=True)
class Planner:
    """What is known of this place."""

    machines: Machines
    rules: Rules

    def record(self, specification: Specification, told: Mapping[str, str]) -> dict[str, Any]:
        """An experiment's plan as JSON values.

        Args:
            specification: the experiment.
            told: the variables that its commands get besides the node's own and those of its topology.
        """
        plan = _Plan(self, specification)
        return {
            "experiment": specification.name,
            "type": specification.topology,
            "timeout_s": specification.timeout_s or self.rules.time_limit_s,
            "retries": specification.retries,
            "env": {name: shown(name, value) for name, value in sorted(told.items())},
            "files": {f"/generated/{name}": text for name, text in plan.files.items()},
            "nodes": [self._node(plan, member, told) for member in plan.members],
        }

    def lines(self, specification: Specification, told: Mapping[str, str]) -> list[str]:
        """The same for a terminal."""
        plan, ink = _Plan(self, specification), Ink()
        limit_s = specification.timeout_s or self.rules.time_limit_s
        said = [
            f"{ink.plain(specification.name)}: {specification.topology}, "
            f"ended after {duration(limit_s)}, {specification.retries} retries"
        ]
        for members in plan.roles:
            said += self._group(plan, members, ink)
        for name, text in plan.files.items():
            said += [f"  /generated/{name}:", *_few([f"    {ink.plain(line)}" for line in text.splitlines()], "lines")]
        if len(plan.members) > 1:
            said += self._environments(plan, told, ink)
        said.append("  environment, besides the node's own:")
        said += [f"    {ink.plain(name)}={ink.plain(shown(name, value))}" for name, value in sorted(told.items())]
        return said

    def machine(self, group: NodeGroup) -> Machine:
        """What a group's machine type means."""
        # Which GPUs there are is known once a cluster runs; a plan takes the name at its word.
        return replace(self.machines, gpus=True).resolve(group.machine_type)

    def _node(self, plan: "_Plan", member: Member, told: Mapping[str, str]) -> dict[str, Any]:
        group = plan.specification.groups[member.group.source]
        node = plan.network.nodes[member.rank]
        return {
            "rank": member.rank,
            "role": member.role,
            "index": member.index,
            "decides": member.decides,
            "machine_type": group.machine_type,
            "resources": dict(self._resources(plan.specification, group)),
            "container": group.container,
            "address": node.address,
            "ports": {name: str(port) for name, port in node.ports.items()},
            "command": mask_text(member.group.command),
            "env": {name: shown(name, value) for name, value in plan.environment(member.rank, told).items()},
        }

    def _group(self, plan: "_Plan", members: Sequence[Member], ink: Ink) -> list[str]:
        first = members[0]
        group = plan.specification.groups[first.group.source]
        where = f" on {ink.plain(group.machine_type)}" if group.machine_type else ""
        resources = words(self._resources(plan.specification, group))
        said = [f"  {first.role} × {len(members)}{where}: {resources}"]
        if len(plan.members) > 1:
            said.append(f"    {_part(members)}")
        said += self._doubts(group, ink)
        said += [f"    $ {ink.plain(line)}" for line in mask_text(first.group.command).strip().splitlines()]
        return said

    def _doubts(self, group: NodeGroup, ink: Ink) -> Iterator[str]:
        machine = self.machine(group)
        if not machine.declared:
            yield f"    never starts: {ink.plain(self.machines.unknown(machine.name))}"
        elif machine.gpus and self.machines.table is None:
            yield "    the GPU only where the cluster has any: there is no machines.yaml"
        if group.container or group.dockerfile:
            what = f"container {group.container}" if group.container else "Dockerfile"
            yield f"    the {ink.plain(what)} is not used: no container engine is enabled here"

    def _environments(self, plan: "_Plan", told: Mapping[str, str], ink: Ink) -> Iterator[str]:
        """What every node is told, and then what only one is."""
        shown_members = [member for members in plan.roles for member in members[:NODES_SHOWN]]
        envs = [plan.environment(member.rank, told) for member in shown_members]
        everywhere = {name: value for name, value in envs[0].items() if all(env.get(name) == value for env in envs)}
        if everywhere:
            yield "  environment of every node:"
            yield from _variables(everywhere, ink)
        for member, env in zip(shown_members, envs, strict=True):
            own = {name: value for name, value in env.items() if name not in everywhere}
            if own:
                yield f"  environment of {member.role} {member.index}:"
                yield from _variables(own, ink)
        left_out = len(plan.members) - len(shown_members)
        if left_out:
            yield f"  and the environments of {left_out} more nodes; --json has them all"

    def _resources(self, specification: Specification, group: NodeGroup) -> Mapping[str, float]:
        alone = specification.model_copy(update={"groups": (group.model_copy(update={"count": 1}),)})
        return bundles(alone, (self.machine(group),))[0].resources


class _Plan:
    """An experiment's nodes, before any of them is anywhere."""

    def __init__(self, planner: Planner, specification: Specification) -> None:
        self.specification = specification
        self.members = members_of(specification)
        self._shape = shape_of(specification)
        machines = [planner.machine(specification.groups[member.group.source]) for member in self.members]
        pairs = list(zip(self.members, machines, strict=True))
        self.network = network(self.members, [_site(member, machine) for member, machine in pairs])
        # The same with addresses that are some: what is computed from them has a name, if no value yet.
        self._placed = Network(tuple(replace(node, address=SAMPLE) for node in self.network.nodes))
        self.files = self._shape.files(self.network)

    @property
    def roles(self) -> list[list[Member]]:
        """The nodes of each role."""
        by_role: dict[str, list[Member]] = {}
        for member in self.members:
            by_role.setdefault(member.role, []).append(member)
        return list(by_role.values())

    def environment(self, rank: int, told: Mapping[str, str]) -> dict[str, str]:
        """What its topology tells a node; what the configuration sets itself is not in it."""
        known = self._shape.environment(self.network, rank)
        all_names = self._shape.environment(self._placed, rank)
        return {name: known.get(name, "<from the addresses of all nodes>") for name in all_names if name not in told}


def _site(member: Member, machine: Machine) -> Site:
    words = f"{member.role} {member.index}"
    ports = {name: Unknown(f"<port {name} of {words}>") for name in member.group.ports}
    return Site(f"<name of {words}>", "", f"<address of {words}>", ports, gpus=machine.gpus, cpus=machine.cpus)


def _part(members: Sequence[Member]) -> str:
    first, last = members[0], members[-1]
    ranks = f"rank {first.rank}" if first is last else f"ranks {first.rank} to {last.rank}"
    deciding = [member for member in members if member.decides]
    if len(deciding) == len(members):
        part = "its end is the experiment's" if first is last else "the experiment ends when all of them have"
    elif deciding:
        part = f"the experiment ends when {first.role} 0 has"
    else:
        part = "stopped when the experiment has ended"
    started = "; started last" if first.group.wave is Wave.LAST else ""
    return f"{ranks}; {part}{started}"


def _variables(env: Mapping[str, str], ink: Ink) -> Iterator[str]:
    for name, value in env.items():
        yield f"    {ink.plain(name)}={ink.plain(shown(name, value), VALUE_CHARACTERS)}"


def _few(lines: list[str], what: str) -> list[str]:
    left_out = len(lines) - 2 * NODES_SHOWN
    return [*lines[: 2 * NODES_SHOWN], f"    and {left_out} more {what}"] if left_out > 0 else lines


def shown(name: str, value: str) -> str:
    """A variable's value as it may be shown."""
    return MASK if is_secret_name(name) else mask_text(value)
