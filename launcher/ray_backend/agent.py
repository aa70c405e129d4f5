"""The node agent: one Ray actor per node, a thin shell around the node's own room."""

import asyncio
import logging
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import ray

from launcher.node import Node
from launcher.ray_backend import groups, peers
from launcher.ray_backend.fence import Answer, Fence, head_probe
from launcher.ray_backend.order import AgentOrder
from launcher.ray_backend.passing import Passing
from launcher.ray_backend.turns import Turns

log = logging.getLogger(__name__)
CALL_THREADS = 64
WATCH_THREADS = 1024
"""Whoever waits blocks its thread; that must never keep a stop waiting."""
LAUNCH_THREADS = 1024
"""A user's code has them wait as it likes: nobody else's calls may stand behind those."""
LAUNCHES_AT_ONCE = 64
"""How many of them one attempt may have for each method, which is more daemons than it starts on a node at a time."""
MAX_CONCURRENCY = 4096
METHODS = frozenset(
    {"facts", "inventory", "code_offset", "put_code", "prepare", "start", "status", "watch", "stop", "clean"}
    | {"read_log", "artifacts", "read_artifact", "put_artifact", "reserve_ports", "connect", "launch", "launched"}
)
PER_ATTEMPT = frozenset({"launch", "launched"})
"""What a user's code asks for, by way of another node."""


class NodeAgent:
    """Answers for one node; what happened there is on the node's disk, so that a successor knows it too."""

    def __init__(self, order: AgentOrder) -> None:
        self._order = order
        self._calls = ThreadPoolExecutor(CALL_THREADS, "call")
        launches = ThreadPoolExecutor(LAUNCH_THREADS, "launch")
        watches = ThreadPoolExecutor(WATCH_THREADS, "watch")
        self._pools = {"watch": watches, "launch": launches, "launched": launches}
        self._turns = Turns(LAUNCHES_AT_ONCE)
        self._node = Node(
            node_directory(),
            environ=os.environ,
            storage_dir=order.storage_dir,
            address=ray.util.get_node_ip_address(),
            peer=peers.ask,
            cluster_id=groups.cluster_id(),
        )
        Fence(_probe_of_this_cluster(), order.fence_s, self._fall).start()
        Passing(self._node, _gone_from(_probe_of_this_cluster())).start()
        self._calls.submit(self._node.warm)

    async def identity(self) -> str:
        """Which order it was made with."""
        return self._order.identity

    async def call(self, method: str, arguments: tuple[Any, ...]) -> Any:
        """One of the node's methods, in a thread."""
        if method not in METHODS:
            raise ValueError(f"a node has no method {method!r}")
        bound: Callable[..., Any] = getattr(self._node, method)
        pool, loop = self._pools.get(method, self._calls), asyncio.get_running_loop()
        if method not in PER_ATTEMPT:
            return await loop.run_in_executor(pool, bound, *arguments)
        async with self._turns.of((method, arguments[0])):  # the attempt's key
            return await loop.run_in_executor(pool, bound, *arguments)

    def _fall(self, why: str) -> None:
        """End everything that runs here: somebody may be starting it elsewhere."""
        log.error("fenced: %s", why)
        self._node.stop_all(grace_s=0)


def node_directory() -> Path:
    """Where this node keeps what it has: NODE_DIR of the Ray node's environment."""
    return Path(os.environ.get("NODE_DIR") or f"/var/tmp/descent-{os.getuid()}")  # noqa: S108 - the node checks its owner


def _probe_of_this_cluster() -> Any:
    worker = ray._private.worker.global_worker
    return head_probe(worker.gcs_client.address, groups.cluster_id())


def _gone_from(probe: Callable[[], Answer]) -> Callable[[Iterable[str]], set[str]]:
    """Asks this very cluster, and nobody while it is silent: that is the fence's to judge."""
    return lambda names: groups.gone(names) if probe() is Answer.OURS else set()
