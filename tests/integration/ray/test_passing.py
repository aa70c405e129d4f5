"""A `descent run` on a worker's cluster: neither clears what is the other's, and one that is killed leaves nothing."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ci_bot.store.engine import migrate, open_engine
from ci_bot.worker.books import Books
from ci_bot.worker.sweep import Sweep
from launcher import guardian_client
from launcher.backend import Bundle
from launcher.keep import Keep
from launcher.node_types import NodeError, PrepareOrder, StartOrder
from tests.integration.node.conftest import packed
from tests.integration.ray.conftest import backend_on
from tests.integration.ray.test_agents import answered, the_node
from tests.integration.ray.test_reservations import absent, settled

ROOT = Path(__file__).parents[3]
CPU = Bundle({"CPU": 1.0})
RUN, APP = "run-1a2b3c4d-exp-1-a1", "exp-1-a1"


async def begin(backend, group: str) -> None:
    """Reserve a place and run a command there."""
    await backend.reserve(group, (CPU,), "PACK")
    assert (await settled(backend, group)).state == "placed"
    agent, key = backend.agent(await the_node(backend)), f"{group}-n0"
    await answered(agent.facts)
    if await agent.code_offset("42-a") >= 0:
        await agent.put_code("42-a", 0, packed({"x": "y"}), True)
    await agent.prepare(key, PrepareOrder("42-a", "42", trusted=True, isolation="none"))
    await agent.start(key, StartOrder("sleep 600", {}, (), "none", None, None, 1 << 20, 1, 15))


OWNER = """
import asyncio, os, sys
from pathlib import Path
from launcher.ray_backend import Connection, RayBackend
from tests.integration.ray.test_passing import RUN, begin

async def main():
    where = Connection(sys.argv[1], Path(sys.argv[2]))
    backend = RayBackend(lambda: where, environment=os.environ, fence_s=120, guest=True)
    await backend.connect()
    await begin(backend, RUN)
    print("running", flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


@contextmanager
def owner(ray_head) -> "Iterator[subprocess.Popen[str]]":
    """A process that owns a command on the cluster, as `descent run` does."""
    argv = [sys.executable, "-c", OWNER, ray_head.head.address, str(ray_head.head.token_path)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "running\n"
            yield process
        finally:
            process.kill()


async def sweep(backend, root: Path) -> None:
    """What a worker that knows of no experiment does: it looks until nothing of the App's is left."""
    engine = open_engine(f"sqlite:///{root / 'descent.db'}")
    books = Books(engine, "worker")
    try:
        migrate(engine)
        await books.open()
        async with asyncio.timeout(30):
            while await backend.reservations():  # the first look may only begin to end what runs
                await Sweep(books, backend, Keep(root), grace_s=1).run()
                await asyncio.sleep(0.1)
    finally:
        books.close()
        engine.dispose()


def test_neither_touches_the_other_s_and_what_a_killed_run_leaves_is_ended(on_ray, ray_head, tmp_path):
    attempts = ray_head.node_dir / "attempts"

    async def test(backend):
        agent = backend.agent(await the_node(backend))
        await answered(agent.facts)
        with owner(ray_head) as run:
            await begin(backend, APP)
            assert await backend.reservations() == [APP]
            assert await agent.inventory() == [f"{APP}-n0"]
            await sweep(backend, tmp_path)
            assert [path.name for path in attempts.iterdir()] == [f"{RUN}-n0"]
            assert (await agent.status([f"{RUN}-n0"]))[f"{RUN}-n0"].phase == "running"
            assert (await backend.reservation(RUN)).state == "placed"
            await begin(backend, APP)
            os.kill(run.pid, signal.SIGKILL)
        await absent(backend, RUN)
        async with asyncio.timeout(40):
            while (attempts / f"{RUN}-n0").exists():
                await asyncio.sleep(0.1)
        left = guardian_client.sweep(f"{RUN}-n0")
        other = (await agent.status([f"{APP}-n0"]))[f"{APP}-n0"].phase, (await backend.reservation(APP)).state
        await sweep(backend, tmp_path)
        return left, other, list(attempts.iterdir())

    assert on_ray(test) == ([], ("running", "placed"), [])


def test_a_guest_that_would_make_agents_otherwise_is_told_how_and_replaces_none(on_ray, ray_head):
    async def test(backend):
        agent = backend.agent(await the_node(backend))
        before = await answered(agent.facts)
        guest = backend_on(ray_head, fence_s=60, guest=True)
        await guest.connect()
        try:
            with pytest.raises(NodeError, match=r"made with FENCE_S=120 and without STORAGE_DIR; set the same here"):
                await answered(guest.agent(await the_node(guest)).facts)
        finally:
            await guest.close()
        return before, await agent.facts()

    before, after = on_ray(test)
    assert after.incarnation == before.incarnation
