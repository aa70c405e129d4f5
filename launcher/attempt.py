"""One attempt as the controller is given it, the operator's rules for it, and the journal it writes. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from launcher.experiment import Held, Specification
from launcher.keep import CodeArchive
from launcher.machines import Machine
from launcher.state import Cause, Progress, Signal


class Ended(Exception):
    """The attempt ends, for a cause and with what fills its sentence."""

    def __init__(self, cause: Cause, **detail: Any) -> None:
        super().__init__(f"{cause}: {detail}")
        self.cause = cause
        self.detail = detail


class Journal(Protocol):
    """Where the attempt's facts are recorded, by compare-and-swap; raises when somebody else drives it now."""

    async def signal(
        self,
        experiment_id: int,
        expected: Progress,
        signal: Signal,
        cause: Cause | None = None,
        *,
        detail: dict[str, Any] | None = None,
        held: Held | None = None,
    ) -> Progress:
        """Record a fact and give the progress it leads to."""

    async def hold(self, experiment_id: int, expected: Progress, held: Held) -> None:
        """Record what the attempt holds, before it is used."""

    async def remark(self, experiment_id: int, notes: Sequence[str]) -> None:
        """Record what a reader should know besides."""

    async def quarantine(self, host: str, why: str) -> None:
        """Record that a host could not be proven clean."""


@dataclass(frozen=True)
class Attempt:
    """All that an attempt needs to know; `env` is what the experiment's commands see besides the node's own."""

    experiment_id: int
    specification: Specification
    machines: tuple[Machine, ...]
    """One for each node group, in their order."""
    progress: Progress
    held: Held
    code: CodeArchive
    env: dict[str, str]
    storage_key: str
    trusted: bool
    running_at: float | None
    entered_at: float
    """When it came into its state."""
    taken_up_at: float
    """Since when this worker drives it, or could have."""
    avoided_hosts: frozenset[str] = frozenset()
    """Hosts that were not proven clean: Ray may have room there, we have not."""


@dataclass(frozen=True)
class Rules:
    """The operator's word on how attempts run; seconds and bytes in names."""

    isolation: str = "auto"
    time_limit_s: int = 86400
    grace_s: float = 10
    log_max_bytes: int = 1 << 30
    allow_shared_hosts: bool = False
    shared_storage: bool = False
    """/storage is one file system on all nodes."""
    fence_s: float = 120
    """After that much silence of the head an agent ends what it runs."""
    group_prefix: str = ""
    """Before the names of groups, for whoever is not the App; see `launcher.group_names`."""
