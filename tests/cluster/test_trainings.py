"""Real trainings with real frameworks on three hosts, from the push to the check run."""

import pytest

from tests.cluster import topologies
from tests.cluster.ground import Ground
from tests.cluster.topologies import SAMPLES, Training
from tests.e2e.stack import Repo

pytestmark = [pytest.mark.timeout(300)]
PATIENCE_S = 240.0


@pytest.mark.parametrize(
    "training",
    [t for t in topologies.trainings() if t.topology in topologies.READY],
    ids=lambda training: training.name,
)
def test_a_push_trains_on_several_hosts(training: Training, ground: Ground, repo: Repo) -> None:
    files = {name: (SAMPLES / name).read_text() for name in training.files}
    sha = repo.push({".descent/config.yaml": topologies.written(training.keys), **files})
    run = repo.check(sha, timeout_s=PATIENCE_S)
    experiment = repo.experiment(sha)
    assert experiment is not None
    log = repo.log(experiment)
    assert run["conclusion"] == "success", (run["output"]["title"], log[-4000:])
    assert training.says in log
    assert len({node.host for node in experiment.held.nodes}) > 1
