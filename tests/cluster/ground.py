"""All of Descent on three hosts: web, worker and local GitHub on host-a, a Ray node on each; and what is there now."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, fields
from pathlib import Path

from launcher.ports import RANGE
from tests.cluster.asking import FENCE_S
from tests.cluster.hosts import Host, Hosts, Process, Running, three_hosts
from tests.cluster.ray_nodes import Cluster, cluster_on
from tests.cluster.redis import Redis
from tests.e2e.stack import Stack, stack_in
from tests.namespace import Network

MACHINES = """
default: {cpus: 1}
half: {cpus: 1}
whole: {cpus: 2}
elsewhere: {cpus: 1, labels: {host: "!host-a"}}
whole-elsewhere: {cpus: 2, labels: {host: "!host-a"}}
head: {cpus: 1, labels: {host: host-a}}
absent: {cpus: 1, labels: {host: host-z}}
"""
UP_S = 60.0


@dataclass
class HostStack(Stack):
    """A stack that runs on one of the hosts, with a cluster that it did not start."""

    host: Host | None = None
    running: Running | None = None

    def start(self, **more: str) -> None:
        self.environment |= more
        assert self.host is not None
        self.running = self.host.start(
            *(sys.executable, "-m", "tests.e2e.start_up", "0", "0"),
            environment=self.environment,
            output=self.root / "up.log",
            cwd=Path(__file__).parents[2],
            stdout=subprocess.PIPE,
        )
        assert self.running.entering.stdout is not None
        assert self.running.entering.stdout.readline(), f"descent up did not start: {self.words()}"

    def stop(self) -> None:
        if self.running:
            self.running.end(90)
            self.running = None

    def worker(self) -> int | None:
        """The worker process, by our number."""
        assert self.host is not None
        recorded = self.record().get("worker")
        return self.host.outer(recorded["pid"]) if recorded else None


@dataclass
class Ground:
    """The hosts, the cluster and the stack; and everything that can be looked at."""

    hosts: Hosts
    cluster: Cluster
    stack: HostStack
    network: Network

    def of_attempts(self, host: Host) -> list[Process]:
        """What a host runs for attempts, in a sandbox or beside it: whatever names one's directory or is a guardian."""
        mark = str(self.cluster.nodes[host.name].node_dir / "attempts")
        return [each for each in host.processes() if mark in each.argv or each.comm == "guardian"]

    def beyond_ray(self) -> list[str]:
        """Processes of any host that belong neither to Ray's own nor to Descent's services."""
        return [
            f"{host.name}: {process.pid} {process.argv[:150]}"
            for host in self.hosts.each
            for process in host.processes()
            if not _is_service(process)
        ]

    def attempts_on_nodes(self) -> list[str]:
        """The attempts that have anything on a node's disk."""
        found = []
        for name, node in self.cluster.nodes.items():
            found += [f"{name}: {path.name}" for path in (node.node_dir / "attempts").glob("*")]
        return found

    def held_ports(self) -> list[str]:
        """The ports on which somebody listens, of those that attempts are given."""
        return [f"{host.name}: {port}" for host in self.hosts.each for port in sorted(host.listening() & set(RANGE))]

    def half_written(self) -> list[str]:
        """Files of any cache that were begun and never finished."""
        found = []
        for name, node in self.cluster.nodes.items():
            for directory, _, files in os.walk(node.node_dir):  # what goes away meanwhile is not there
                found += [f"{name}: {directory}/{file}" for file in files if file.endswith(".part")]
        return found

    def reservations(self) -> list[str]:
        """The placement groups of Descent that Ray holds."""
        return self.cluster.ask()["reservations"]

    def left_on_hosts(self) -> list[str]:
        """All that attempts have left on the hosts; nothing when everything has ended."""
        own = [f"attempt {each}" for each in self.attempts_on_nodes()]
        own += [f"process {each}" for each in self.beyond_ray()]
        own += [f"port {each}" for each in self.held_ports()]
        own += [f"zombie {host.name}: {each}" for host in self.hosts.each for each in host.zombies()]
        return own + [f"half written {each}" for each in self.half_written()]

    def wait_until_clean(self, timeout_s: float) -> list[str]:
        """What attempts have left on the hosts and with Ray when that time is over; empty as soon as nothing is."""
        give_up_at = time.monotonic() + timeout_s
        while time.monotonic() < give_up_at:
            if not self.left_on_hosts() and not self.reservations():  # asking Ray takes seconds
                return []
            time.sleep(0.5)
        return self.left_on_hosts() + [f"placement group {each}" for each in self.reservations()]


_SERVICES = (
    "ray::",
    "launcher.ray_backend.",
    "site-packages/ray/",
    "ci_bot.cli",
    "tests.e2e.start_up",
    "redis-server ",
)


def _is_service(process: Process) -> bool:
    # One without arguments is just ending; should it stay, it is counted as a zombie.
    return not process.argv or _forks_guardians(process) or any(word in process.argv for word in _SERVICES)


def _forks_guardians(process: Process) -> bool:
    # They have its command line, and a name of their own.
    return "launcher/guardian/__main__.py" in process.argv and process.comm != "guardian"


@contextmanager
def ground_in(
    root: Path,
    redis_on: Callable[[Host], AbstractContextManager[Redis | None]] = lambda host: nullcontext(),
    fence_s: int = FENCE_S,
    *,
    shared_hosts: bool = True,
) -> Iterator[Ground]:
    """Everything, up; `shared_hosts` lets several nodes of a gang be on one host."""
    with (
        three_hosts() as hosts,
        redis_on(hosts.each[0]) as redis,
        cluster_on(hosts, redis) as cluster,
        _network_of(hosts.each[0]) as network,
    ):
        (root / "machines.yaml").write_text(MACHINES)
        environment = {
            "RAY_ADDRESS": cluster.address,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(cluster.token_path),
            "STORAGE_DIR": str(cluster.storage_dir),
            "MACHINES": str(root / "machines.yaml"),
            "ALLOW_SHARED_HOSTS": "true" if shared_hosts else "false",
            "FENCE_S": str(fence_s),
            "TMPDIR": str(hosts.each[0].directory / "tmp"),
        }
        with network.entered(), stack_in(root, **environment) as plain:
            stack = HostStack(**{each.name: getattr(plain, each.name) for each in fields(Stack)}, host=hosts.each[0])
            try:
                stack.start()
                yield Ground(hosts, cluster, stack, network)
            finally:
                stack.stop()
                stack.close()


@contextmanager
def _network_of(host: Host) -> Iterator[Network]:
    """The host's network, for this thread and what it starts: git and the local GitHub."""
    outside = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    inside = os.open(f"/proc/{host.init}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield Network(outside, inside)
    finally:
        os.close(inside)
        os.close(outside)
