"""What happens when the head dies: it is told, nothing is left, and the next head is found."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from launcher import ray_head
from launcher.backend import Bundle, HeadLost
from launcher.ray_backend import Connection, RayBackend
from launcher.ray_environment import for_driver
from tests.integration.ray.conftest import backend_on
from tests.integration.ray_fixture import start_head

PROBE = "import sys; from launcher.ray_backend.fence import head_probe; print(head_probe(*sys.argv[1:])().name)"


@pytest.fixture
def cluster(inside, tmp_path):
    """A head that may be killed."""
    cluster = start_head(tmp_path)
    yield cluster
    ray_head.stop(cluster.head)
    assert ray_head.remains(cluster.head) == []


def raylet_of(head: ray_head.Head) -> int:
    return next(pid for pid in ray_head.remains(head) if Path(f"/proc/{pid}/comm").read_text().strip() == "raylet")


def test_a_dead_raylet_is_told_nothing_is_left_and_the_next_head_is_found(cluster):
    async def test():
        backend = backend_on(cluster)
        await backend.connect()
        before = await backend.capacity()
        await backend.reserve("exp-1-a1", (Bundle({"CPU": 1.0}),), "PACK")
        watching = asyncio.create_task(backend.agent(before.alive[0].node_id).watch(1 << 60, 60))
        os.kill(raylet_of(cluster.head), signal.SIGKILL)
        async with asyncio.timeout(20):
            with pytest.raises(HeadLost):
                await watching
        with pytest.raises(HeadLost):
            await backend.capacity()
        old, token = cluster.head, cluster.head.token_path
        await asyncio.to_thread(ray_head.stop, old)
        left = ray_head.remains(old)
        port = int(old.address.rpartition(":")[2])
        cluster.head = start_head(token.parent, port=port).head
        await backend.connect()
        after = await backend.capacity()
        reservations = await backend.reservations()
        await backend.close()
        return before, after, left, reservations

    before, after, left, reservations = asyncio.run(test())
    assert left == []
    assert not ray_head.is_alive(ray_head.Head(cluster.head.pid, 0, "", cluster.head.directory, Path()))
    assert after.cluster_id != before.cluster_id
    assert reservations == []
    assert answer_at(cluster, after.cluster_id) == "OURS"
    assert answer_at(cluster, before.cluster_id) == "ANOTHER"

    os.kill(cluster.head.pid, signal.SIGKILL)
    ray_head.stop(cluster.head)
    assert ray_head.remains(cluster.head) == []
    assert not cluster.head.directory.exists()


def answer_at(cluster, cluster_id: str) -> str:
    """What a node that was born in that cluster learns at the head's address."""
    argv = [sys.executable, "-c", PROBE, cluster.head.address, cluster_id]
    env = for_driver(cluster.environment, cluster.head.token_path)
    return subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60).stdout.strip()


def test_without_a_head_every_question_says_so(inside):
    async def test():
        backend = RayBackend(lambda: None, environment=os.environ, fence_s=120)
        with pytest.raises(HeadLost, match="not connected"):
            await backend.capacity()
        with pytest.raises(HeadLost, match=r"within 0 s: .*there is no Ray head yet"):
            await backend.connect(timeout_s=0.1)
        await backend.close()

    asyncio.run(test())


def test_an_address_where_nobody_listens_is_no_head(inside, tmp_path):
    (tmp_path / "token").write_text("ab" * 32)

    async def test():
        backend = RayBackend(lambda: Connection("127.0.0.1:9", tmp_path / "token"), environment=os.environ, fence_s=120)
        with pytest.raises(HeadLost):
            await backend.connect(timeout_s=2)
        await backend.close()

    asyncio.run(test())


def test_a_directory_too_long_for_sockets_is_refused(tmp_path):
    with pytest.raises(ray_head.HeadError, match="too long for Ray's sockets"):
        ray_head.start(os.environ, tmp_path / "token", ray_head.HeadOptions(), directory=tmp_path / ("x" * 60))


def test_a_head_that_ends_while_it_starts_says_why_and_leaves_nothing(inside, tmp_path):
    (tmp_path / "token").write_text("ab" * 32)
    options = ray_head.HeadOptions(labels={"not a label": "x"})
    before = set(Path("/tmp").glob("descent-*"))
    with pytest.raises(ray_head.HeadError, match="ended while it started"):
        ray_head.start(os.environ, tmp_path / "token", options)
    assert set(Path("/tmp").glob("descent-*")) <= before
