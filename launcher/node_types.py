"""What a node and the worker tell each other: orders, states, pieces of logs and files. Pure; everything pickles."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from launcher.state import Cause

Isolation = Literal["bubblewrap", "none"]
Phase = Literal["absent", "prepared", "running", "ended", "lost"]


class NodeError(Exception):
    """A node could not do what it was told; the cause says whose side it is, `why` is for a person."""

    def __init__(self, cause: Cause, why: str) -> None:
        super().__init__(cause, why)  # both in args, so that it pickles
        self.cause = cause
        self.why = why

    def __str__(self) -> str:
        return f"{self.cause}: {self.why}"


@dataclass(frozen=True)
class NodeFacts:
    """What a host is and can do.

    `isolation` is the best it has proven, `incarnation` changes with each agent. `root_id` is the id of the directory
    where it keeps its attempts: who reports the same one has the same attempts, whatever host and node are called.
    """

    host: str
    address: str
    incarnation: str
    isolation: Isolation
    isolation_why: str
    pid: int
    free_disk_bytes: int
    memory_total_bytes: int
    root_id: str = ""
    niceness: int = 0
    oom_score_adj: int = 0
    ray: Mapping[str, str] = field(default_factory=dict)
    """The settings that its Ray was started with, of those that `ray_environment` knows."""


@dataclass(frozen=True)
class Extracted:
    """What an archive held; submodules and LFS objects are not in GitHub's archives, so their traces are told."""

    files: int
    bytes: int
    submodules: bool
    lfs: bool


@dataclass(frozen=True)
class PrepareOrder:
    """What an attempt needs before its command can start.

    `workdir` and `artifacts` are the configuration's paths, as written. An attempt that is not `trusted` (a fork's)
    gets an empty storage and a throw-away cache, and is never without isolation.
    """

    code_key: str
    storage_key: str
    trusted: bool
    isolation: str
    workdir: str | None = None
    artifacts: str | None = None


@dataclass(frozen=True)
class LaunchPeer:
    """Where a node's command may have processes started: the node and the attempt's key there."""

    node_id: str
    key: str


@dataclass(frozen=True)
class Launch:
    """How a node takes part in an MPI launch.

    It `serves` where others may start processes; `peers` are where its own command may, by host name.
    """

    serves: bool
    peers: Mapping[str, LaunchPeer]


@dataclass(frozen=True)
class Daemon:
    """A process that another node's command started here; it runs as long as it has neither exit code nor signal."""

    id: str
    name: str
    exit_code: int | None
    signal: str | None
    at: float | None


@dataclass(frozen=True)
class Peer:
    """Where another node of the gang listens."""

    rank: int
    address: str
    port: int


@dataclass(frozen=True)
class Unreached:
    """A peer that could not be reached, and why, for a person."""

    rank: int
    address: str
    port: int
    why: str


@dataclass(frozen=True)
class Document:
    """The network document, as one node needs it; empty for a node that is alone.

    `hostname` is the sandbox's, "" leaves the attempt's own; `hosts` are the addresses and names that the command can
    resolve besides; `files` are texts below /generated, by plain names; `env` is what the command is told of its gang.
    """

    hostname: str = ""
    hosts: tuple[tuple[str, str], ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class StartOrder:
    """A command and its limits; a limit of None is no limit, `gpu_ids` are the node's own ordinals.

    Without a `document` it is the one that the node was told before, with its gang's; `env` wins over what that says.
    """

    command: str
    env: Mapping[str, str]
    gpu_ids: tuple[str, ...]
    isolation: str
    memory_bytes: int | None
    disk_bytes: int | None
    log_max_bytes: int
    grace_s: float
    lease_s: float
    pids: int = 4096
    document: Document | None = field(default_factory=Document)
    launch: Launch | None = None


@dataclass(frozen=True)
class Exit:
    """How a command ended: its cause, what the kernel said, when, and what fills the sentence of the cause."""

    cause: Cause
    exit_code: int | None
    signal: str | None
    at: float
    detail: Mapping[str, Any] = field(default_factory=dict)

    def told(self) -> dict[str, Any]:
        """What fills the sentence of the cause."""
        known = {"exit_code": self.exit_code, "signal": self.signal}
        return {name: value for name, value in known.items() if value is not None} | dict(self.detail)


@dataclass(frozen=True)
class NodeStatus:
    """Where an attempt stands on one node; `lost` is a command whose guardian died without leaving a record.

    `clock` is the node's time when it said so. `mpirun_gone` says of daemons that were launched from here, by id, when
    their mpirun had gone, on this node's clock, where that was before it was told of their end.
    """

    phase: Phase
    exit: Exit | None = None
    log_size: int = 0
    memory_bytes: int = 0
    started_at: float | None = None
    clock: float = field(default=0, compare=False)
    daemons: tuple[Daemon, ...] = ()
    mpirun_gone: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class LogChunk:
    """A piece of the log; `offset` is past the asked one where the middle was cut, `final` when nothing follows."""

    offset: int
    data: bytes
    next_offset: int
    size: int
    final: bool


@dataclass(frozen=True)
class Artifact:
    """A regular file below the artifacts directory; `path` is relative, with forward slashes."""

    path: str
    size: int


@dataclass(frozen=True)
class Clean:
    """Whether no process of an attempt is left on the node; `left` names those that are."""

    empty: bool
    left: tuple[str, ...] = ()
