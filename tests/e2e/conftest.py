"""One stack for all tests that leave it whole, in a network of its own where that can be had."""

from collections.abc import Iterator
from contextlib import nullcontext

import pytest

from tests.e2e.stack import Repo, Stack, stack_in
from tests.namespace import Network, aside


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
    with network.entered() if network else nullcontext(), stack_in(root) as stack:
        stack.start()
        yield stack


@pytest.fixture
def stack(running: Stack) -> Iterator[Stack]:
    """The stack, without faults."""
    yield running
    running.control.clear_faults()


@pytest.fixture
def repo(stack: Stack, request: pytest.FixtureRequest) -> Repo:
    """A repository of the test's own."""
    name = "".join(letter if letter.isalnum() else "-" for letter in request.node.name)[:60].strip("-").lower()
    return stack.repository(name)
