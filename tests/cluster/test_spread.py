"""Gangs as they are placed by default: a host for each node, of the machine type that its group asks for."""

from collections.abc import Iterator

import pytest

from launcher.experiment import HeldNode
from launcher.state import State
from tests.cluster import environments
from tests.cluster.ground import Ground, ground_in
from tests.cluster.topologies import WAITS_S, written

pytestmark = [pytest.mark.timeout(300)]
PATIENCE_S = 120.0
CLEAN_S = 60.0


@pytest.fixture(scope="module")
def spread(able: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    """Hosts, cluster and stack, up; no two nodes of a gang on one host."""
    environments.make()
    root = tmp_path_factory.mktemp("spread")
    root.chmod(0o755)
    with ground_in(root, shared_hosts=False) as ground, ground.network.entered():
        yield ground


def gang(command: str, *, workers: int) -> str:
    """Workers on hosts that are not the head's, which has the parameter server; each asks for half of its host."""
    worker = {"command": command, "count": workers, "machine-type": "elsewhere"}
    server = {"command": f"sleep {WAITS_S}", "count": 1, "machine-type": "head"}
    return written({"type": "multi-grpc", "worker": worker, "parameter-server": server})


def hosts_of(nodes: tuple[HeldNode, ...]) -> dict[str, list[str]]:
    """By role, the hosts of its nodes."""
    return {role: sorted(n.host for n in nodes if n.role == role) for role in sorted({node.role for node in nodes})}


def test_each_node_has_a_host_of_its_own_with_its_groups_label(spread: Ground) -> None:
    repo = spread.stack.repository("spread")
    sha = repo.push({".descent/config.yaml": gang("hostname; cat /proc/net/fib_trie", workers=2)})
    run, experiment = repo.check(sha, timeout_s=PATIENCE_S), repo.experiment(sha)
    assert experiment is not None
    assert (run["conclusion"], experiment.state) == ("success", State.STOPPED), experiment.detail
    assert hosts_of(experiment.held.nodes) == {"parameter-server": ["host-a"], "worker": ["host-b", "host-c"]}
    log = repo.log(experiment)
    assert {host.name for host in spread.hosts.each if f"|-- {host.address}\n" in log} == {"host-b", "host-c"}
    assert spread.wait_until_clean(CLEAN_S) == []


def test_more_nodes_than_hosts_with_the_label_wait_and_say_for_what(spread: Ground) -> None:
    repo = spread.stack.repository("too-many")
    sha = repo.push({".descent/config.yaml": gang("true", workers=3)})
    waiting = repo.wait(sha, lambda e: e.state is State.PENDING and bool(e.pending_reason), PATIENCE_S)
    assert waiting.pending_reason.startswith("Waits for 3 × elsewhere (1 CPU): "), waiting.pending_reason
    (run,) = repo.checks(sha, lambda runs: bool(runs and runs[-1]["actions"]))
    spread.stack.control.click(run["id"], "cancel")
    assert repo.check(sha, timeout_s=PATIENCE_S)["conclusion"] == "cancelled"
    assert {t.attempt for t in spread.stack.timeline(waiting.id)} == {0}  # nothing was reserved
    assert spread.wait_until_clean(CLEAN_S) == []
