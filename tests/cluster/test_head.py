"""The head's host loses its Ray, or its cable, while commands run; with and without Redis for the head."""

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
from tests.cluster.hosts import Host
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
at=$PS_JOBSPACE/$1.${RANK:-0}
exec 9>>"$at.lock"
flock -n 9 || echo "overlap $ATTEMPT $(date +%s.%N)" >>"$at.trace"
echo "begin $ATTEMPT $(date +%s.%N)" >>"$at.trace"
number=0
until [ -e "$PS_JOBSPACE/$1.enough-$ATTEMPT" ]; do
  number=$((number + 1))
  echo "line $number"
  echo "alive $ATTEMPT $(date +%s.%N)" >>"$at.trace"
  sleep 0.2
done
echo "end $ATTEMPT $(date +%s.%N)" >>"$at.trace"
echo "the end"
"""


@dataclass(frozen=True)
class Kind:
    """What runs: so many nodes of a machine type."""

    words: str
    nodes: int
    machine_type: str

    def file(self, command: str) -> str:
        keys = {} if self.nodes == 1 else {"type": "multi-torch"}
        return config(command, worker={"machine-type": self.machine_type, "count": self.nodes}, **keys)


SINGLE = Kind("single", 1, "elsewhere")
PAIR = Kind("pair", 2, "whole-elsewhere")
"""Neither is on the head's host."""
TRIO = Kind("trio", 3, "whole")
"""One node on each host."""


@dataclass
class Run:
    """A command on one host or several; it goes on until its attempt is told that it is enough."""

    ground: Ground
    repo: Repo
    token: str
    kind: Kind
    sha: str = ""

    def start(self) -> None:
        """Push it, and wait until each node has said something."""
        file = self.kind.file(f"sh train.sh {self.token}")
        self.sha = self.repo.push({".descent/config.yaml": file, "train.sh": SCRIPT})
        self.repo.wait(self.sha, lambda e: e.state is State.RUNNING, PATIENCE_S)
        ranks = [str(number) for number in range(self.kind.nodes)]
        wait_for(lambda: all(len(self.times("alive", 1, rank)) > 5 for rank in ranks), 30, lambda: str(self.trace()))

    @property
    def hosts(self) -> list[Host]:
        """Those on which it is now, by what runs there."""
        return [host for host in self.ground.hosts.each if self.ground.of_attempts(host)]

    def trace(self, rank: str = "*") -> list[tuple[str, int, float]]:
        """What the attempts have written, in the order of time: word, attempt, when."""
        texts = [path.read_text() for path in self._storage.glob(f"*/{self.token}.{rank}.trace")]
        lines = [line.split() for text in texts for line in text.splitlines() if line.count(" ") == 2]
        return sorted(((word, int(n), float(at)) for word, n, at in lines), key=lambda line: line[2])

    def times(self, word: str, attempt: int, rank: str = "*") -> list[float]:
        return [at for each, of, at in self.trace(rank) if (each, of) == (word, attempt)]

    def enough(self, attempt: int) -> None:
        """Let that attempt end, now or as soon as it begins."""
        path = next(self._storage.glob(f"*/{self.token}.0.trace"))
        path.with_name(f"{self.token}.enough-{attempt}").touch()

    @property
    def experiment(self) -> Experiment:
        found = self.repo.experiment(self.sha)
        assert found is not None
        return found

    def logs(self) -> list[list[str]]:
        """What each node's command has printed in the last attempt, as it is kept."""
        attempt = self.ground.stack.data_dir / "logs" / str(self.experiment.id) / str(self.experiment.progress.attempt)
        texts = [b"".join(part.read_bytes() for part in sorted(node.glob("*.log"))) for node in attempt.iterdir()]
        lines = [text.decode().splitlines() for text in texts]
        return [[line for line in each if line.startswith(("line ", "the end"))] for each in lines]

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


