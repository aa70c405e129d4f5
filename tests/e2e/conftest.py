"""One stack for all tests that leave it whole, in a network of its own where that can be had."""

import zlib
from collections.abc import Iterator
from contextlib import nullcontext

import pytest

from tests.e2e.stack import Repo, Stack, stack_in
from tests.namespace import Network, aside
from tests.openapi import DESCRIPTION, openapi

MACHINES = """
default: {cpus: 1}
small: {cpus: 1, memory: 0.25, disk: 0.25}
P4000: {cpus: 1, gpus: 1}
A100x2: {cpus: 1, gpus: 2}
"""


@pytest.fixture(scope="session")
def network() -> Iterator[Network | None]:
    """A network namespace, None when not root."""
    with aside() as network:
        yield network


@pytest.fixture(scope="session")
def running(network: Network | None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack that is up."""
    root = tmp_path_factory.mktemp("stack")
    root.chmod(0o755)
    (root / "machines.yaml").write_text(MACHINES)
    settings = {"MACHINES": str(root / "machines.yaml"), "ALLOW_SHARED_HOSTS": "true"}  # all nodes of a gang are here
    with network.entered() if network else nullcontext(), stack_in(root, **settings) as stack:
        stack.start()
        yield stack
        if DESCRIPTION.exists():
            assert (
                openapi().log(stack.control.requests()) == []
            )  # every call of a whole session, as GitHub describes it


@pytest.fixture
def stack(running: Stack) -> Iterator[Stack]:
    """The stack, without faults."""
    yield running
    running.control.clear_faults()


@pytest.fixture
def repo(stack: Stack, request: pytest.FixtureRequest) -> Repo:
    """A repository of the test's own."""
    name = "".join(letter if letter.isalnum() else "-" for letter in request.node.name).lower()
    return stack.repository(f"{name[:40]}-{zlib.crc32(name.encode()):08x}")
