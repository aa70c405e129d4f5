"""What an attempt's directory says of it, whoever wrote that and when: whose it is, what it was told, how it went."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from launcher import guardian_client
from launcher.guardian import durable
from launcher.guardian.segments import Segments
from launcher.node_types import Document, Exit, NodeError, NodeStatus, PrepareOrder
from launcher.preparation import prepared
from launcher.state import Cause

CLUSTER = "cluster"
DOCUMENT = "network.json"


def belong(attempt: Path, cluster_id: str) -> None:
    """Write down which cluster an attempt is of."""
    (attempt / CLUSTER).write_text(cluster_id)


def is_of(attempt: Path, cluster_id: str) -> bool:
    """Whether an attempt is of that cluster, or of none by name."""
    try:
        return (attempt / CLUSTER).read_text() in {"", cluster_id}
    except FileNotFoundError:
        return True


def tell(attempt: Path, document: Document) -> None:
    """Keep the network document of an attempt whose command has not begun: it will find that one.

    Raises:
        NodeError: it was not prepared, or has begun.
    """
    waiting(attempt)
    durable.write(str(attempt / DOCUMENT), json.dumps(asdict(document)).encode())


def told(attempt: Path) -> Document:
    """The network document that the node was told.

    Raises:
        NodeError: it was told none.
    """
    try:
        known = json.loads((attempt / DOCUMENT).read_bytes())
    except FileNotFoundError as error:
        why = f"{attempt.name} was told nothing of the other nodes"
        raise NodeError(Cause.PREPARATION_FAILED, why) from error
    return Document(**{**known, "hosts": tuple((address, name) for address, name in known["hosts"])})


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