@pytest.mark.parametrize(
    ("kind", "comes_back"),
    [(SINGLE, "at once"), (SINGLE, "after the fences"), (TRIO, "at once")],
    ids=lambda value: getattr(value, "words", value).replace(" ", "-"),
)
def test_without_redis_the_old_trees_end_before_the_retry_begins(
    kind: Kind, comes_back: str, ground: Ground, repo: Repo
) -> None:
    run = Run(ground, repo, f"{kind.words}-{comes_back.replace(' ', '-')}", kind)
    run.start()
    run.enough(2)
    assert [host.name for host in run.hosts if host.name != HEAD]
    kill_head(ground)
    killed_at = time.time()
    if comes_back == "after the fences":  # what ran has ended by then, and no other head has told it to
        wait_for(lambda: not run.hosts, FENCE_S + SLACK_S, run.story)
    ground.cluster.nodes[HEAD].mend()
    wait_for(mended(ground, run.completed), PATIENCE_S, run.story)
    assert_retried(run, killed_at)
    assert causes(run) == {Cause.HEAD_LOST}, run.story()


def test_a_gang_whose_head_lost_its_cable_begins_again_once_the_old_trees_have_ended(
    ground: Ground, repo: Repo
) -> None:
    run = Run(ground, repo, "cable", TRIO)
    run.start()
    run.enough(2)
    assert len(run.hosts) == TRIO.nodes
    ground.hosts.link_down(ground.hosts[HEAD])
    cut_at = time.time()
    # Each host's guardians are on their own now, and both sides end by themselves.
    wait_for(lambda: not run.hosts, FENCE_S + SLACK_S, run.story)
    wait_for(mended(ground, run.completed), PATIENCE_S, run.story)
    assert_retried(run, cut_at)
    assert causes(run) <= {Cause.NODE_LOST, Cause.HEAD_LOST}, run.story()


def causes(run: Run) -> set[Cause]:
    """Of the end of the first attempt."""
    return {t.cause for t in run.ground.stack.timeline(run.experiment.id) if t.attempt == 1 and t.cause is not None}


def assert_retried(run: Run, struck_at: float) -> None:
    """It has succeeded in its second attempt, no part of which had begun before all of the first had ended."""
    experiment, story = run.experiment, run.story()
    assert (experiment.state, experiment.progress.attempt) == (State.STOPPED, 2), story
    ended, began = run.times("alive", 1)[-1], run.times("begin", 2)
    print(f"{story}: ended {ended - struck_at:.1f} s after the strike, the retry began {began[0] - ended:.1f} s later")
    assert ended < began[0]
    assert [word for word, *_ in run.trace() if word in {"overlap", "end"}] == ["end"] * run.kind.nodes
    assert len(began) == run.kind.nodes
    assert [log[-1] for log in run.logs()] == ["the end"] * run.kind.nodes


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


def test_with_redis_the_commands_go_on_and_are_taken_up_again(running_with_redis: Ground) -> None:
    ground = running_with_redis
    with ground.network.entered():
        run = Run(ground, ground.stack.repository("with-redis"), "with", PAIR)
        run.start()
        others = {name: node.raylet() for name, node in ground.cluster.nodes.items() if name != HEAD}
        kill_head(ground)
        killed_at = run.times("alive", 1)[-1]
        ground.cluster.nodes[HEAD].mend()
        ground.cluster.heal()
        printed = max(len(run.times("alive", 1, rank)) for rank in ("0", "1"))
        assert run.times("alive", 1)[-1] > killed_at
        wait_for(lambda: all(f"line {printed}" in log for log in run.logs()), 60, run.story)
        run.enough(1)
        wait_for(run.completed, PATIENCE_S, run.story)
        story = run.story()
        print(story)
        experiment = run.experiment
        assert (experiment.state, experiment.progress.attempt) == (State.STOPPED, 1), story
        assert experiment.progress.infrastructure_retries_used == 0
        for rank in ("0", "1"):
            words = ("begin", "end", "overlap")
            assert {word: len(run.times(word, 1, rank)) for word in words} == {"begin": 1, "end": 1, "overlap": 0}
        said = sorted(len(run.times("alive", 1, rank)) for rank in ("0", "1"))
        assert sorted(len(log) - 1 for log in run.logs()) == said
        for log in run.logs():
            assert log == [*(f"line {number}" for number in range(1, len(log))), "the end"]
        assert {name: node.raylet() for name, node in ground.cluster.nodes.items() if name != HEAD} == others
        assert ground.wait_until_clean(60) == []
