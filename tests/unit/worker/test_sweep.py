"""What the sweep promises: what belongs to nobody is ended and given back, and nothing else is."""

import asyncio
import math
from dataclasses import replace
from pathlib import Path

import pytest

from ci_bot.store import quarantine
from ci_bot.store.quarantine import Quarantined
from ci_bot.worker.books import Books
from launcher import teardown
from launcher.experiment import NodeGroup, Role
from launcher.node_types import PrepareOrder, StartOrder
from launcher.state import Cause, State
from tests.fakes import Command, Host, Run, clock, names
from tests.unit.worker.test_launch import House, lived

FOREIGN = "exp-999-a1-n0"


@pytest.fixture
def house(books: Books, tmp_path: Path) -> House:
    return House(books, tmp_path)


def a_run() -> Run:
    start = StartOrder("true", {}, (), "none", None, None, 1, 1, 1)
    return Run(PrepareOrder("1-x", "1", True, "none"), start, clock())


def foreign(house: House) -> None:
    house.host.runs[FOREIGN] = a_run()
    house.backend.groups["exp-999-a1"] = ()


def test_what_belongs_to_no_unfinished_attempt_is_ended_cleared_and_given_back(house: House) -> None:
    async def story(house: House) -> None:
        foreign(house)
        await asyncio.sleep(70)
        assert house.host.ended[FOREIGN].exit is not None
        assert house.backend.groups == {}

    lived(house, story)


LEFT = [("python (pid 7)",)] * 9999
TWO_NODES = {"groups": (NodeGroup(role=Role.WORKER, count=2, command="true", machine_type="small"),)}


async def quarantined(house: House) -> list[str]:
    return [each.host for each in await house.books.read(quarantine.hosts)]


def test_a_foreign_group_is_kept_while_a_node_is_neither_clean_nor_in_quarantine(house: House) -> None:
    async def story(house: House) -> None:
        house.backend.nodes["n2"] = Host("host-b", leftovers=LEFT[:], runs={"exp-998-a1-n0": a_run()})
        await house.books.write(lambda c: quarantine.add(c, Quarantined("host-b", "a process is left", clock())))
        foreign(house)
        house.host.leftovers = LEFT[:]
        await asyncio.sleep(200)
        assert list(house.backend.groups) == ["exp-999-a1"]
        house.host.leftovers = []
        await asyncio.sleep(40)
        assert (house.backend.groups, await quarantined(house)) == ({}, ["host-b"])

    lived(house, story)


def test_one_host_that_is_never_clean_keeps_neither_its_gang_s_other_hosts_nor_other_groups(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teardown, "TEARDOWN_S", 10.0)

    async def story(house: House) -> None:
        house.launch.rules = replace(house.launch.rules, fence_s=1)
        left = house.backend.nodes["n2"] = Host("host-b", house.command, leftovers=LEFT[:])
        one = await house.create(topology="multi-torch", specification=TWO_NODES)
        ended = await house.until(one, State.ERROR)
        assert ended.progress.cause is Cause.NOT_PROVEN_CLEAN
        assert list(house.backend.groups) == [f"exp-{one}-a1"]
        foreign(house)
        await asyncio.sleep(70)
        assert (house.backend.groups, await quarantined(house)) == ({}, ["host-b"])
        assert list(left.runs) == [f"exp-{one}-a1-n1"]
        after = await house.until(await house.create("after"), State.STOPPED)
        assert [node.host for node in after.held.nodes] == ["host-a"]

    lived(house, story)


def test_nothing_on_a_host_in_quarantine_is_given_back_while_a_gang_is_placed_that_may_not_avoid_it(
    house: House,
) -> None:
    async def story(house: House) -> None:
        house.backend.polls_until_placed = math.inf
        one = await house.create()
        await house.until(one, State.PROVISIONING)
        foreign(house)
        house.host.leftovers = LEFT[:]
        await house.books.write(lambda c: quarantine.add(c, Quarantined("host-a", "a process is left", clock())))
        given_back: list[str] = []
        house.backend.on_release = given_back.append
        await asyncio.sleep(90)
        assert given_back[:2] == [f"exp-{one}-a1", "exp-999-a1"]

    lived(house, story)


def test_the_sweep_leaves_what_runs_alone(house: House) -> None:
    house.command = Command(runs_s=200)

    async def story(house: House) -> None:
        one = await house.create()
        await house.until(one, State.RUNNING)
        await asyncio.sleep(150)
        assert names(house.backend.calls, "stop", "release") == []
        await house.until(one, State.STOPPED)

    lived(house, story)


def test_a_quarantine_is_lifted_when_the_agent_proves_the_host_clean(house: House) -> None:
    async def story(house: House) -> None:
        await house.books.write(lambda c: quarantine.add(c, Quarantined("host-a", "a process is left", clock())))
        await house.books.write(lambda c: quarantine.add(c, Quarantined("host-b", "it is away", clock())))
        foreign(house)
        house.host.leftovers = [("python (pid 7)",)]
        await asyncio.sleep(15)
        assert len(await house.books.read(quarantine.hosts)) == 2
        await asyncio.sleep(120)
        assert [each.host for each in await house.books.read(quarantine.hosts)] == ["host-b"]

    lived(house, story)


def test_a_node_that_hangs_does_not_hold_up_admission(house: House) -> None:
    async def story(house: House) -> None:
        house.backend.nodes["n2"] = Host("host-b")
        house.backend.hanging.add("n2")
        await asyncio.sleep(5)
        began = clock()
        await house.until(await house.create(), State.STOPPED)
        assert clock() - began < 10

    lived(house, story)
