"""Whoever is killed, whenever: every push comes to its true end, and nothing is left."""

import random
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import pytest

from launcher.state import Cause, State
from tests.e2e import load
from tests.e2e.killing import Victim, find, kill, listening, marked, processes_of
from tests.e2e.load import Kind, Load
from tests.e2e.stack import Stack, stack_in, wait_for
from tests.namespace import Network

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(180)]
SETTLE_S = 120.0
VICTIMS = [
    (Victim.WEB, Victim.WORKER, Victim.AGENT, Victim.GUARDIAN),
    (Victim.RAYLET,),
    (Victim.GCS,),
    (Victim.HEAD,),
    (Victim.UP,),
]


@dataclass
class Ground:
    """A stack to be killed in, and the dice that say when."""

    stack: Stack
    dice: random.Random
    temporary: Path
    ports_before: set[int]
    alone: bool
    """Nobody else listens in this network."""


@pytest.fixture(scope="module")
def ground(seed: int, network: Network | None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    """A stack of this module's own; short of name is its temporary directory, for Ray's sockets lie below it."""
    root = tmp_path_factory.mktemp("survives")
    root.chmod(0o755)
    temporary = Path(tempfile.mkdtemp(prefix="s-", dir="/tmp"))
    try:
        with network.entered() if network else nullcontext(), stack_in(root, TMPDIR=str(temporary)) as stack:
            before = listening()
            stack.start()
            yield Ground(stack, random.Random(seed), temporary, before, network is not None)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def mixed(ground: Ground, name: str) -> Load:
    return Load(ground.stack.repository(name), ground.dice)


@pytest.mark.parametrize("victims", VICTIMS, ids="-".join)
def test_every_push_comes_to_its_true_end_whoever_is_killed(ground: Ground, victims: tuple[Victim, ...]) -> None:
    stack, pushes = ground.stack, mixed(ground, f"killed-{victims[0]}")
    pushes.push_mix()
    for victim in ground.dice.sample(victims, len(victims)):
        time.sleep(ground.dice.uniform(0.0, 2.0))  # the seeded moment
        wait_for(
            lambda victim=victim: any(find(stack, victim)), 60, lambda victim=victim: f"no {victim}; {pushes.shown()}"
        )
        assert kill(stack, victim)
        if victim is Victim.UP:
            stack.start()
    pushes.settle(SETTLE_S)
    assert pushes.untruths() == []


def test_what_happened_while_github_was_unreachable_is_reported_once_it_is_back(ground: Ground) -> None:
    stack, pushes = ground.stack, mixed(ground, "unreachable")
    (running,) = pushes.push(Kind.SUCCESS, 2.5)
    pushes.repo.wait(running.sha, lambda e: e.state is State.RUNNING)
    stack.control.down("reset")
    pushes.push(Kind.FAILURE)
    pushes.repo.wait(running.sha, lambda e: e.state is State.STOPPED)
    assert [run["status"] for run in running.runs()] != ["completed"]
    stack.control.down(None)
    pushes.settle(SETTLE_S)
    assert pushes.untruths() == []


def test_what_a_killed_worker_left_running_ends_with_up_and_costs_no_retry(ground: Ground) -> None:
    stack, pushes = ground.stack, mixed(ground, "left")
    (running,) = pushes.push(Kind.LONG, 15.0)  # longer than Ray takes to end
    pushes.repo.wait(running.sha, lambda e: e.state is State.RUNNING)
    assert stack.process is not None
    stack.process.send_signal(signal.SIGSTOP)
    kill(stack, Victim.WORKER)  # and nobody starts it again
    stack.process.send_signal(signal.SIGTERM)
    stack.process.send_signal(signal.SIGCONT)
    stack.stop()
    assert processes_of(stack) == []
    assert marked(stack, load.attempt_keys(stack)) == []
    stack.start()  # its worker finds on the node's disk that this was no accident
    pushes.settle(SETTLE_S)
    assert pushes.untruths() == []
    experiment = pushes.repo.experiment(running.sha)
    assert experiment is not None
    assert (experiment.state, experiment.progress.infrastructure_retries_used) == (State.STOPPED, 0)
    assert [each.cause for each in stack.timeline(experiment.id) if each.state is State.PENDING][1:] == [Cause.SHUTDOWN]


def test_stopping_leaves_nothing_and_loses_nothing(ground: Ground) -> None:
    stack, pushes = ground.stack, mixed(ground, "stopped")
    (running,) = pushes.push(Kind.LONG, 60.0)  # it does not end by itself before all the facts below are there
    pushes.repo.wait(running.sha, lambda e: e.state is State.RUNNING)
    wait_for(lambda: load.reservations(stack) == [f"exp-{pushes.repo.experiment(running.sha).id}-a1"], 60)
    wait_for(lambda: load.delivery_untruths(stack) == [], 60, lambda: str(load.delivery_untruths(stack)))
    stack.stop()
    experiment = pushes.repo.experiment(running.sha)
    assert experiment is not None
    assert experiment.state is State.PENDING
    assert experiment.progress.infrastructure_retries_used == 0
    assert processes_of(stack) == []
    assert marked(stack, load.attempt_keys(stack)) == []
    assert load.attempts_on_node(stack) == []
    assert load.parts(stack.root) == []
    assert list(ground.temporary.iterdir()) == []
    assert not (stack.data_dir / "up.json").exists()
    if ground.alone:
        assert listening() == ground.ports_before
