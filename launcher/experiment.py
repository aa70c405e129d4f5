"""What an experiment is to run: its topology, node groups, environment and limits. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field


class Value(BaseModel):
    """A frozen value that refuses keys it does not know; the base of all that is stored as JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Role(StrEnum):
    """What the nodes of a group do."""

    WORKER = "worker"
    PARAMETER_SERVER = "parameter-server"
    MASTER = "master"


class Dockerfile(Value):
    """The image is to be built from the repository."""

    path: str = "./Dockerfile"


class NodeGroup(Value):
    """The nodes of one role; every one runs the same command on the same machine type."""

    role: Role
    count: int = Field(default=1, ge=1)
    command: str
    machine_type: str | None = None
    container: str | None = None
    dockerfile: Dockerfile | None = None


class Specification(Value):
    """All that the launcher needs to know of an experiment, as the configuration file describes it.

    `topology` is one of the names in `launcher.topology.SHAPES`. `workdir` and `artifacts` are paths inside the
    sandbox, as written; `timeout_s` is RUNNING time of one attempt.
    """

    name: str
    topology: str
    groups: tuple[NodeGroup, ...]
    env: dict[str, str] = Field(default_factory=dict)
    ports: tuple[int, ...] = ()
    workdir: str | None = None
    artifacts: str | None = None
    model_type: str | None = None
    model_path: str | None = None
    timeout_s: int | None = Field(default=None, ge=1)
    retries: int = Field(default=0, ge=0)


class NodeState(StrEnum):
    """Where one node of an attempt stands, as a person reads it."""

    HELD = "reserved"
    READY = "ready"
    RUNNING = "running"
    ENDED = "ended"
    STOPPED = "stopped"  # by us, since the attempt was over
    LOST = "lost"


@dataclass(frozen=True)
class HeldNode:
    """One node of an attempt; `key` names its directory and guardian on that node.

    `root_id` tells the directory where its agent keeps attempts from every other; empty in old records. `role` and
    `index` say what it is in the gang, `ports` which were reserved there, by the topology's names. `state` and how its
    command ended are as last seen. The attempt succeeds once all nodes that decide have.
    """

    key: str
    node_id: str
    host: str
    address: str
    gpu_ids: tuple[str, ...] = ()
    isolation: str = ""
    root_id: str = ""
    role: str = ""
    index: int = 0
    machine_type: str | None = None
    decides: bool = True
    ports: Mapping[str, int] = field(default_factory=dict)
    state: NodeState = NodeState.HELD
    exit_code: int | None = None
    signal: str | None = None

    @property
    def rank(self) -> int:
        """Its place among the nodes of its gang, which ends its key."""
        return int(self.key.rpartition("-n")[2])

    @property
    def words(self) -> str:
        """The node for a person: "worker 2 on host-c"; in a gang of one, just its host."""
        return f"{self.role} {self.index} on {self.host}" if self.role else self.host

    @property
    def place(self) -> str:
        """Below which name its artifacts are kept: "worker-2"; "" for a single node, which has them to itself."""
        return f"{self.role}-{self.index}" if self.role else ""


@dataclass(frozen=True)
class Held:
    """What an attempt holds, enough to find it again after any crash: the placement group by name, its nodes by rank.

    `connected` is set once every node has its network document and has reached every other: neither is done again when
    commands may have begun.
    """

    group: str = ""
    cluster_id: str = ""
    nodes: tuple[HeldNode, ...] = ()
    connected: bool = False
    before: tuple[str, ...] = ()
    """The hosts of the attempt before, while the experiment waits for the next."""
    lost: tuple[str, ...] = ()
    """Those of them that it was lost with: the next one goes elsewhere, where that is possible."""
