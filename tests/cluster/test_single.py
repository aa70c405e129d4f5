"""One node on a cluster of several hosts, from the push to the check run."""

import pytest

from launcher.state import State
from tests.cluster.ground import Ground
from tests.e2e.stack import Repo, config

pytestmark = [pytest.mark.timeout(240)]
PATIENCE_S = 120.0
ELSEWHERE = {"machine-type": "elsewhere"}


def test_a_push_runs_on_a_host_with_the_label_and_its_log_and_artifacts_come_back(ground: Ground, repo: Repo) -> None:
    command = (
        "pip install --quiet iniconfig && python -c 'import iniconfig' && cat said /proc/net/fib_trie;"
        ' echo 7 > "$ARTIFACTS_DIR/result.txt"; echo kept > "$PS_JOBSPACE/kept"'
    )
    sha = repo.push({".descent/config.yaml": config(command, worker=ELSEWHERE), "said": "from the repository\n"})
    run = repo.check(sha, timeout_s=PATIENCE_S)
    experiment = repo.experiment(sha)
    assert experiment is not None
    log = repo.log(experiment)
    assert (run["conclusion"], experiment.state) == ("success", State.STOPPED), (experiment.detail, log[-2000:])
    assert "from the repository" in log
    ran_on = {host.name for host in ground.hosts.each if f"|-- {host.address}\n" in log}
    assert ran_on <= {"host-b", "host-c"}
    assert len(ran_on) == 1
    kept = ground.stack.data_dir / "artifacts" / str(experiment.id) / "1"
    assert (kept / "result.txt").read_text() == "7\n"
    assert [path.read_text() for path in ground.cluster.storage_dir.glob("*/kept")] == ["kept\n"]


def test_cancel_ends_it_on_its_host_and_leaves_nothing(ground: Ground, repo: Repo) -> None:
    sha = repo.push({".descent/config.yaml": config("sleep 1000", worker=ELSEWHERE)})
    repo.wait(sha, lambda e: e.state is State.RUNNING, PATIENCE_S)
    busy = [host.name for host in ground.hosts.each if ground.of_attempts(host)]
    assert len(busy) == 1
    assert busy[0] != "host-a"
    (run,) = repo.checks(sha, lambda runs: bool(runs and runs[-1]["actions"]))
    ground.stack.control.click(run["id"], "cancel")
    assert repo.check(sha, timeout_s=PATIENCE_S)["conclusion"] == "cancelled"
    assert not any(ground.of_attempts(host) for host in ground.hosts.each)
