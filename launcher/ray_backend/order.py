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
