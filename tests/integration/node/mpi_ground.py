"""Several nodes on this host that form one gang, with a real MPI in the environment of their attempts."""

import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uv

from launcher import environment, guardian_client, trees
from launcher.backend import NodeUnavailable
from launcher.daemons import RECORD
from launcher.guardian import tree
from launcher.network import Network, NetworkNode
from launcher.node import Node
from launcher.node_root import BOOT_ID
from launcher.node_types import Daemon, Document, Launch, LaunchPeer, NodeError
from launcher.topology import multi_mpi
from tests.integration.node.conftest import CODE, command_of, log_of, order_of, packed

CACHE = Path.home() / ".cache/descent-tests/mpi"
FOUND_S = 60.0
ALLREDUCE = """
import os, sys, time
from mpi4py import MPI
world = MPI.COMM_WORLD
total = world.allreduce(world.rank)
assert total == world.size * (world.size - 1) // 2, total
hosts = world.gather(os.uname().nodename)
if world.rank == 0:
    print("sum", total, "of", world.size, "on", len(set(hosts)), "hosts", flush=True)
if len(sys.argv) > 1:
    if world.rank == world.size - 1:
        exec(sys.argv[1])
    world.barrier()
"""
WAIT = """print('ready', flush=True)
while not os.path.exists('/storage/go'): time.sleep(0.05)"""


