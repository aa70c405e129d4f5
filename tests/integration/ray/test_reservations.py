"""Reservations, GPUs and capacity on a real cluster."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from launcher.backend import BackendError, Bundle, Reservation
from launcher.ray_backend import RayBackend

CPU = Bundle({"CPU": 1.0})
GPU = Bundle({"CPU": 1.0, "GPU": 1.0})


@asynccontextmanager
async def reserved(backend: RayBackend, name: str, *bundles: Bundle) -> AsyncIterator[Reservation]:
    await backend.reserve(name, bundles, "PACK")
    try:
        yield await settled(backend, name)
    finally:
        await backend.release(name)
        await absent(backend, name)


async def settled(backend: RayBackend, name: str) -> Reservation:
    """Where it stands once Ray has tried to place it."""
    async with asyncio.timeout(15):
        while (found := await backend.reservation(name)).state == "waiting":
            await asyncio.sleep(0.01)
        return found


async def absent(backend: RayBackend, name: str) -> None:
    async with asyncio.timeout(15):
        while (await backend.reservation(name)).state != "absent":
            await asyncio.sleep(0.01)


def test_capacity_tells_what_the_node_has_in_total_and_its_labels(on_ray):
    async def test(backend):
        async with reserved(backend, "exp-1-a1", GPU):
            return await backend.capacity()

    capacity = on_ray(test)
    (node,) = capacity.alive
    assert (node.total["CPU"], node.total["GPU"], node.labels["zone"]) == (4, 2, "b")
    assert len(capacity.cluster_id) == 56


def test_a_reservation_made_twice_is_one_and_released_twice_is_gone(on_ray):
    async def test(backend):
        await backend.reserve("exp-2-a1", (GPU,), "PACK")
        await backend.reserve("exp-2-a1", (GPU,), "PACK")
        first = await settled(backend, "exp-2-a1")
        listed = await backend.reservations()
        await backend.release("exp-2-a1")
        await backend.release("exp-2-a1")
        await absent(backend, "exp-2-a1")
        return first, listed, await backend.reservations(), (await backend.capacity()).alive[0].node_id

    first, listed, after, node_id = on_ray(test)
    assert first == Reservation("placed", (node_id,))
    assert listed == ["exp-2-a1"]
    assert after == []


def test_a_reservation_outlives_the_backend_that_made_it(on_ray):
    on_ray(lambda backend: backend.reserve("exp-3-a1", (CPU,), "PACK"))

    async def test(backend):
        found = await settled(backend, "exp-3-a1")
        await backend.release("exp-3-a1")
        await absent(backend, "exp-3-a1")
        return found

    assert on_ray(test).state == "placed"


def test_what_no_node_has_is_infeasible_and_what_is_in_use_waits(on_ray):
    async def test(backend):
        async with reserved(backend, "exp-4-a1", Bundle({"GPU": 2.0})):
            async with reserved(backend, "exp-4-a2", Bundle({"GPU": 8.0})) as too_much:
                pass
            async with reserved(backend, "exp-4-a3", Bundle({"CPU": 1.0}, {"zone": "elsewhere"})) as elsewhere:
                pass
            await backend.reserve("exp-4-a4", (GPU,), "PACK")
            in_use = await backend.reservation("exp-4-a4")
            await backend.release("exp-4-a4")
            return too_much.state, elsewhere.state, in_use.state

    assert on_ray(test) == ("infeasible", "infeasible", "waiting")


def test_gpu_ids_stay_the_same_and_no_two_reservations_share_one(on_ray):
    async def test(backend):
        async with reserved(backend, "exp-5-a1", GPU), reserved(backend, "exp-5-a2", GPU):
            seen = {name: {await backend.gpu_ids(name, 0, 1) for _ in range(5)} for name in ("exp-5-a1", "exp-5-a2")}
        async with reserved(backend, "exp-5-a3", Bundle({"GPU": 2.0})):
            return seen, await backend.gpu_ids("exp-5-a3", 0, 2)

    seen, both = on_ray(test)
    assert [len(ids) for ids in seen.values()] == [1, 1]
    assert set().union(*seen.values()) == {("0",), ("1",)}
    assert both == ("0", "1")


def test_gpus_of_a_reservation_that_is_not_placed_are_refused_and_of_a_cpu_bundle_are_none(on_ray):
    async def test(backend):
        assert await backend.gpu_ids("exp-6-a1", 0, 0) == ()
        with pytest.raises(BackendError, match="exp-6-a1 is not placed"):
            await backend.gpu_ids("exp-6-a1", 0, 1)

    on_ray(test)
