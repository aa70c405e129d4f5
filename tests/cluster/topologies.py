"""What is run in each topology: a configuration file whose every process leaves a trace. Pure.

A row more is one line of ROWS; READY names those that the tests run.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster import environments

READY = ("single", "multi-torch", "multi-grpc", "multi-mpi-openmpi4", "multi-mpi-openmpi5", "multi-mpi-mpich")
SYSTEM = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SAMPLES = Path(__file__).with_name("samples")
RANK = "${OMPI_COMM_WORLD_RANK:-$PMI_RANK}"
"""A process's number under Open MPI and under MPICH."""
WAITS_S = 1000
"""How long a node that does not decide would go on."""

Trace = Callable[[str, float], str]
"""The command of the process of this name that goes on for so many seconds."""


@dataclass(frozen=True)
class Row:
    """A topology with its frameworks: its name, and its top-level keys of a version 1 file.

    `traces` are the names of the processes whose ends are the attempt's success. `mpi` says that mpirun and daemons of
    it are there to be killed.
    """

    name: str
    keys: Callable[[Trace, float], Mapping[str, Any]]
    traces: tuple[str, ...] = ("0",)
    mpi: bool = False

    def file(self, token: str, seconds: float, **more: Any) -> str:
        """The configuration file, as JSON, which is YAML too; `more` are top-level keys."""
        return written({**self.keys(lambda name, s: f"sh train.sh {token}.{name} {s:.2f} 0", seconds), **more})

    def waiting(self, token: str) -> str:
        """One whose machines this cluster does not have now, so that it waits for them."""
        keys = self.keys(lambda name, s: f"sh train.sh {token}.{name} {s:.2f} 0", 1.0)
        groups = {name: {**group, "machine-type": "absent"} for name, group in keys.items() if "command" in group}
        return written({**keys, **groups})


def written(keys: Mapping[str, Any]) -> str:
    """A version 1 file with these keys."""
    return json.dumps({"version": 1, "experiment": "exp", **keys})


def path_of(environment: str) -> str:
    """PATH of a command that uses one of the prepared environments."""
    return f"{environments.where(environment)}/bin:{SYSTEM}"


def _single(trace: Trace, seconds: float) -> Mapping[str, Any]:
    return {"type": "single", "worker": {"command": trace("0", seconds), "machine-type": "elsewhere"}}


def _grpc(trace: Trace, seconds: float) -> Mapping[str, Any]:
    worker = {"command": trace("worker$INDEX", seconds), "count": 2, "machine-type": "half"}
    server = {"command": trace("ps$INDEX", WAITS_S), "count": 1, "machine-type": "half"}
    return {"type": "multi-grpc", "worker": worker, "parameter-server": server}


def _torch(trace: Trace, seconds: float) -> Mapping[str, Any]:
    return {"type": "multi-torch", "worker": {"command": trace("$RANK", seconds), "count": 2, "machine-type": "whole"}}


def _mpi(environment: str) -> Callable[[Trace, float], Mapping[str, Any]]:
    def keys(trace: Trace, seconds: float) -> Mapping[str, Any]:
        command = f"mpirun -np 4 --hostfile /generated/hostfile sh -c '{trace(RANK, seconds)}'"
        return mpi_keys(environment, command)

    return keys


def mpi_keys(environment: str, command: str) -> Mapping[str, Any]:
    """A master and a worker that waits, on a host each."""
    return {
        "type": "multi-mpi",
        "experimentEnv": {"PATH": path_of(environment)},
        "master": {"command": command, "count": 1, "machine-type": "whole"},
        "worker": {"command": "sleep infinity", "count": 1, "machine-type": "whole"},
    }


_FOUR = ("0", "1", "2", "3")
ROWS = {
    row.name: row
    for row in (
        Row("single", _single),
        Row("multi-grpc", _grpc, ("worker0",)),
        Row("multi-torch", _torch, ("0", "1")),
        Row("multi-mpi-openmpi4", _mpi("openmpi4"), _FOUR, mpi=True),
        Row("multi-mpi-openmpi5", _mpi("openmpi5"), _FOUR, mpi=True),
        Row("multi-mpi-mpich", _mpi("mpich"), _FOUR, mpi=True),
    )
}


@dataclass(frozen=True)
class Training:
    """A real training: its topology, its keys, its files and what its log says in the end."""

    name: str
    topology: str
    keys: Mapping[str, Any]
    files: tuple[str, ...]
    says: str


def trainings() -> tuple[Training, ...]:
    """Every sample with the configuration that it is run by."""

    def groups(kind: str, environment: str, **each: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"type": kind, "experimentEnv": {"PATH": path_of(environment)}, **each}

    server = {"command": "python tensorflow_ps.py", "count": 1, "machine-type": "half"}
    three = {"command": "python tensorflow_ps.py", "count": 3, "machine-type": "half"}  # worker 0 is the chief
    torch = {"command": "torchrun --nproc-per-node 2 torch_gloo.py", "count": 2, "machine-type": "whole"}
    jax = {"command": "python jax_two.py", "count": 2, "machine-type": "whole"}
    grpc = groups("multi-grpc", "tensorflow", worker=three, **{"parameter-server": server})
    published = {"command": "python gradient_config.py", "count": 2, "machine-type": "half"}
    servers = {"parameter-server": {**published, "count": 1}}
    original = groups("multi-grpc", "gradient", worker=published, **servers)
    return (
        Training("tensorflow", "multi-grpc", grpc, ("tensorflow_ps.py",), "chief: trained"),
        Training("gradient-utils", "multi-grpc", original, ("gradient_config.py",), "decoded by master 0"),
        Training("torch", "multi-torch", groups("multi-torch", "torch", worker=torch), ("torch_gloo.py",), "trained"),
        Training("jax", "multi-torch", groups("multi-torch", "jax", worker=jax), ("jax_two.py",), "trained"),
        *(_mpi_training(name, environment) for name in ("allreduce", "train") for environment in _MPIS),
    )


_MPIS = ("openmpi4", "openmpi5", "mpich")


def _mpi_training(name: str, environment: str) -> Training:
    file = f"mpi_{name}.py"
    literal = f"mpirun --allow-run-as-root -np 4 --hostfile /generated/hostfile python -m mpi4py {file}"
    plain = f"mpirun python -m mpi4py {file}"
    command = literal if name == "train" else f"{plain} && {plain}"
    says = {"allreduce": "all-reduce over 4 ranks: right", "train": "trained"}[name]
    return Training(f"{name}-{environment}", f"multi-mpi-{environment}", mpi_keys(environment, command), (file,), says)
