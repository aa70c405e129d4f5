"""All of Descent joined to a Ray head of its own, on which the peers stand too: one idle cluster, one disk."""

import json
import os
import random
import secrets
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ci_bot.records import Experiment, Transition
from ci_bot.up import free_port
from launcher import ray_head
from launcher.ray_environment import for_driver, for_head
from launcher.ray_head import Head
from launcher.state import TERMINAL, State
from tests.e2e.stack import Repo, Stack, config, stack_in
from tests.namespace import aside

CPUS = 8
"""Of the head's node, as Ray is told; a command that waits needs none."""
PATIENCE_S = 120.0
ANSWER_S = 600.0
"""What a peer may take at most for one question."""
BRANCHES = {"filters": {"branches": {"only": ".*"}}}
STAMP = "date +%s%N"
"""A command's own word for when it is, on the clock that everybody here reads."""
CLOCK = "all times are one machine's clock (CLOCK_REALTIME); the command writes its own with `date`"
_RAY_START = (
    "import sys, ray.dashboard.optional_deps; sys.modules['grpc'] = None; from ray.scripts.scripts import main; main()"
)
"""`ray start` without the Ray Client server, which nobody here uses and whose slow start would end the head."""
_ROOT = Path(__file__).parents[2]
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")


def rounds(usual: int) -> int:
    """How many rounds are measured; ROUNDS makes them fewer for trying out."""
    return min(usual, int(os.environ.get("ROUNDS", usual)))


# --- Ray ---


@dataclass(frozen=True)
class Cluster:
    """A Ray cluster whose head has a job server."""

    head: Head
    jobs_url: str

    @property
    def settings(self) -> dict[str, str]:
        """What joins `descent up` to it."""
        authenticated = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(self.head.token_path)}
        return {"RAY_ADDRESS": self.head.address, **authenticated}


@contextmanager
def cluster_in(root: Path, *, cpus: int = CPUS, more_nodes: int = 0) -> Iterator[Cluster]:
    """A head with a job server, and more nodes of its size on this machine."""
    token = root / "ray-token"
    token.write_text(secrets.token_hex(32))
    token.chmod(0o600)
    port, jobs_port = free_port("127.0.0.1"), free_port("127.0.0.1")
    argv = ["--head", "--port", str(port), "--temp-dir", str(root / "r"), "--num-cpus", str(cpus)]
    argv += [
        "--labels",
        "node=n0",
        "--include-dashboard=true",
        "--dashboard-host",
        "127.0.0.1",
        "--dashboard-port",
        str(jobs_port),
    ]
    with ExitStack() as stack:
        head = stack.enter_context(_started(root, root / "data" / "node", argv, token))
        address = (root / "r" / "ray_current_cluster").read_text().strip()
        for number in range(1, more_nodes + 1):
            argv = ["--address", address, "--num-cpus", str(cpus), "--labels", f"node=n{number}"]
            stack.enter_context(_started(root / f"n{number}", root / f"n{number}" / "node", argv, token))
        head = Head(head.pid, head.started_ticks, address, head.directory, token)
        yield Cluster(head, f"http://127.0.0.1:{jobs_port}")


@contextmanager
def _started(root: Path, node_dir: Path, options: list[str], token: Path) -> Iterator[Head]:
    """One Ray node, up; ended with all that it started."""
    node_dir.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    said = {name: value for name, value in os.environ.items() if name not in _PROXIES}
    argv = [sys.executable, "-P", "-c", _RAY_START, "start", "--block", *options]
    argv += ["--num-gpus", "0", "--dashboard-agent-listen-port", "0", "--object-store-memory", "200000000"]
    argv += ["--include-log-monitor=false", "--disable-usage-stats", "--log-style=record", "--log-color=false"]
    output = root / "ray.out"
    with output.open("wb") as file:
        process = subprocess.Popen(
            argv,
            env=for_head({**said, "NODE_DIR": str(node_dir)}, token),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            cwd=root,
            start_new_session=True,
        )
    whole = Head(process.pid, _ticks(process.pid), "", root / "none", token)
    try:
        _wait_for_words(process, output, "Ray runtime started")
        yield whole
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)
        ray_head.stop(whole)
        process.wait()


def _ticks(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])


def _wait_for_words(process: "subprocess.Popen[bytes]", output: Path, words: str) -> None:
    give_up_at = time.monotonic() + PATIENCE_S
    while words not in (said := output.read_text(errors="replace")):
        assert process.poll() is None, said[-2000:]
        assert time.monotonic() < give_up_at, said[-2000:]
        time.sleep(0.1)


# --- the peers ---


