"""The nodes of a gang as a reader meets them: in a table, and the one whose log tells why it ended. Pure."""

from collections.abc import Mapping
from typing import Any

from ci_bot.records import Experiment, HeldNode
from ci_bot.report import amounts
from ci_bot.report.markdown import Ink, link, table
from launcher.experiment import NodeState
from launcher.state import Cause

MOST_NODES = 16
"""Shown in a check run from the first on, and as many more of those that did not do well."""
_HEADINGS = ("Node", "Rank", "Host", "Machine", "GPUs", "State", "Exit code")


def gang(experiment: Experiment) -> tuple[HeldNode, ...]:
    """The nodes that the attempt holds, by rank, where there are several."""
    nodes = experiment.held.nodes
    return nodes if len(nodes) > 1 and all(node.role for node in nodes) else ()


def node_of(experiment: Experiment, rank: int) -> HeldNode | None:
    """The node of a gang, if it is held."""
    return next((node for node in gang(experiment) if node.rank == rank), None)


def first_cause(experiment: Experiment) -> int | None:
    """The rank of the node whose end was the end of the attempt; None where none was to blame."""
    cause, detail = experiment.progress.cause, experiment.detail
    if cause is None or cause is Cause.SUCCEEDED:
        return None
    rank = detail.get("rank")
    if isinstance(rank, int) and 0 <= rank < node_count(experiment):
        return rank
    return _on_host(gang(experiment), detail)


def told_by(experiment: Experiment) -> int:
    """The rank of the node whose log is shown unless another is asked for."""
    return first_cause(experiment) or 0


def node_count(experiment: Experiment) -> int:
    """How many nodes each attempt has."""
    return sum(group.count for group in experiment.specification.groups)


def _on_host(nodes: tuple[HeldNode, ...], detail: Mapping[str, Any]) -> int | None:
    """A node that was lost is told by its host, which several may share."""
    there = [node for node in nodes if node.host == detail.get("node")]
    lost = [node for node in there if node.state is NodeState.LOST]
    return next((node.rank for node in [*lost, *there]), None)


def failed(node: HeldNode) -> bool:
    """Its end was no good one."""
    return node.state is NodeState.LOST or bool(node.exit_code) or bool(node.signal)


def exit_words(node: HeldNode) -> str:
    """How its command ended: "137", "SIGKILL", or "" as long as that is not known."""
    return node.signal or ("" if node.exit_code is None else str(node.exit_code))


def log_url(details_url: str, rank: int) -> str:
    """The whole log of a node."""
    return f"{details_url}/log?node={rank}" if details_url else ""


def nodes_table(experiment: Experiment, details_url: str, ink: Ink) -> str:
    """A line for each node of a gang; of many the first, and those that did not do well, the first cause above all."""
    nodes = gang(experiment)
    if not nodes:
        return ""
    blamed = first_cause(experiment)
    others = [node for node in nodes[MOST_NODES:] if node.rank == blamed or failed(node)]
    others.sort(key=lambda node: node.rank != blamed)
    shown = sorted([*nodes[:MOST_NODES], *others[:MOST_NODES]], key=lambda node: node.rank)
    rows = [_row(node, details_url, ink) for node in shown]
    left = len(nodes) - len(shown)
    more = f"\n\n{amounts.plural(left, 'more node')} on the dashboard." if left else ""
    return f"### Nodes\n\n{table(_HEADINGS, rows)}{more}"


def _row(node: HeldNode, details_url: str, ink: Ink) -> list[str]:
    return [
        link(ink.text(f"{node.role} {node.index}"), log_url(details_url, node.rank)),
        str(node.rank),
        ink.code(node.host),
        ink.text(node.machine_type or ""),
        ink.text(", ".join(node.gpu_ids)),
        node.state.value,
        ink.text(exit_words(node)),
    ]
