"""Node groups to bundles, and whether they fit into what is there. Pure."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property, lru_cache

from launcher.backend import Bundle, Capacity, NodeCapacity, Strategy
from launcher.experiment import Specification
from launcher.machines import DEFAULT, GIB, Machine, Machines

EPSILON = 1e-6
NODE_ID_LABEL = "ray.io/node-id"
UNPLACED_S = 15.0
UNPLACED_MAX_S = 1800.0


@dataclass(frozen=True)
class Needs:
    """What an attempt asks of the cluster; `lanes` are the machine types on whose queues it stands."""

    lanes: tuple[str, ...]
    bundles: tuple[Bundle, ...]
    strategy: Strategy = "PACK"
    undeclared: tuple[str, ...] = ()
    """Machine types that the operator's table does not have."""
    machine_type: str = ""
    nodes: int = 1
    """What its first group asks for, in the configuration's words."""

    @property
    def words(self) -> str:
        """What it asks, for a person: "2 nodes of 1 CPU, 1 GPU"."""
        shapes = Counter(words(bundle.resources) for bundle in self.bundles)
        return " and ".join(f"{count} nodes of {shape}" if count > 1 else shape for shape, count in shapes.items())

    @cached_property
    def shape(self) -> tuple[object, ...]:
        """Equal for needs that fit in the same places."""
        parts = ((tuple(sorted(b.resources.items())), tuple(sorted(b.labels.items()))) for b in self.bundles)
        return (self.strategy, *parts)


@dataclass(frozen=True)
class Running:
    """An attempt that holds, or is about to hold, its bundles; `node_ids` are empty until it is placed."""

    id: int
    repository_id: int
    needs: Needs
    node_ids: tuple[str, ...] = ()


@dataclass(frozen=True)
class Limits:
    """How many attempts may be under way at once; None is no limit."""

    max_running: int | None = None
    max_running_per_repository: int | None = None


class Blocked(StrEnum):
    """What an experiment waits for."""

    MACHINES = "machines"
    AHEAD = "ahead"
    UNPLACED = "unplaced"
    MAX_RUNNING = "max running"
    MAX_RUNNING_PER_REPOSITORY = "max running per repository"


@dataclass(frozen=True)
class Shortage:
    """Why an experiment waits.

    `needed` is what its first bundle without a place asks, `free` what the node that comes closest (`host`, empty when
    no node has the labels) has left of it, `missing` the difference; `ahead` counts the experiments before it on the
    same machine type.
    """

    blocked: Blocked
    ahead: int = 0
    needed: Mapping[str, float] = field(default_factory=dict)
    free: Mapping[str, float] = field(default_factory=dict)
    missing: Mapping[str, float] = field(default_factory=dict)
    host: str = ""
    limit: int | None = None
    """The limit that is reached, for the two that are limits."""


def bundles(specification: Specification, machines: Sequence[Machine]) -> tuple[Bundle, ...]:
    """One bundle for each node, group by group.

    Args:
        specification: the experiment.
        machines: what each group's machine type means, in the groups' order.
    """
    pairs = zip(specification.groups, machines, strict=True)
    return tuple(_bundle(machine) for group, machine in pairs for _ in range(group.count))


def needs(specification: Specification, machines: Sequence[Machine], *, shared_hosts: bool = False) -> Needs:
    """What an attempt asks; `shared_hosts` lets several of its nodes be one host."""
    wanted, first = bundles(specification, machines), specification.groups[0]
    return Needs(
        lanes=tuple(dict.fromkeys(group.machine_type or DEFAULT for group in specification.groups)),
        bundles=wanted,
        strategy="PACK" if shared_hosts or len(wanted) == 1 else "STRICT_SPREAD",
        undeclared=tuple(dict.fromkeys(machine.name for machine in machines if not machine.declared)),
        machine_type=first.machine_type or "",
        nodes=first.count,
    )


def avoiding(wanted: Sequence[Bundle], node_ids: Sequence[str]) -> tuple[Bundle, ...]:
    """The same bundles, on none of these nodes."""
    if not node_ids:
        return tuple(wanted)
    elsewhere = f"!in({','.join(sorted(node_ids))})"
    return tuple(replace(bundle, labels={**bundle.labels, NODE_ID_LABEL: elsewhere}) for bundle in wanted)


def words(resources: Mapping[str, float]) -> str:
    """Resources for a person: "8 CPUs, 1 GPU, 30 GiB of memory"."""
    told = []
    for name, amount in resources.items():
        if name == "memory":
            told.append(f"{amount / GIB:.3g} GiB of memory")
        elif name in {"CPU", "GPU"}:
            told.append(f"{amount:g} {name}{'' if amount == 1 else 's'}")
        else:
            told.append(f"{amount:g} {name}")
    return ", ".join(told)


def unplaced_pause_s(times: int) -> float:
    """How long to leave alone what Ray had no place for, so often by now, while our own count has room for it.

    Somebody else uses that room, and nobody tells us when they stop; each try is two lines of the timeline. It grows
    from a moment, since Ray may only have been late in giving back what an attempt of ours had, to half an hour.
    """
    return min(UNPLACED_S * 2.0 ** (min(times, 16) - 1), UNPLACED_MAX_S)


def free_of(capacity: Capacity, running: Sequence[Running]) -> list[NodeCapacity]:
    """The living nodes with what our attempts leave of them; attempts not placed yet are put where they fit."""
    left = {node.node_id: node for node in capacity.alive}
    unplaced = []
    for attempt in running:
        if not attempt.node_ids:
            unplaced.append(attempt)
        for node_id, bundle in zip(attempt.node_ids, attempt.needs.bundles, strict=False):
            if node_id in left:
                left[node_id] = _minus(left[node_id], bundle)
    nodes = list(left.values())
    for attempt in unplaced:
        nodes = placed(attempt.needs, nodes) or nodes
    return nodes


