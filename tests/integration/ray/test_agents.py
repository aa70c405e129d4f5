"""Node agents on a real cluster: always one per node, whatever dies."""

import asyncio
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from launcher import ray_head as heads
from launcher.backend import BackendError, HeadLost, NodeUnavailable
from launcher.node_types import NodeError, StartOrder
from launcher.ray_backend import RayBackend
from launcher.state import Cause
from tests.integration.ray.conftest import backend_on


async def the_node(backend: RayBackend) -> str:
    return (await backend.capacity()).alive[0].node_id


async def answered(call):
    """The answer, once there is one."""
    async with asyncio.timeout(20):
        while True:
            try:
                return await call()
            except BackendError:
                await asyncio.sleep(0.05)


def drivers(parent: int | str = "self") -> list[int]:
    """The driver processes that a process has."""
    children = (
        int(pid) for task in Path(f"/proc/{parent}/task").iterdir() for pid in (task / "children").read_text().split()
    )
    return [pid for pid in children if b"ray_backend.driver" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def test_every_node_has_an_agent_that_says_what_the_host_is(on_ray, ray_head):
    async def test(backend):
        return await answered(backend.agent(await the_node(backend)).facts)

    facts = on_ray(test)
    assert facts.host == os.uname().nodename
    assert facts.address == ray_head.head.address.partition(":")[0]
    assert facts.pid in heads.remains(ray_head.head)
    assert (ray_head.node_dir / "attempts").is_dir()


def test_an_agent_that_is_killed_has_a_successor_within_seconds(on_ray):
    async def test(backend):
        agent = backend.agent(await the_node(backend))
        before = await answered(agent.facts)
        mark = await agent.watch(0, 0.1)
        watching = asyncio.create_task(agent.watch(mark, 30))
        await asyncio.sleep(0)
        os.kill(before.pid, signal.SIGKILL)
        with pytest.raises(NodeUnavailable):
            await watching
        return before, await answered(agent.facts)

    before, after = on_ray(test)
    assert after.pid != before.pid
    assert after.incarnation != before.incarnation


def test_a_node_s_refusal_arrives_with_its_cause(on_ray):
    order = StartOrder("true", {}, (), "none", None, None, 1 << 20, 1, 5)

    async def test(backend):
        agent = backend.agent(await the_node(backend))
        await answered(agent.facts)
        with pytest.raises(NodeError) as refusal:
            await agent.start("exp-1-a1-n0", order)
        return refusal.value.cause

    assert on_ray(test) is Cause.PREPARATION_FAILED


def test_a_node_that_is_not_there_is_unavailable(on_ray):
    async def test(backend):
        with pytest.raises(NodeUnavailable):
            await backend.agent("f" * 56).facts()

    on_ray(test)


def test_a_driver_that_is_killed_is_replaced_and_the_agent_stays(on_ray):
    async def test(backend):
        agent = backend.agent(await the_node(backend))
        before = await answered(agent.facts)
        (driver,) = drivers()
        os.kill(driver, signal.SIGKILL)
        with pytest.raises(HeadLost):
            await agent.watch(before.pid + (1 << 60), 30)
        after = await answered(agent.facts)
        return before.incarnation == after.incarnation, drivers() != [driver]

    assert on_ray(test) == (True, True)


def test_a_connection_that_has_just_ended_is_not_taken_for_one(on_ray):
    async def test(backend):
        agent = backend.agent(await the_node(backend))
        await answered(agent.facts)
        watching = asyncio.create_task(agent.watch(1 << 60, 30))
        await asyncio.sleep(0)
        (driver,) = drivers()
        os.kill(driver, signal.SIGKILL)
        with pytest.raises(HeadLost):
            await watching
        await backend.connect()
        return len((await backend.capacity()).alive)

    assert on_ray(test) >= 1


WORKER = """
import asyncio, os, sys
from pathlib import Path
from launcher.ray_backend import Connection, RayBackend

async def main():
    where = Connection(sys.argv[1], Path(sys.argv[2]))
    await RayBackend(lambda: where, environment=os.environ, fence_s=120).connect()
    print("connected", flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


def test_a_driver_ends_with_its_worker(ray_head):
    argv = [sys.executable, "-c", WORKER, ray_head.head.address, str(ray_head.head.token_path)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as worker:
        try:
            assert worker.stdout.readline() == "connected\n"
            (driver,) = drivers(worker.pid)
            gone = os.pidfd_open(driver)
        finally:
            worker.kill()
    ready, _, _ = select.select([gone], [], [], 10)
    os.close(gone)
    assert ready


def test_an_agent_of_another_version_gives_way(on_ray, ray_head):
    async def test(backend):
        before = await answered(backend.agent(await the_node(backend)).facts)
        newer = backend_on(ray_head, fence_s=60)
        await newer.connect()
        try:
            return before, await answered(newer.agent(await the_node(newer)).facts)
        finally:
            await newer.close()

    before, after = on_ray(test)
    assert after.incarnation != before.incarnation


def test_no_secret_reaches_a_process_of_ray(on_ray, ray_head):
    async def test(backend):
        await answered(backend.agent(await the_node(backend)).facts)
        return [*heads.remains(ray_head.head), *drivers()]

    pids = on_ray(test)
    environments = [Path(f"/proc/{pid}/environ").read_bytes() for pid in pids]
    assert len(environments) >= 6
    assert ray_head.environment["GITHUB_WEBHOOK_SECRET"] == "never-on-ray"
    assert [pid for pid, each in zip(pids, environments, strict=True) if b"never-on-ray" in each] == []
