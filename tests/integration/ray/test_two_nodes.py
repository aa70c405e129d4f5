"""Two Ray nodes on one machine: told apart by their directories, and by where a reservation may not go."""

import asyncio
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from launcher.asking import Asking
from launcher.backend import Bundle, Capacity, NodeCapacity
from launcher.experiment import HeldNode
from launcher.placement import avoiding
from launcher.ray_backend import RayBackend
from tests.integration.ray.test_agents import answered
from tests.integration.ray.test_reservations import absent, settled
from tests.integration.ray_fixture import Cluster, joined

CPU = Bundle({"CPU": 1.0})


@pytest.fixture(scope="module")
def second(ray_head_of_session: Cluster, network, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The directory of a node that has joined the session's head."""
    with (
        network.entered() if network else nullcontext(),
        joined(ray_head_of_session, tmp_path_factory.mktemp("second")) as made,
    ):
        yield made


async def both(backend: RayBackend) -> Capacity:
    async with asyncio.timeout(60):
        while len((capacity := await backend.capacity()).alive) < 2:
            await asyncio.sleep(0.1)
        return capacity


def by_size(capacity: Capacity) -> list[NodeCapacity]:
    """The head's node, then the one that joined."""
    return sorted(capacity.alive, key=lambda node: -node.total["CPU"])


def test_a_reservation_is_never_placed_on_a_node_that_is_avoided(on_ray, second):
    async def test(backend):
        first, other = (node.node_id for node in by_size(await both(backend)))
        placed = {}
        for name, avoided in {"exp-70-a1": [first], "exp-70-a2": [other], "exp-70-a3": [first, other]}.items():
            await backend.reserve(name, avoiding([CPU], avoided), "PACK")
            placed[name] = await settled(backend, name)
        for name in placed:
            await backend.release(name)
            await absent(backend, name)
        assert placed["exp-70-a1"].node_ids == (other,)
        assert placed["exp-70-a2"].node_ids == (first,)
        return placed["exp-70-a3"].state

    assert on_ray(test) == "infeasible"


def test_a_label_of_the_machine_type_and_an_avoided_node_are_asked_together(on_ray, second):
    async def test(backend):
        first, other = (node.node_id for node in by_size(await both(backend)))
        states = []
        for name, avoided in {"exp-71-a1": other, "exp-71-a2": first}.items():
            await backend.reserve(name, avoiding([Bundle({"CPU": 1.0}, {"zone": "b"})], [avoided]), "PACK")
            states.append((await settled(backend, name)).state)
            await backend.release(name)
            await absent(backend, name)
        return states

    assert on_ray(test) == ["placed", "infeasible"]


def test_two_nodes_of_one_machine_are_told_apart_by_what_is_on_their_disks(on_ray, second, ray_head):
    async def test(backend):
        first, other = by_size(await both(backend))
        facts = [await answered(backend.agent(node.node_id).facts) for node in (first, other)]
        gone = HeldNode("exp-72-a1-n0", "gone", first.host, first.address, root_id=facts[0].root_id)
        stranger = HeldNode("exp-72-a1-n0", "gone", first.host, first.address, root_id="of a machine that left")
        successor = await Asking(backend).agent_of(gone)
        return facts, successor.node_id == first.node_id, await Asking(backend).agent_of(stranger)

    facts, found, nobody = on_ray(test)
    assert facts[0].host == facts[1].host
    assert [each.root_id for each in facts] == [
        (ray_head.node_dir / "id").read_text(),
        (second / "id").read_text(),
    ]
    assert facts[0].root_id != facts[1].root_id
    assert found
    assert nobody is None
