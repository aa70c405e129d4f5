"""Which of several ends came first, and what a daemon's end means."""

from dataclasses import replace
from typing import Any

import pytest

from launcher.attempt import Ended
from launcher.experiment import HeldNode
from launcher.first_cause import NodeEnd, decided, first_of, is_loss
from launcher.node_types import Daemon
from launcher.state import Cause


def node(rank: int, *, decides: bool = True) -> HeldNode:
    return HeldNode(f"exp-7-a1-n{rank}", f"n{rank}", f"host-{rank}", "10.0.0.1", role="worker", decides=decides)


def ended(rank: int, cause: Cause, at: float, *, well_at: float = float("-inf"), **detail: Any) -> NodeEnd:
    return NodeEnd(node(rank), Ended(cause, **detail), at, well_at=well_at)


def exited(rank: int, at: float, exit_code: int = 1) -> NodeEnd:
    return ended(rank, Cause.COMMAND_EXITED, at, exit_code=exit_code)


def killed(rank: int, at: float, signal: str = "SIGKILL") -> NodeEnd:
    return ended(rank, Cause.COMMAND_KILLED, at, signal=signal)


@pytest.mark.parametrize(
    ("ends", "first"),
    [
        ([exited(0, 10), exited(1, 9)], 1),
        ([exited(0, 9), ended(1, Cause.OUT_OF_MEMORY, 9.5)], 1),
        ([exited(0, 9), ended(1, Cause.OUT_OF_MEMORY, 11)], 0),
        ([exited(0, 9), killed(1, 9.5)], 1),
        ([exited(0, 9), killed(1, 9.5, "SIGABRT"), killed(2, 9.6, "SIGTERM")], 0),
        ([killed(0, 9.5, "SIGSEGV"), killed(1, 9, "SIGABRT")], 0),
        ([exited(0, 9), exited(1, 9.5, 137), exited(2, 9.6, 143)], 1),
        ([exited(0, 9), ended(1, Cause.NODE_LOST, 24, well_at=8)], 1),
        ([exited(0, 9), ended(1, Cause.NODE_LOST, 24)], 1),
        ([exited(0, 9), ended(1, Cause.SHUTDOWN, 14)], 1),
    ],
    ids=[
        "the earliest",
        "out of memory within the avalanche",
        "out of memory long after",
        "killed",
        "ended itself for its peers",
        "crashed, and its peer aborted",
        "killed below a shell",
        "a node that may have gone before",
        "a node of which nothing is known",
        "a shutdown that had begun elsewhere",
    ],
)
def test_the_first_cause_is_not_its_consequence(ends: list[NodeEnd], first: int) -> None:
    assert first_of(ends).node.rank == first
    assert first_of(ends[::-1]).node.rank == first


def test_a_node_that_was_well_after_a_command_failed_is_not_the_cause_of_that() -> None:
    out = ended(0, Cause.OUT_OF_MEMORY, 9)
    assert first_of([out, ended(1, Cause.NODE_LOST, 30, well_at=12)]) is out


def test_what_fails_once_those_that_decide_have_ended_well_is_no_failure() -> None:
    nodes = (node(0), node(1, decides=False))
    well = ended(0, Cause.SUCCEEDED, 10)
    assert decided([well], nodes) is well
    assert decided([well, exited(1, 10.5)], nodes) is well
    assert decided([well, exited(1, 9.5)], nodes) is well
    early = exited(1, 8)
    assert decided([well, early], nodes) is early
    assert decided([], nodes) is None


MASTER_AND_WORKERS = (node(0), node(1, decides=False), node(2, decides=False))
NOBODYS_CONSEQUENCE = {
    "out of memory": ended(1, Cause.OUT_OF_MEMORY, 9.9),
    "out of disk": ended(1, Cause.DISK_LIMIT, 9.9),
    "killed": killed(1, 9.9),
    "crashed": killed(1, 9.9, "SIGSEGV"),
    "killed below a shell": exited(1, 9.9, 137),
}


@pytest.mark.parametrize("end", NOBODYS_CONSEQUENCE.values(), ids=NOBODYS_CONSEQUENCE)
def test_what_no_peer_s_end_can_make_of_a_command_fails_the_gang_however_shortly_before_the_master_ends(
    end: NodeEnd,
) -> None:
    well = ended(0, Cause.SUCCEEDED, 10)
    assert decided([well, end], MASTER_AND_WORKERS) is end
    assert decided([well, exited(2, 9.95), end], MASTER_AND_WORKERS) is end
    assert decided([well, ended(2, Cause.SHUTDOWN, 9.95), end], MASTER_AND_WORKERS) is end
    after = replace(end, at=10)
    assert decided([well, after], MASTER_AND_WORKERS) is well
    assert decided([well, exited(2, 9.95), after], MASTER_AND_WORKERS) is well


def test_a_node_lost_before_the_master_ended_well_is_a_loss() -> None:
    well, lost = ended(0, Cause.SUCCEEDED, 10), ended(1, Cause.NODE_LOST, 25)
    assert decided([well, lost, exited(2, 9.5)], MASTER_AND_WORKERS) is lost


@pytest.mark.parametrize(
    ("exit_code", "signal", "mpirun_gone_at", "loss"),
    [
        (None, None, None, False),
        (0, None, None, False),
        (1, None, None, True),
        (None, "SIGKILL", None, True),
        (None, "SIGTERM", None, False),
        (1, None, 4.9, False),
        (1, None, 5.1, False),
        (1, None, 5.3, True),
        (None, "SIGKILL", 4.999, True),
    ],
)
def test_a_daemon_is_lost_that_was_killed_or_fails_while_its_mpirun_is_there(
    exit_code: int | None, signal: str | None, mpirun_gone_at: float | None, loss: bool
) -> None:
    assert is_loss(Daemon("d", "orted", exit_code, signal, 5.0), 5.0, mpirun_gone_at) is loss
