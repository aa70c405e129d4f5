"""Three hosts for all tests here; they need root, and the environments of the trainings."""

import os
import random
import zlib
from collections.abc import Iterator

import pytest

from launcher.state import State
from tests.cluster import environments
from tests.cluster.cells import Cell, table
from tests.cluster.ground import Ground, ground_in
from tests.cluster.hosts import Hosts, missing, three_hosts
from tests.e2e.stack import Repo

CLEAN_S = 90.0
STRUCK = pytest.StashKey[list[tuple[Cell, State, str]]]()


@pytest.fixture(scope="session")
def able() -> None:
    """Skips where there can be no hosts."""
    if why := missing():
        pytest.skip(why)


@pytest.fixture(scope="session")
def seed(request: pytest.FixtureRequest) -> int:
    """Shown, so that a run can be had again: SEED=… pytest."""
    seed = int(os.environ.get("SEED") or random.randrange(1_000_000))
    capture = request.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        print(f"\nSEED={seed}")
    return seed


@pytest.fixture(scope="session")
def struck(request: pytest.FixtureRequest) -> list[tuple[Cell, State, str]]:
    """What was struck in which state, in this session; shown at its end."""
    return request.config.stash.setdefault(STRUCK, [])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """The states that were drawn, and those in which it was."""
    if found := config.stash.get(STRUCK, []):
        terminalreporter.section("struck")
        terminalreporter.write_line("\n".join(table(found)))


@pytest.fixture(scope="session")
def running(able: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    """Hosts, cluster and stack, up."""
    environments.make()
    root = tmp_path_factory.mktemp("cluster")
    root.chmod(0o755)
    with ground_in(root) as ground:
        yield ground


@pytest.fixture
def ground(running: Ground) -> Iterator[Ground]:
    """The same, whole before each test, and with nothing left of any attempt after it."""
    running.cluster.heal()
    with running.network.entered():
        yield running
        running.cluster.heal()
        assert running.wait_until_clean(CLEAN_S) == []


@pytest.fixture
def repo(ground: Ground, request: pytest.FixtureRequest) -> Repo:
    """A repository of the test's own."""
    name = "".join(letter if letter.isalnum() else "-" for letter in request.node.name).lower()
    return ground.stack.repository(f"{name[:40]}-{zlib.crc32(name.encode()):08x}")


@pytest.fixture
def hosts(able: None) -> Iterator[Hosts]:
    """Hosts alone, without Ray and all that."""
    with three_hosts() as hosts:
        yield hosts