def seed_with(name: str, packages: tuple[str, ...]) -> Path:
    """What a node copies environments from, with an MPI in it; kept for the next test run."""
    CACHE.mkdir(parents=True, exist_ok=True)
    python = environment.base_python()
    seed = CACHE / f"{name}-{environment._fingerprint(python)}"
    with (CACHE / f"{name}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (seed / "whole").exists():
            shutil.rmtree(seed, ignore_errors=True)
            pristine = environment.warm(python, seed, os.environ)
            install = [uv.find_uv_bin(), "pip", "install", "-q", "--python", str(pristine / "bin/python"), *packages]
            done = subprocess.run(install, capture_output=True, text=True, timeout=100)
            if done.returncode:
                pytest.skip(f"{' '.join(packages)} can't be installed: {done.stderr.strip()[-200:]}")
            (seed / "whole").touch()
    return seed


class Gang:
    """Nodes on this host, each with its own directory; node 0 is the master of the attempts that `start` makes."""

    def __init__(self, root: Path, seed: Path, size: int) -> None:
        self.roots = [root / f"node{rank}" for rank in range(size)]
        self.keys = [f"exp-1-a1-n{rank}" for rank in range(size)]
        self.nodes: list[Node] = []
        self.down: set[int] = set()
        for rank, place in enumerate(self.roots):
            place.mkdir()
            (place / "seed").symlink_to(seed)
            (place / "boot").write_text(BOOT_ID.read_text())
            self.nodes.append(self.make(rank))
            self.nodes[rank].put_code(CODE, 0, packed({"allreduce.py": ALLREDUCE}), True)

    def make(self, rank: int) -> Node:
        return Node(self.roots[rank], environ=dict(os.environ), peer=self.ask)

    def ask(self, node_id: str, method: str, arguments: tuple[Any, ...]) -> Any:
        rank = int(node_id)
        node = self.nodes[rank]
        try:
            if rank not in self.down:
                return getattr(node, method)(*arguments)
        except NodeError:
            if rank not in self.down and node is self.nodes[rank]:
                raise  # else it went down meanwhile, which in an agent's process is no answer at all
        raise NodeUnavailable("its agent is down")

    def replace(self, rank: int) -> None:
        """The node's agent goes and its successor comes."""
        self.down.add(rank)
        self.nodes[rank].close()
        self.nodes[rank] = self.make(rank)
        self.down.discard(rank)

    def start(self, command: str, worker: str = "sleep infinity", *, isolation: str = "bubblewrap") -> None:
        for rank in range(len(self.nodes)):
            self.nodes[rank].prepare(self.keys[rank], order_of(isolation))
        for rank in reversed(range(len(self.nodes))):
            self.start_one(rank, command if rank == 0 else worker, isolation)

    def start_one(self, rank: int, command: str, isolation: str = "bubblewrap") -> None:
        names = [f"rank{each}" for each in range(len(self.nodes))]
        # Not an address of an interface: MPICH would take the node for the one that it is on itself.
        addresses = [f"127.0.0.{each + 2}" for each in range(len(self.nodes))]
        roles = ["master"] + ["worker"] * (len(self.nodes) - 1)
        network = Network(
            tuple(
                NetworkNode(number, role, max(0, number - 1), name, "here", address, slots=2)
                for number, (role, name, address) in enumerate(zip(roles, names, addresses, strict=True))
            )
        )
        peers = {names[each]: LaunchPeer(str(each), self.keys[each]) for each in range(1, len(self.nodes))}
        env = dict(multi_mpi.environment(network, rank))
        env.pop("PRTE_MCA_oob_tcp_if_include", None)  # PRRTE never takes the loopback device
        order = command_of(
            command,
            isolation,
            document=Document(
                names[rank], tuple(zip(addresses, names, strict=True)), dict(multi_mpi.files(network)), env
            ),
            launch=Launch(serves=rank > 0, peers=peers if rank == 0 else {}),
            grace_s=2,
            lease_s=60,
        )
        self.nodes[rank].start(self.keys[rank], order)

    def phase(self, rank: int) -> str:
        return self.nodes[rank].status([self.keys[rank]])[self.keys[rank]].phase

    def code(self) -> int | None:
        """How the master's command ends."""
        self.until(lambda: self.phase(0) == "ended")
        status = self.nodes[0].status([self.keys[0]])[self.keys[0]]
        assert status.exit is not None
        return status.exit.exit_code

    def daemons(self, rank: int) -> tuple[Daemon, ...]:
        return self.nodes[rank].status([self.keys[rank]])[self.keys[rank]].daemons

    def ended(self, rank: int) -> tuple[Daemon, ...]:
        """The daemons there, once all have ended: an mpirun does not wait for them."""
        self.until(lambda: all(each.at is not None for each in self.daemons(rank)))
        return self.daemons(rank)

    def log(self, rank: int = 0) -> str:
        return log_of(self.nodes[rank], self.keys[rank])

    def until(self, fact: Callable[[], object]) -> None:
        end = time.monotonic() + FOUND_S
        while not fact():
            assert time.monotonic() < end, [self.log(rank) for rank in range(len(self.nodes))]
            time.sleep(0.05)

    def processes(self, rank: int, *words: str) -> list[int]:
        """The processes in a node's sandbox that are one of some programs, or have its name for an argument."""
        started = guardian_client.started_of(self.roots[rank] / "attempts" / self.keys[rank])
        assert started is not None
        inside = f"/proc/{started['processes'][-1][0]}/ns/pid"
        found = []
        for pid in tree.numbers():
            with contextlib.suppress(OSError):
                line = Path(f"/proc/{pid}/cmdline").read_text(errors="replace").split("\0")
                known = os.path.basename(line[0]) in words or any(word in line[1:] for word in words)
                if known and os.readlink(f"/proc/{pid}/ns/pid") == os.readlink(inside):
                    found.append(pid)
        return found

    def go(self, rank: int) -> None:
        """Let what waits for a file in the storage of a node go on."""
        (self.roots[rank] / "storage/42/go").touch()

    def end(self) -> None:
        """Stop and clear all; nothing is left."""
        for rank, key in enumerate(self.keys):
            self.nodes[rank].stop(key, 0)
        for rank in range(len(self.nodes)):
            self.until(lambda rank=rank: self.phase(rank) != "running")
            assert self.nodes[rank].clean(self.keys[rank]).empty
            assert not guardian_client.sweep(self.keys[rank], self.roots[rank] / "attempts" / self.keys[rank])

    def close(self) -> None:
        for rank, node in enumerate(self.nodes):
            for key in node.inventory():
                guardian_client.purge(self.roots[rank] / "attempts" / key, key)
            node.close()
            trees.remove(self.roots[rank])


def on_disk(gang: Gang, rank: int) -> list[dict[str, Any]]:
    """What the node has noted of its daemons."""
    record = gang.roots[rank] / "attempts" / gang.keys[rank] / RECORD
    return [json.loads(line) for line in record.read_text().splitlines()] if record.exists() else []


@contextlib.contextmanager
def gang_of(root: Path, seed: Path, size: int) -> Iterator[Gang]:
    gang = Gang(root, seed, size)
    try:
        yield gang
    finally:
        gang.close()
