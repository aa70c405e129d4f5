"""A real Ray head for a session of tests: four CPUs, two GPUs that are not there, and a network of its own."""

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from launcher import ray_head
from launcher.ray_backend import Connection
from launcher.ray_environment import for_head
from tests.namespace import Network, aside


@dataclass
class Cluster:
    """A head, and all that is needed to reach it or to start another."""

    head: ray_head.Head
    environment: dict[str, str]
    node_dir: Path

    @property
    def connection(self) -> Connection:
        """Where the head is now."""
        return Connection(self.head.address, self.head.token_path)


def start_head(root: Path, *, port: int = 0) -> Cluster:
    """A head whose node keeps its files below `root`."""
    token = root / "ray-token"
    if not token.exists():
        token.write_text(secrets.token_hex(32))
        token.chmod(0o600)
    node_dir = root / "node"
    environment = {**os.environ, "NODE_DIR": str(node_dir), "GITHUB_WEBHOOK_SECRET": "never-on-ray"}
    options = ray_head.HeadOptions(num_cpus=4, num_gpus=2, labels={"zone": "b"}, port=port)
    return Cluster(ray_head.start(environment, token, options), environment, node_dir)


@contextmanager
def joined(cluster: Cluster, root: Path, *, num_cpus: int = 1) -> Iterator[Path]:
    """A second Ray node on this machine, with a directory of its own, which it gives."""
    node_dir = root / "node"
    environment = for_head({**cluster.environment, "NODE_DIR": str(node_dir)}, cluster.head.token_path)
    argv = [sys.executable, "-P", "-m", "launcher.ray_backend.start", "start", "--block"]
    argv += ["--address", cluster.head.address, "--num-cpus", str(num_cpus), "--num-gpus", "0"]
    argv += ["--dashboard-agent-listen-port", "0", "--include-log-monitor=false", "--disable-usage-stats"]
    argv += ["--object-store-memory", "100000000"]
    with (root / "ray.out").open("wb") as output:
        process = subprocess.Popen(
            argv,
            env=environment,
            cwd=root,
            stdout=output,
            stderr=output,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    whole = ray_head.Head(process.pid, ray_head._ticks(process.pid), "", root / "none", cluster.head.token_path)
    try:
        yield node_dir
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)
        ray_head.stop(whole)
        process.wait()


@pytest.fixture(scope="session")
def network() -> Iterator[Network | None]:
    """A network namespace, None when not root."""
    with aside() as network:
        yield network


@pytest.fixture
def inside(network: Network | None) -> Iterator[None]:
    """What the test starts is in that network."""
    with network.entered() if network else nullcontext():
        yield


@pytest.fixture(scope="session")
def ray_head_of_session(network: Network | None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One head for all tests that leave it alive."""
    root = tmp_path_factory.mktemp("ray")
    with network.entered() if network else nullcontext():
        cluster = start_head(root)
    yield cluster
    ray_head.stop(cluster.head)
    assert ray_head.remains(cluster.head) == []
    assert not cluster.head.directory.exists()


@pytest.fixture(name="ray_head")
def ray_head_fixture(ray_head_of_session: Cluster, inside: None) -> Cluster:
    """The session's head, from inside its network."""
    return ray_head_of_session
