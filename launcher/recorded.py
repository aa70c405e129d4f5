"""What an attempt's directory says of it, whoever wrote that and when: begun, ended, its log."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from launcher import guardian_client
from launcher.guardian.segments import Segments
from launcher.node_types import Exit, NodeError, NodeStatus, PrepareOrder
from launcher.preparation import prepared
from launcher.state import Cause

CLUSTER = "cluster"


def belong(attempt: Path, cluster_id: str) -> None:
    """Write down which cluster an attempt is of."""
    (attempt / CLUSTER).write_text(cluster_id)


def cluster_of(attempt: Path) -> str:
    """The cluster that an attempt is of; empty where nobody has said."""
    try:
        return (attempt / CLUSTER).read_text()
    except FileNotFoundError:
        return ""


def begun(attempt: Path) -> bool:
    """Whether its command has begun, however that went on."""
    return guardian_client.started_of(attempt) is not None or guardian_client.exit_of(attempt) is not None


def waiting(attempt: Path) -> PrepareOrder:
    """What an attempt was prepared for whose command has not begun.

    Raises:
        NodeError: it was not prepared, or has begun.
    """
    order = prepared(attempt)
    if order is None or begun(attempt):
        raise NodeError(Cause.PREPARATION_FAILED, f"{attempt.name} {'has begun' if order else 'was not prepared'}")
    return order


def log(attempt: Path) -> Segments:
    """Its log, only to be read: the cap is its writer's."""
    return Segments(attempt / "log", 1)


def unguarded(attempt: Path) -> NodeStatus:
    """Where an attempt stands that no guardian watches."""
    began, record = guardian_client.started_of(attempt), guardian_client.exit_of(attempt)
    started_at, log_size = (began or {}).get("at"), log(attempt).size
    if record is not None:
        return NodeStatus("ended", exit=_exit(record), log_size=log_size, started_at=started_at)
    if began is not None:
        return NodeStatus("lost", log_size=log_size, started_at=started_at)
    return NodeStatus("absent" if prepared(attempt) is None else "prepared")


def _exit(record: Mapping[str, Any]) -> Exit:
    return Exit(Cause(record["cause"]), record["exit_code"], record["signal"], record["at"], record["detail"])
