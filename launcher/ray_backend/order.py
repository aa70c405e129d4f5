"""What an agent is made with. Pure."""

from dataclasses import dataclass
from pathlib import Path

NAMESPACE = "descent"


@dataclass(frozen=True)
class AgentOrder:
    """What an agent is made with; two orders that differ make different agents, and the older one gives way."""

    identity: str
    """Changes with the code and the settings."""
    fence_s: float
    storage_dir: Path | None = None


def agent_name(node_id: str) -> str:
    """The name under which Ray knows a node's agent."""
    return f"agent-{node_id}"


def identity_of(code: str, fence_s: float, storage_dir: Path | None) -> str:
    """What tells one order from another: the code and the settings."""
    return f"{code} {fence_s:g} {storage_dir or ''}"


def refusal(theirs: str, ours: str) -> str:
    """Why an agent that somebody else's order made can't be used, by their identities."""
    code, fence_s, storage_dir = theirs.split(" ", 2)
    if code != ours.split(" ", 1)[0]:
        return "its agent is of another version of Descent; use the version of this cluster's worker"
    storage = f"STORAGE_DIR={storage_dir}" if storage_dir else "without STORAGE_DIR"
    return f"its agent was made with FENCE_S={fence_s} and {storage}; set the same here"