class Peer:
    """`tests.bench.ray_peer`, which speaks with Ray in a process of its own."""

    def __init__(self, cluster: Cluster, root: Path) -> None:
        said = {name: value for name, value in os.environ.items() if name not in _PROXIES}
        argv = [sys.executable, "-m", "tests.bench.ray_peer", cluster.head.address, cluster.jobs_url]
        self._output = root / "peer.out"
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                argv,
                env=for_driver(said, cluster.head.token_path) | {"TMPDIR": str(root)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                cwd=_ROOT,
                start_new_session=True,
            )

    def do(self, what: str, **how: Any) -> Any:
        """Have it do one thing; its answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": what, **how}).encode() + b"\n")
        self._process.stdin.flush()
        there, _, _ = select.select([self._process.stdout], [], [], ANSWER_S)
        line = self._process.stdout.readline() if there else b""
        assert line, f"the peer has no answer: {self._output.read_text()[-2000:]}"
        return json.loads(line)

    def close(self) -> None:
        """End it."""
        self._process.kill()  # what it has on the cluster ends with its connection
        self._process.communicate()


# --- all together ---


@dataclass(frozen=True)
class Ground:
    """A stack that is up, the cluster it has joined, and the peers."""

    root: Path
    stack: Stack
    cluster: Cluster
    peer: Peer


@contextmanager
def place() -> Iterator[Path]:
    """A short directory for sockets, in a network of our own where that can be had; nothing is left of it."""
    root = Path(tempfile.mkdtemp(prefix="b-", dir="/tmp"))
    root.chmod(0o755)  # a sandbox's user goes through it
    try:
        with aside() as network, network.entered() if network else nullcontext():
            yield root
    finally:
        subprocess.run(["chmod", "-R", "u+rwx", root], capture_output=True, check=False)
        shutil.rmtree(root, ignore_errors=True)


@contextmanager
def ground(*, cpus: int = CPUS, more_nodes: int = 0, machines: str = "", **settings: str) -> Iterator[Ground]:
    """Everything, up; `machines` is the text of `machines.yaml`."""
    with ExitStack() as stack:
        root = stack.enter_context(place())
        (root / "data").mkdir(mode=0o700)
        cluster = stack.enter_context(cluster_in(root, cpus=cpus, more_nodes=more_nodes))
        if machines:
            (root / "machines.yaml").write_text(machines)
            settings["MACHINES"] = str(root / "machines.yaml")
        descent = stack.enter_context(stack_in(root, **cluster.settings, TMPDIR=str(root), **settings))
        peer = Peer(cluster, root)
        stack.callback(peer.close)
        descent.control.limits(**UNLIMITED)
        descent.start()
        yield Ground(root, descent, cluster, peer)


@contextmanager
def alone(**settings: str) -> Iterator[Stack]:
    """A stack with a local Ray head, as `descent up` starts it."""
    with place() as root, stack_in(root, TMPDIR=str(root), **settings) as stack:
        stack.control.limits(**UNLIMITED)
        stack.start()
        yield stack


UNLIMITED = {
    "primary_per_hour": 10**9,
    "points_per_minute": 10**9,
    "content_per_minute": 10**9,
    "content_per_hour": 10**9,
}
"""GitHub's limits would hold back what is measured here; the row "GitHub calls" stays inside them."""


# --- what is pushed, and what became of it ---


def files(mebibytes: float, seed: int) -> Mapping[str, bytes]:
    """Text files of 20 KiB, which compress about as source code does."""
    dice = random.Random(seed)
    words = [bytes(dice.choices(b"abcdefghijklmnopqrstuvwxyz_", k=dice.randrange(2, 12))) for _ in range(4000)]
    count = round(mebibytes * 1024 / 20)
    return {f"src/{number // 50}/{number}.py": _text(dice, words, 20 << 10) for number in range(count)}


def _text(dice: random.Random, words: list[bytes], size: int) -> bytes:
    pieces, length = [], 0
    while length < size:
        line = b" ".join(dice.choices(words, k=9)) + b"\n"
        pieces.append(line)
        length += len(line)
    return b"".join(pieces)[:size]


@dataclass(frozen=True)
class Ended:
    """An experiment that has succeeded."""

    experiment: Experiment
    timeline: tuple[Transition, ...]
    log: str

    def at(self, state: State) -> float:
        """When it first entered a state."""
        return next(each.at for each in self.timeline if each.state is state)

    @property
    def stamps(self) -> list[float]:
        """The times that its commands wrote, in seconds."""
        return [int(line) / 1e9 for line in self.log.splitlines() if line.isdigit() and len(line) > 15]


def ended(repo: Repo, sha: str, *, rerun: int = 0, timeout_s: float = PATIENCE_S) -> Ended:
    """The experiment of a commit once it is over, and its check run is."""
    found = repo.wait(sha, lambda e: e.rerun == rerun and e.state in TERMINAL, timeout_s)
    repo.checks(sha, timeout_s=timeout_s)
    assert found.state is State.STOPPED, f"{found.state}: {found.detail}"
    return Ended(found, tuple(repo.stack.timeline(found.id)), repo.log(found))


def file(command: str, **more: Any) -> dict[str, str]:
    """The configuration file of a single-node experiment."""
    return {".descent/config.yaml": config(command, **more)}
