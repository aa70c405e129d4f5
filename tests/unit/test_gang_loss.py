"""Gangs that lose several nodes, or one beside something else: how soon they end, for what, and what is said of it."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from launcher.asking import NODE_LOST_S
from launcher.controller import Drive
from launcher.experiment import NodeState
from launcher.state import Cause, State
from launcher.watch import LOOK_S
from tests.fakes import Command, VirtualLoop
from tests.unit.test_gang_walk import Gang, fails, grpc, mpi, run, torch


def silence(gang: Gang, rank: int) -> None:
    """A node is cut off, for as long as the attempt may take to notice."""
    gang.backend.hanging.add(f"n{rank}")
    asyncio.get_running_loop().call_later(60, gang.backend.hanging.discard, f"n{rank}")


def cuts(*ranks: int) -> Callable[[Gang, Drive], None]:
    def cut(gang: Gang, drive: Drive) -> None:
        for rank in ranks:
            silence(gang, rank)

    return cut


def reservation_lost(gang: Gang, drive: Drive) -> None:
    gang.backend.verdict = "lost"


CUTS: dict[str, list[tuple[float, Callable[[Gang, Drive], Any]]]] = {
    "one node": [(0, cuts(1))],
    "two at once": [(0, cuts(1, 2))],
    "a second one 10 s later": [(0, cuts(1)), (10, cuts(2))],
    "a second one, and a failure": [(0, cuts(1)), (10, cuts(2)), (11, fails(0))],
    "a second one, and the reservation": [(0, cuts(1)), (10, cuts(2)), (11, reservation_lost)],
    "a second one, and the reservation at last": [(0, cuts(1)), (10, cuts(2)), (13, reservation_lost)],
}


@pytest.mark.parametrize("cut_at_s", [5.0, 6.1, 6.95])
@pytest.mark.parametrize("case", CUTS)
def test_an_attempt_ends_15_s_after_its_first_loss_however_many_follow(
    tmp_path: Path, case: str, cut_at_s: float
) -> None:
    gang = Gang(tmp_path, torch(4), retries=1)
    took_s = run(gang, *((cut_at_s + after_s, act) for after_s, act in CUTS[case]))
    assert took_s - cut_at_s <= 15.1
    assert gang.journal.ends[0][0] is Cause.NODE_LOST
    assert gang.detail()["node"] in ({"host-1", "host-2"} if case == "two at once" else {"host-1"})


@pytest.mark.parametrize("left_at_s", [5.0, 6.1, 6.95])
def test_a_node_that_ray_says_has_left_is_not_waited_for(tmp_path: Path, left_at_s: float) -> None:
    gang = Gang(tmp_path, torch(4), retries=1)
    took_s = run(gang, (left_at_s, lambda gang, drive: gang.backend.nodes.pop("n1")))
    assert took_s - left_at_s <= 5
    assert (gang.journal.ends[0][0], gang.detail()["why"]) == (Cause.NODE_LOST, "it left the cluster")


@pytest.mark.parametrize("cut_at_s", [5.0, 6.1, 6.95])
def test_it_is_told_for_how_long_a_node_was_silent(tmp_path: Path, cut_at_s: float) -> None:
    gang = Gang(tmp_path, torch(3), retries=1)
    run(gang, (cut_at_s, cuts(1)))
    assert gang.detail()["why"] == f"it has not answered for {NODE_LOST_S - LOOK_S:.0f} s"


def test_who_was_cut_off_long_after_the_first_is_not_known_to_be_lost_nor_to_be_stopped(tmp_path: Path) -> None:
    gang = Gang(tmp_path, torch(4), retries=1)
    states: list[NodeState] = []
    run(gang, (5, cuts(1)), (15, cuts(2)), (5 + 14.9, lambda gang, drive: states.extend(node_states(gang))))
    assert states == [NodeState.RUNNING, NodeState.LOST, NodeState.RUNNING, NodeState.RUNNING]
    assert gang.detail()["others"] == 2


def node_states(gang: Gang) -> list[NodeState]:
    return [node.state for node in gang.journal.held.nodes]


def test_a_launch_that_ends_well_without_a_node_is_a_loss_within_15_s(tmp_path: Path) -> None:
    gang = Gang(tmp_path, mpi(2), {0: Command(runs_s=6)}, retries=1)
    took_s = run(gang, (5, cuts(1)), (5.5, cuts(2)))
    assert took_s - 5 <= 15.1
    assert gang.journal.ends[0][0] is Cause.NODE_LOST


def test_a_node_that_is_lost_beside_the_masters_good_end_does_not_spoil_it(tmp_path: Path) -> None:
    gang = Gang(tmp_path, grpc(2, 1), {0: Command(runs_s=10)}, retries=1)
    run(gang, (9.9, cuts(1)))
    assert gang.journal.progress.state is State.STOPPED


def test_but_one_that_was_cut_off_and_ended_what_it_ran_before_does(tmp_path: Path) -> None:
    gang = Gang(tmp_path, grpc(2, 1), {0: Command(runs_s=10)}, retries=1)

    def fall(gang: Gang, drive: Drive) -> None:
        gang.hosts[1].end(gang.key(1), Cause.COMMAND_KILLED, stopped=True)

    def cut(gang: Gang, drive: Drive) -> None:
        gang.backend.silent.add("n1")
        asyncio.get_running_loop().call_later(8, gang.backend.silent.clear)

    run(gang, (4, cut), (5, fall))
    assert (gang.journal.ends[0][0], gang.detail()["node"]) == (Cause.NODE_LOST, "host-1")


def test_a_time_limit_stays_one_although_a_node_is_silent_by_then(tmp_path: Path) -> None:
    gang = Gang(tmp_path, torch(2).model_copy(update={"timeout_s": 60}), retries=1)
    run(gang, (55, cuts(1)))
    assert gang.journal.ends[0][0] is Cause.TIME_LIMIT


def test_what_the_worker_itself_slept_through_is_no_silence_of_a_node(tmp_path: Path) -> None:
    gang = Gang(tmp_path, torch(2), {n: Command(runs_s=60) for n in range(2)})

    def sleep(gang: Gang, drive: Drive) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        loop.now += 40

    run(gang, (5.5, sleep))
    assert gang.journal.progress.state is State.STOPPED


def test_who_ended_well_long_ago_makes_no_haste_to_find_the_first_cause(tmp_path: Path) -> None:
    gang = Gang(tmp_path, torch(3), {1: Command(runs_s=5)})

    def away(gang: Gang, drive: Drive) -> None:
        gang.backend.silent.add("n2")
        asyncio.get_running_loop().call_later(10, gang.backend.silent.clear)

    run(gang, (36, away), (38.5, fails(2, Cause.OUT_OF_MEMORY, 137)), (40, fails(0)))
    assert (gang.journal.ends[0][0], gang.detail()["who"]) == (Cause.OUT_OF_MEMORY, "worker 2 on host-2")


def test_after_a_silence_of_the_head_a_node_has_its_time_anew(tmp_path: Path) -> None:
    gang = Gang(tmp_path, torch(2), {n: Command(runs_s=60) for n in range(2)})

    def head(down: bool) -> Callable[[Gang, Drive], None]:
        return lambda gang, drive: setattr(gang.backend, "head_down", down)

    def away(gang: Gang, drive: Drive) -> None:
        gang.backend.silent.add("n1")
        asyncio.get_running_loop().call_later(26, gang.backend.silent.clear)

    run(gang, (5, head(down=True)), (5, away), (25, head(down=False)))
    assert gang.journal.progress.state is State.STOPPED


@pytest.mark.parametrize("fails_at", [6, 8, 12, 17])
def test_a_moment_of_the_heads_silence_does_not_hide_who_was_lost(fails_at: float, tmp_path: Path) -> None:
    gang = Gang(tmp_path, torch(3), {0: Command(runs_s=60)})

    def head(down: bool) -> Callable[[Gang, Drive], None]:
        return lambda gang, drive: setattr(gang.backend, "head_down", down)

    away = (5, lambda gang, drive: gang.backend.silent.add("n1"))
    run(gang, away, (10, head(down=True)), (12, head(down=False)), (fails_at, fails(0)))
    assert (gang.journal.ends[0][0], gang.detail()["node"]) == (Cause.NODE_LOST, "host-1")
