"""The head's host loses all of its Ray while a command runs on another host, with and without Redis for the head."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from ci_bot.records import Experiment
from launcher.state import Cause, State
from tests.cluster import environments, redis
from tests.cluster.asking import FENCE_S
from tests.cluster.ground import Ground, ground_in
from tests.e2e.stack import Repo, config, wait_for

pytestmark = [pytest.mark.timeout(420)]
HEAD = "host-a"
PATIENCE_S = 240.0
SLACK_S = 20.0
"""What guardians may take to hear of it, and to end what they own."""
FENCE_WITH_REDIS_S = 120
"""The default: a head that comes back within it has lost nothing."""
SCRIPT = """\
# The lock is inherited by everything that this attempt starts: who can't take it is not alone.
at=$PS_JOBSPACE/$1
exec 9>>"$at.lock"
flock -n 9 || echo "overlap $ATTEMPT $(date +%s.%N)" >>"$at.trace"
echo "begin $ATTEMPT $(date +%s.%N)" >>"$at.trace"
number=0
until [ -e "$at.enough-$ATTEMPT" ]; do
  number=$((number + 1))
  echo "line $number"
  echo "alive $ATTEMPT $(date +%s.%N)" >>"$at.trace"
  sleep 0.2
done
echo "end $ATTEMPT $(date +%s.%N)" >>"$at.trace"
echo "the end"
"""


@dataclass
class Run:
    """A command on a host that is not the head's; it goes on until its attempt is told that it is enough."""

    ground: Ground
    repo: Repo
    token: str
    sha: str = ""

    def start(self) -> None:
        """Push it, and wait until it has said something."""
        file = config(f"sh train.sh {self.token}", worker={"machine-type": "elsewhere"})
        self.sha = self.repo.push({".descent/config.yaml": file, "train.sh": SCRIPT})
        self.repo.wait(self.sha, lambda e: e.state is State.RUNNING, PATIENCE_S)
        wait_for(lambda: len(self.times("alive", 1)) > 5, 30, lambda: str(self.trace()))

    def trace(self) -> list[tuple[str, int, float]]:
        """What the attempts have written: word, attempt, when."""
        texts = [path.read_text() for path in self._storage.glob(f"*/{self.token}.trace")]
        lines = [line.split() for text in texts for line in text.splitlines() if line.count(" ") == 2]
        return [(word, int(attempt), float(at)) for word, attempt, at in lines]

    def times(self, word: str, attempt: int) -> list[float]:
        return [at for each, of, at in self.trace() if (each, of) == (word, attempt)]

    def enough(self, attempt: int) -> None:
        """Let that attempt end, now or as soon as it begins."""
        (path,) = self._storage.glob(f"*/{self.token}.trace")
        path.with_name(f"{self.token}.enough-{attempt}").touch()

    @property
    def experiment(self) -> Experiment:
        found = self.repo.experiment(self.sha)
        assert found is not None
        return found

    def log(self) -> str:
        return self.repo.log(self.experiment)

    def completed(self) -> bool:
        runs = self.ground.stack.control.check_runs(self.repo.full_name, self.sha)
        return bool(runs) and runs[-1]["status"] == "completed"

    def story(self) -> str:
        """What became of it, in a line."""
        experiment = self.experiment
        said = [f"{t.attempt}:{t.state}({t.cause})" for t in self.ground.stack.timeline(experiment.id)]
        return f"{experiment.detail} {' '.join(said)} {Counter(each[:2] for each in self.trace())}"

    @property
    def _storage(self) -> Path:
        return self.ground.cluster.storage_dir


def kill_head(ground: Ground) -> None:
    """All of Ray on the head's host at once; a driver dies with its host's Ray, whatever else would live on."""
    head = ground.cluster.nodes[HEAD]
    head.kill()
    wait_for(lambda: not head.lives, 10)


def mended(ground: Ground, there: Callable[[], bool]) -> Callable[[], bool]:
    """A fact, waited for while each host's service manager starts Ray again."""

    def look() -> bool:
        ground.cluster.mend()
        return there()

    return look


@pytest.mark.parametrize("comes_back", ["at once", "after the fences"])
def test_without_redis_the_old_tree_ends_before_the_retry_begins(comes_back: str, ground: Ground, repo: Repo) -> None:
    run = Run(ground, repo, comes_back.replace(" ", "-"))
    run.start()
    run.enough(2)
    (host,) = (host for host in ground.hosts.each if ground.of_attempts(host))
    assert host.name != HEAD
    kill_head(ground)
    killed_at = time.time()
    if comes_back == "after the fences":  # what ran has ended by then, and no other head has told it to
        wait_for(lambda: not ground.of_attempts(host), FENCE_S + SLACK_S, run.story)
    ground.cluster.nodes[HEAD].mend()
    wait_for(mended(ground, run.completed), PATIENCE_S, run.story)
    experiment, story = run.experiment, run.story()
    assert (experiment.state, experiment.progress.attempt) == (State.STOPPED, 2), story
    lost = [t.cause for t in ground.stack.timeline(experiment.id) if t.attempt == 1 and t.cause is not None]
    assert set(lost) == {Cause.HEAD_LOST}, story
    ended, (began,) = run.times("alive", 1)[-1], run.times("begin", 2)
    print(f"{story}: ended {ended - killed_at:.1f} s after the kill, the retry began {began - ended:.1f} s later")
    assert ended < began
    assert [word for word, *_ in run.trace() if word in {"overlap", "end"}] == ["end"]
    assert run.log().splitlines()[-1] == "the end"


@pytest.fixture(scope="module")
def running_with_redis(able: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    """Hosts, cluster and stack, up; the head keeps its state in a Redis."""
    if why := redis.missing():
        pytest.skip(why)
    environments.make()
    root = tmp_path_factory.mktemp("redis")
    root.chmod(0o755)
    with ground_in(root, redis.redis_on, FENCE_WITH_REDIS_S) as ground:
        yield ground


def test_with_redis_the_command_goes_on_and_is_taken_up_again(running_with_redis: Ground) -> None:
    ground = running_with_redis
    with ground.network.entered():
        run = Run(ground, ground.stack.repository("with-redis"), "with")
        run.start()
        others = {name: node.raylet() for name, node in ground.cluster.nodes.items() if name != HEAD}
        kill_head(ground)
        killed_at = run.times("alive", 1)[-1]
        ground.cluster.nodes[HEAD].mend()
        ground.cluster.heal()
        printed = len(run.times("alive", 1))
        assert run.times("alive", 1)[-1] > killed_at
        wait_for(lambda: f"line {printed}\n" in run.log(), 60, run.story)
        run.enough(1)
        wait_for(run.completed, PATIENCE_S, run.story)
        story = run.story()
        print(story)
        experiment = run.experiment
        assert (experiment.state, experiment.progress.attempt) == (State.STOPPED, 1), story
        assert experiment.progress.infrastructure_retries_used == 0
        assert {word: len(run.times(word, 1)) for word in ("begin", "end", "overlap")} == {
            "begin": 1,
            "end": 1,
            "overlap": 0,
        }
        lines = [line for line in run.log().splitlines() if line.startswith(("line ", "the end"))]
        assert lines == [*(f"line {n}" for n in range(1, len(run.times("alive", 1)) + 1)), "the end"]
        assert {name: node.raylet() for name, node in ground.cluster.nodes.items() if name != HEAD} == others
        assert ground.wait_until_clean(60) == []
