"""What an experiment is to run: its topology, node groups, environment and limits. Pure."""

from dataclasses import dataclass
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field


class Value(BaseModel):
    """A frozen value that refuses keys it does not know; the base of all that is stored as JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Topology(StrEnum):
    """The shape of an experiment, in the words of the configuration file (version 1 `type`)."""

    SINGLE = "single"
    MULTI_GRPC = "multi-grpc"
    MULTI_MPI = "multi-mpi"
    MULTI_TORCH = "multi-torch"


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

    `workdir` and `artifacts` are paths inside the sandbox, as written; `timeout_s` is RUNNING time of one attempt.
    """

    name: str
    topology: Topology
    groups: tuple[NodeGroup, ...]
    env: dict[str, str] = Field(default_factory=dict)
    ports: tuple[int, ...] = ()
    workdir: str | None = None
    artifacts: str | None = None
    model_type: str | None = None
    model_path: str | None = None
    timeout_s: int | None = Field(default=None, ge=1)
    retries: int = Field(default=0, ge=0)


@dataclass(frozen=True)
class HeldNode:
    """One node of an attempt; `key` names its directory and guardian on that node."""

    key: str
    node_id: str
    host: str
    address: str
    gpu_ids: tuple[str, ...] = ()
    isolation: str = ""


@dataclass(frozen=True)
class Held:
    """What an attempt holds, enough to find it again after any crash: the placement group by name, and its nodes."""

    group: str = ""
    cluster_id: str = ""
    nodes: tuple[HeldNode, ...] = ()
