"""The nodes of a gang as the values that its page shows: a line each, and whose log there is to choose. Pure."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

from ci_bot.records import Experiment, HeldNode
from ci_bot.report import amounts
from ci_bot.report.markdown import Ink
from ci_bot.report.nodes import exit_words, failed, first_cause, gang
from launcher.experiment import NodeState, Specification
from launcher.topology import members_of

AT_ONCE = 11
"""How many lines the page shows before one must scroll."""
_TONES = {
    NodeState.HELD: "waiting",
    NodeState.READY: "waiting",
    NodeState.RUNNING: "running",
    NodeState.ENDED: "good",
    NodeState.STOPPED: "quiet",
    NodeState.LOST: "odd",
}


@dataclass(frozen=True)
class Line:
    """One node."""

    name: str
    rank: int
    host: str
    machine: str
    gpus: str
    state: str
    tone: str
    exit_code: str
    blamed: bool
    """Its end was the end of the attempt."""


def names(specification: Specification) -> list[str]:
    """What the nodes of a gang are called, by rank, before and after any is held; of a single node nothing."""
    members = members_of(specification)
    return [f"{member.role} {member.index}" for member in members] if len(members) > 1 else []


def lines(experiment: Experiment, ink: Ink) -> list[Line]:
    """The nodes that the attempt holds, by rank; of more than are seen at once those that did not do well first."""
    blamed, nodes = first_cause(experiment), gang(experiment)
    if len(nodes) > AT_ONCE:
        nodes = tuple(sorted(nodes, key=lambda node: (node.rank != blamed, not failed(node), node.rank)))
    return [_line(node, ink, blamed=node.rank == blamed) for node in nodes]


def _line(node: HeldNode, ink: Ink, *, blamed: bool) -> Line:
    return Line(
        name=ink.plain(f"{node.role} {node.index}"),
        rank=node.rank,
        host=ink.plain(node.host),
        machine=ink.plain(node.machine_type or ""),
        gpus=ink.plain(", ".join(node.gpu_ids)),
        state=node.state.value.capitalize(),
        tone="bad" if failed(node) and node.state is not NodeState.LOST else _TONES[node.state],
        exit_code=ink.plain(exit_words(node)),
        blamed=blamed,
    )


def summary(experiment: Experiment, ink: Ink) -> str:
    """How many are in which state: "64 nodes: 61 running, 3 ended; isolation: bubblewrap"."""
    nodes = gang(experiment)
    if not nodes:
        return ""
    states = Counter(node.state for node in nodes)
    counted = ", ".join(f"{states[state]} {state.value}" for state in NodeState if states[state])
    isolation = ", ".join(sorted({node.isolation for node in nodes if node.isolation}))
    return f"{amounts.plural(len(nodes), 'node')}: {counted}" + (
        f"; isolation: {ink.plain(isolation)}" if isolation else ""
    )


def records(experiment: Experiment, ink: Ink) -> list[dict[str, Any]]:
    """The nodes of any experiment, for the API."""
    return [
        {
            "rank": rank,
            "role": node.role or None,
            "index": node.index,
            "host": ink.plain(node.host),
            "machine_type": node.machine_type,
            "gpus": list(node.gpu_ids),
            "state": node.state.value,
            "exit_code": node.exit_code,
            "signal": node.signal,
        }
        for rank, node in enumerate(experiment.held.nodes)
    ]
