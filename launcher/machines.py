"""Machine types: what a name of the configuration file means in processors, GPUs and memory. Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from launcher.backend import Capacity

GIB = 1 << 30
DEFAULT = "default"
"""The table's entry for a node group that names no machine type."""


@dataclass(frozen=True)
class Machine:
    """What a node of a machine type gets; None is no limit. `labels` are those its Ray node must carry."""

    name: str
    gpus: int = 0
    cpus: float = 1
    memory_bytes: int | None = None
    disk_bytes: int | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    declared: bool = True
    """False for a name that the operator's table does not have; such a machine never fits."""


@dataclass(frozen=True)
class Machines:
    """What every name means here. Without a table a name means one CPU, and the GPUs that machines of that name had."""

    table: Mapping[str, Machine] | None = None
    gpus: bool = False
    """Whether this cluster ever had a GPU; only asked without a table."""

    def seeing(self, most: Capacity) -> "Machines":
        """The same, knowing the most that this cluster ever had."""
        return replace(self, gpus=any(node.total.get("GPU", 0) >= 1 for node in most.nodes))

    def resolve(self, machine_type: str | None) -> Machine:
        """What the name means; a name the table does not have gives a machine that is not `declared`."""
        name = machine_type or DEFAULT
        if self.table is not None:
            unknown = Machine(name, declared=machine_type is None)
            return self.table.get(name, unknown)
        return Machine(name, gpus=known_gpus(name) if self.gpus else 0)

    def note(self, machine_type: str | None) -> str:
        """What a reader of the results must know about the name's meaning; empty when it is the table's."""
        if machine_type is None or self.table is not None:
            return ""
        meant, had = self.resolve(machine_type), known_gpus(machine_type)
        if had and not meant.gpus:
            return f"{machine_type} was taken as one CPU and no GPU: this cluster has no GPU, and no machines.yaml."
        gpus = f" and {meant.gpus} GPU{'s' if meant.gpus > 1 else ''}" if meant.gpus else ""
        return f"{machine_type} was taken as one CPU{gpus} on any node: there is no machines.yaml here."

    def unknown(self, machine_type: str) -> str:
        """Why a name the table does not have can't run, and which names would."""
        names = ", ".join(sorted(name for name in self.table or {} if name != DEFAULT))
        return f"machine type {machine_type} is not in machines.yaml; it has {names or 'none'}"


def known_gpus(name: str) -> int:
    """How many GPUs a machine of this name had where such files come from; 0 for CPU machines and unknown names.

    Sources: Paperspace's machine types (P4000, A100x8, GPU+…), Amazon's GPU instances (p2, p3, g4dn…).
    """
    if name in _INSTANCES:
        return _INSTANCES[name]
    match = _GPU_MACHINE.fullmatch(name)
    return int(match["count"] or 1) if match else 0


_GPU_MACHINE = re.compile(
    r"(?:Free-)?(?:GPU\+?|[MP][456]000|K80|P100|V100|T4|L4|RTX[45]000|A[456]000|[AH]100)(?:-\d+G)?(?:x(?P<count>\d{1,2}))?"
)
_INSTANCES = {
    "p2.xlarge": 1, "p2.8xlarge": 8, "p2.16xlarge": 16,
    "p3.2xlarge": 1, "p3.8xlarge": 4, "p3.16xlarge": 8, "p3dn.24xlarge": 8, "p4d.24xlarge": 8,
    "g3s.xlarge": 1, "g3.4xlarge": 1, "g3.8xlarge": 2, "g3.16xlarge": 4,
    "g4dn.xlarge": 1, "g4dn.2xlarge": 1, "g4dn.4xlarge": 1, "g4dn.8xlarge": 1, "g4dn.16xlarge": 1, "g4dn.12xlarge": 4,
}  # fmt: skip
