"""A node in a temporary directory, with one commit's code on it, and nothing left behind."""

import io
import json
import os
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from launcher import environment, guardian_client, sandbox, trees
from launcher.node import Node
from launcher.node_root import BOOT_ID
from launcher.node_types import NodeStatus, PrepareOrder, StartOrder

CODE = "42-" + "a" * 40
FILES = {"train.py": "print('hello')\n", "src/deep/x.txt": "x", "results/old.txt": "old"}

SANDBOX = sandbox.probe()
needs_sandbox = pytest.mark.skipif(not SANDBOX.ok, reason=f"no isolation here: {SANDBOX.why}")
ISOLATIONS = ["none", pytest.param("bubblewrap", marks=needs_sandbox)]


def packed(files: dict[str, str]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", format=tarfile.PAX_FORMAT) as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(f"top/{name}")
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
    return out.getvalue()


def order_of(isolation: str, **fields: object) -> PrepareOrder:
    return PrepareOrder(**{"code_key": CODE, "storage_key": "42", "trusted": True, "isolation": isolation, **fields})


def command_of(command: str, isolation: str, **fields: object) -> StartOrder:
    known = {"env": {}, "gpu_ids": (), "memory_bytes": None, "disk_bytes": None, "log_max_bytes": 1 << 20}
    return StartOrder(**{"command": command, "isolation": isolation, "grace_s": 1, "lease_s": 5, **known, **fields})


def until(node: Node, key: str, *phases: str) -> NodeStatus:
    """The status, once it is in one of the phases."""
    mark = 0
    while (status := node.status([key])[key]).phase not in phases:
        mark = node.watch(mark, 10)
    return status


def log_of(node: Node, key: str) -> str:
    return node.read_log(key, 0, 1 << 20).data.decode()


class Runner:
    """Prepares and starts commands on a node."""

    def __init__(self, node: Node, root: Path) -> None:
        self.node, self.root = node, root
        self._count = 0

    def begin(self, command: str, isolation: str = "none", *, start: dict | None = None, **prepare: object) -> str:
        self._count += 1
        key = f"exp-{self._count}-a1-n0"
        self.node.prepare(key, order_of(isolation, **prepare))
        self.node.start(key, command_of(command, isolation, **(start or {})))
        return key

    def run(self, command: str, isolation: str = "none", **more: object) -> tuple[str, NodeStatus]:
        key = self.begin(command, isolation, **more)
        return key, until(self.node, key, "ended", "lost")

    def printed(self, command: str, isolation: str = "none", **more: object) -> str:
        key, status = self.run(command, isolation, **more)
        assert status.exit is not None
        assert status.exit.exit_code == 0, (status, log_of(self.node, key))
        return log_of(self.node, key)

    def environment(self, isolation: str, **more: object) -> dict[str, str]:
        return json.loads(
            self.printed("python -c 'import json,os; print(json.dumps(dict(os.environ)))'", isolation, **more)
        )


@pytest.fixture(scope="session")
def full_seed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a node copies environments from."""
    found = tmp_path_factory.mktemp("seed")
    environment.warm(environment.base_python(), found, os.environ)
    return found


@pytest.fixture(scope="session")
def seed(full_seed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same without pip, which most tests do not need and which takes longest to copy."""
    found = tmp_path_factory.mktemp("bare")
    trees.copy(full_seed, found / "seed")
    for packages in found.glob("seed/*/lib/python*/site-packages"):
        trees.remove(packages)
        packages.mkdir()
    return found / "seed"


@pytest.fixture
def make_node(tmp_path: Path, seed: Path) -> Iterator[Callable[..., Node]]:
    """Makes nodes on one directory; at the end everything that runs there is ended."""
    root = tmp_path / "node"
    root.mkdir()
    (root / "seed").symlink_to(seed)  # one pristine environment for all tests
    (root / "boot").write_text(BOOT_ID.read_text())
    nodes: list[Node] = []

    def make(**more: object) -> Node:
        node = Node(root, **{"environ": dict(os.environ), **more})
        nodes.append(node)
        return node

    yield make
    for node in nodes:
        for key in node.inventory():
            guardian_client.purge(root / "attempts" / key, key)
        node.close()
    trees.remove(root)


@pytest.fixture
def node(make_node: Callable[..., Node]) -> Node:
    found = make_node()
    found.put_code(CODE, 0, packed(FILES), True)
    return found


@pytest.fixture
def runner(node: Node, tmp_path: Path) -> Runner:
    return Runner(node, tmp_path / "node")
