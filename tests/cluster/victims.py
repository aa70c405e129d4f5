"""Who is there to be killed, on which host, and of which node of an attempt."""

import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launcher.experiment import HeldNode
from tests.cluster.cells import Fault
from tests.cluster.hosts import Host, Process

MPIRUNS = frozenset({"mpirun", "mpiexec", "mpiexec.hydra", "prterun"})
DAEMONS = frozenset({"orted", "prted", "hydra_pmi_proxy"})


@dataclass(frozen=True)
class Victim:
    """A process, its host, and the node whose it is; None of one that serves all nodes of its host."""

    process: Process
    host: str
    node: HeldNode | None

    @property
    def words(self) -> str:
        return f"{self.process.comm} {self.process.pid} of {self.node.words if self.node else self.host}"

    def kill(self) -> bool:
        """SIGKILL; False when it had gone."""
        with suppress(ProcessLookupError):
            os.kill(self.process.pid, signal.SIGKILL)
            return True
        return False


def victims(fault: Fault, token: str, hosts: Sequence[Host], nodes: Sequence[HeldNode]) -> list[Victim]:
    """Everyone on these hosts whom this fault may strike."""
    return [victim for host in hosts for victim in _on(host, fault, token, nodes)]


def names(detail: Mapping[str, Any], node: HeldNode) -> bool:
    """Whether the record of an end names this node, and it alone. Pure."""
    said = (detail.get("node"), detail.get("who"), detail.get("rank"))
    return said == ((node.host, node.words, node.rank) if node.role else (node.host, None, None))


def _on(host: Host, fault: Fault, token: str, nodes: Sequence[HeldNode]) -> Iterator[Victim]:
    everyone = host.processes()
    here = [node for node in nodes if node.host == host.name]
    for process in everyone:
        if _is_meant(process, fault, token):
            shared = fault in {Fault.AGENT, Fault.RAYLET}
            node = None if shared else _node_of(process, everyone, here)
            # Beside mpirun itself a daemon may be its own child, and nobody's but the command's.
            if fault is not Fault.DAEMON or (node and not node.decides):
                yield Victim(process, host.name, node)


def _is_meant(process: Process, fault: Fault, token: str) -> bool:
    match fault:
        case Fault.RANK:
            return process.argv.startswith(f"sh train.sh {token}")
        case Fault.GUARDIAN:
            return process.comm == "guardian"
        case Fault.AGENT:
            return process.argv.startswith("ray::NodeAgent")
        case Fault.RAYLET:
            return process.comm == "raylet"
        case Fault.MPIRUN:
            return process.comm in MPIRUNS
        case Fault.DAEMON:
            return process.comm in DAEMONS
        case _:
            return False


def _node_of(process: Process, everyone: Sequence[Process], nodes: Sequence[HeldNode]) -> HeldNode | None:
    """The node in whose sandbox it is, or whose sandbox it has started: the sandbox's start names the directory."""
    above = _ancestors(process.pid)
    for other in everyone:
        if other.pid in above or process.pid in _ancestors(other.pid):
            for node in nodes:
                if f"attempts/{node.key}/" in f"{other.argv} ".replace(" ", "/"):
                    return node
    return None


def _ancestors(pid: int) -> set[int]:
    """Itself, its parent, and so on."""
    found = set[int]()
    while pid > 1 and pid not in found:
        found.add(pid)
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            break
    return found
