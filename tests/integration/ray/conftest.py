"""The Ray cluster of the session, and a backend on it."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import nullcontext
from typing import Any

import pytest

from launcher.ray_backend import RayBackend
from tests.integration.ray_fixture import Cluster, inside, network, ray_head_fixture, ray_head_of_session
from tests.namespace import Network

__all__ = ["inside", "network", "ray_head_fixture", "ray_head_of_session"]


def backend_on(cluster: Cluster, *, fence_s: float = 120, guest: bool = False) -> RayBackend:
    """A backend that follows the cluster wherever its head goes."""
    return RayBackend(lambda: cluster.connection, environment=cluster.environment, fence_s=fence_s, guest=guest)


@pytest.fixture(scope="session")
def connected(ray_head_of_session: Cluster, network: Network | None) -> Iterator[tuple[asyncio.Runner, RayBackend]]:
    """A backend that stays connected, and the loop it lives in."""
    with asyncio.Runner() as runner:
        backend = backend_on(ray_head_of_session)
        with network.entered() if network else nullcontext():
            runner.run(backend.connect())
        yield runner, backend
        runner.run(backend.close())


@pytest.fixture
def on_ray(connected: tuple[asyncio.Runner, RayBackend], inside: None) -> Callable[..., Any]:
    """Run a coroutine function with the backend."""
    runner, backend = connected

    def run(test: Callable[[RayBackend], Awaitable[Any]]) -> Any:
        async def call() -> Any:
            await backend.connect()
            return await test(backend)

        return runner.run(call())

    return run