def placed(wanted: Needs, free: Sequence[NodeCapacity]) -> list[NodeCapacity] | None:
    """What is left when all bundles have their places; None when one has none."""
    nodes = list(free)
    places = _spread(wanted.bundles, nodes) if wanted.strategy == "STRICT_SPREAD" else _pack(wanted.bundles, nodes)
    if len(places) < len(wanted.bundles):
        return None
    for index, place in places.items():
        nodes[place] = _minus(nodes[place], wanted.bundles[index])
    return nodes


def fits(wanted: Needs, free: Sequence[NodeCapacity]) -> bool:
    """Whether all of it can be placed at once."""
    return placed(wanted, free) is not None


def placeable(wanted: Needs, nodes: Sequence[NodeCapacity]) -> int:
    """For how many of its nodes there is a place, when they are placed together."""
    return len((_spread if wanted.strategy == "STRICT_SPREAD" else _pack)(wanted.bundles, nodes))


def ever_fits(wanted: Needs, most: Capacity, machines: Machines) -> bool:
    """Whether waiting makes sense.

    A machine type of the operator's table is declared capacity: what is merely absent now is waited for. Without a
    table, the most that this cluster ever had decides; a cluster that never had a node says nothing.
    """
    if wanted.undeclared:
        return False
    if machines.table is not None or not most.nodes:
        return True
    return fits(wanted, most.alive)


def shortage(wanted: Needs, free: Sequence[NodeCapacity]) -> Shortage:
    """What is missing for it to be placed, at the node that comes closest."""
    bundle = _first_unplaced(wanted, free)
    labelled = [node for node in free if _matches(bundle.labels, node)]
    if not labelled:
        return Shortage(Blocked.MACHINES, needed=bundle.resources, missing=bundle.resources)

    def gap(node: NodeCapacity) -> float:
        return sum(max(0.0, need - node.total.get(name, 0)) / need for name, need in bundle.resources.items())

    best = min(labelled, key=lambda node: (gap(node), node.host))
    has = {name: max(0.0, best.total.get(name, 0.0)) for name in bundle.resources}
    missing = {name: need - has[name] for name, need in bundle.resources.items() if need > has[name] + EPSILON}
    return Shortage(Blocked.MACHINES, needed=bundle.resources, free=has, missing=missing, host=best.host)


def _bundle(machine: Machine) -> Bundle:
    resources = {"CPU": float(machine.cpus), "GPU": float(machine.gpus), "memory": float(machine.memory_bytes or 0)}
    return Bundle({name: amount for name, amount in resources.items() if amount}, machine.labels)


def _first_unplaced(wanted: Needs, free: Sequence[NodeCapacity]) -> Bundle:
    if len(wanted.bundles) == 1:
        return wanted.bundles[0]
    place: Callable[[Sequence[Bundle], Sequence[NodeCapacity]], dict[int, int]]
    place = _spread if wanted.strategy == "STRICT_SPREAD" else _pack
    places = place(wanted.bundles, free)
    return next((b for index, b in enumerate(wanted.bundles) if index not in places), wanted.bundles[0])


def _pack(wanted: Sequence[Bundle], free: Sequence[NodeCapacity]) -> dict[int, int]:
    """Bundle to node, the largest first, each where it fits: several may share a node."""
    nodes, places = list(free), {}
    order = sorted(range(len(wanted)), key=lambda i: sorted(wanted[i].resources.items()), reverse=True)
    for index in order:
        place = next((i for i, node in enumerate(nodes) if _has(node, wanted[index])), None)
        if place is not None:
            nodes[place] = _minus(nodes[place], wanted[index])
            places[index] = place
    return places


def _spread(wanted: Sequence[Bundle], free: Sequence[NodeCapacity]) -> dict[int, int]:
    """Bundle to node, each node at most once: a maximum matching by augmenting paths."""
    taken: dict[int, int] = {}
    options = [[i for i, node in enumerate(free) if _has(node, bundle)] for bundle in wanted]

    def seat(index: int, tried: set[int]) -> bool:
        for place in options[index]:
            if place not in tried:
                tried.add(place)
                if place not in taken or seat(taken[place], tried):
                    taken[place] = index
                    return True
        return False

    for index in range(len(wanted)):
        seat(index, set())
    return {index: place for place, index in taken.items()}


def _has(node: NodeCapacity, bundle: Bundle) -> bool:
    for name, amount in bundle.resources.items():
        if node.total.get(name, 0) + EPSILON < amount:
            return False
    return _matches(bundle.labels, node)


def _minus(node: NodeCapacity, bundle: Bundle) -> NodeCapacity:
    total = dict(node.total)
    for name, amount in bundle.resources.items():
        total[name] = total.get(name, 0.0) - amount
    return replace(node, total=total)


def _matches(labels: Mapping[str, str], node: NodeCapacity) -> bool:
    """Whether a node carries what a label selector asks: `value`, `!value`, `in(a, b)` or `!in(a, b)`."""
    for name, selector in labels.items():
        negated, values = _selector(selector)
        value = node.node_id if name == NODE_ID_LABEL else node.labels.get(name)
        if (value in values) == negated:
            return False
    return True


@lru_cache(256)
def _selector(selector: str) -> tuple[bool, frozenset[str]]:
    """Whether it is negated, and the values it names; a thousand nodes are asked by the same few."""
    negated = selector.startswith("!")
    wanted = selector.removeprefix("!")
    values = {each.strip() for each in wanted[3:-1].split(",")} if wanted.startswith("in(") else {wanted}
    return negated, frozenset(values)
