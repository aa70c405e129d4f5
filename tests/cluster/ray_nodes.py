"""A Ray node on each host, as an operator would start them: one after another, each with directories of its own."""

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from launcher import ray_environment
from tests.cluster import environments
from tests.cluster.hosts import NAMES, Host, Hosts, Process, Running
from tests.cluster.redis import Redis

PORT = 6379
CPUS = 2
OBJECT_STORE_BYTES = 100_000_000
START_S = 90.0
END_S = 20.0
HEAL_S = 120.0
_STARTED = "Ray runtime started"
_ROOT = Path(__file__).parents[2]


@dataclass
class RayNode:
    """The Ray node of one host; the first one is the head."""

    host: Host
    head: Host
    token_path: Path
    storage_dir: Path
    redis: Redis | None = None
    running: Running | None = None

    @property
    def node_dir(self) -> Path:
        """Where its agent works."""
        return self.host.directory / "node"

    @property
    def environment(self) -> dict[str, str]:
        """What its processes see; the variables that operators are told to set, and a home of the host's own."""
        kept = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8"}
        own = {"HOME": self._directory("home"), "TMPDIR": self._directory("tmp"), "NODE_DIR": str(self.node_dir)}
        said = {**kept, **own, **environments.for_nodes()}
        own = {"PYTHONPATH": str(_ROOT)} | (ray_environment.NODE_WITH_REDIS if self.redis else {})
        if self._is_head:
            own |= {"RAY_REDIS_ADDRESS": self.redis.address} if self.redis else {}
            return ray_environment.for_head(said, self.token_path) | own
        allowed = ray_environment.allowed(said) | ray_environment.authenticated(self.token_path)
        return allowed | ray_environment.NODE | own

    @property
    def _is_head(self) -> bool:
        return self.host is self.head

    def start(self) -> None:
        """Start it, and wait until it says that it has."""
        self.node_dir.mkdir(mode=0o755, exist_ok=True)
        output = self.host.directory / "ray.out"
        output.unlink(missing_ok=True)
        self.running = self.host.start(
            *self._argv(), environment=self.environment, output=output, cwd=self.host.directory
        )
        give_up_at = time.monotonic() + START_S
        while _STARTED not in output.read_text(errors="replace"):
            assert not self.running.ended, f"ray on {self.host.name}: {output.read_text()[-2000:]}"
            assert time.monotonic() < give_up_at, f"ray on {self.host.name}: {output.read_text()[-2000:]}"
            time.sleep(0.1)

    def _argv(self) -> list[str]:
        argv = [sys.executable, "-P", "-m", "launcher.ray_backend.start", "start", "--block"]
        argv += ["--node-ip-address", self.host.address, "--num-cpus", str(CPUS), "--num-gpus", "0"]
        argv += ["--labels", f"host={self.host.name}", "--object-store-memory", str(OBJECT_STORE_BYTES)]
        argv += ["--dashboard-agent-listen-port", "0", "--log-style=record", "--log-color=false"]
        argv += ["--include-log-monitor=false", "--disable-usage-stats"]
        if self._is_head:
            argv += ["--head", "--port", str(PORT), "--include-dashboard=false", "--no-monitor"]
            argv += ["--redis-password", self.redis.password] if self.redis else []
            return [*argv, "--temp-dir", self._directory("ray")]
        return [*argv, "--address", f"{self.head.address}:{PORT}", "--temp-dir", self._directory("ray")]

    def _directory(self, name: str) -> str:
        path = self.host.directory / name
        path.mkdir(mode=0o755, exist_ok=True)
        return str(path)

    @property
    def lives(self) -> bool:
        """Whether its raylet runs."""
        return self.raylet() is not None

    def raylet(self) -> Process | None:
        return next((process for process in self.host.processes() if process.comm == "raylet"), None)

    def stop(self) -> None:
        """End it as its service manager would."""
        if self.running:
            self.running.end(END_S)
            self.running = None

    def kill(self) -> None:
        """SIGKILL to what `ray start` has started here, and to itself; what Ray's nodes start follows them."""
        for process in self.host.processes():
            if process.comm in {"gcs_server", "raylet"} or "launcher.ray_backend.start " in process.argv:
                with suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGKILL)

    def mend(self) -> None:
        """Start it again when it has ended, as its service manager would."""
        if self.running is None or self.running.ended or not self.lives:
            self.stop()
            self.start()


@dataclass
class Cluster:
    """A Ray cluster on three hosts."""

    hosts: Hosts
    nodes: dict[str, RayNode]
    token_path: Path
    storage_dir: Path
    started_in_s: dict[str, float] = field(default_factory=dict)

    @property
    def address(self) -> str:
        return f"{self.hosts.each[0].address}:{PORT}"

    def mend(self) -> None:
        """Every cable in; Ray started again where it has ended."""
        for host in self.hosts.each:
            if not self.hosts.link_is_up(host):
                self.hosts.link_up(host)
        for node in self.nodes.values():
            node.mend()

    def heal(self) -> None:
        """Mended, and every node in the cluster: one that was cut off for long ends once it hears so, a while later."""
        addresses = {host.address for host in self.hosts.each}
        give_up_at = time.monotonic() + HEAL_S
        while True:
            self.mend()
            alive = set(self.ask()["alive"])
            if alive >= addresses:
                return
            assert time.monotonic() < give_up_at, f"only {alive} live, not {addresses}"

    def ask(self) -> dict[str, list[str]]:
        """What Ray says; asked on the head, as Ray serves only its own nodes."""
        head = self.hosts.each[0]
        where = (self.address, str(self.token_path), str(self.storage_dir))
        output = self.hosts.root / "asking.log"
        asked = head.start(
            *(sys.executable, "-m", "tests.cluster.asking", *where),
            environment=self.nodes[head.name].environment,
            output=output,
            cwd=_ROOT,
            stdout=subprocess.PIPE,
        )
        said, _ = asked.entering.communicate(timeout=90)
        assert asked.entering.returncode == 0, output.read_text()[-2000:]
        return dict(json.loads(said))


@contextmanager
def cluster_on(hosts: Hosts, redis: Redis | None = None) -> Iterator[Cluster]:
    """The cluster, whose head keeps its state in a Redis if there is one; it ends in the reverse order."""
    token_path = hosts.root / "ray-token"
    token_path.write_text(secrets.token_hex(32))
    token_path.chmod(0o600)
    storage_dir = hosts.root / "storage"
    storage_dir.mkdir(mode=0o755)
    head = hosts[NAMES[0]]
    nodes = {host.name: RayNode(host, head, token_path, storage_dir, redis) for host in hosts.each}
    cluster = Cluster(hosts, nodes, token_path, storage_dir)
    try:
        for name, node in nodes.items():
            began = time.monotonic()
            node.start()
            cluster.started_in_s[name] = time.monotonic() - began
        yield cluster
    finally:
        for node in reversed(nodes.values()):
            node.stop()
