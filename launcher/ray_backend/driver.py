"""The process that speaks with Ray for us; `python -m launcher.ray_backend.driver FD`.

It is a process of its own because Ray ends a driver that loses its cluster: at once when the local raylet is gone, also
inside `ray.shutdown()`, and after 60 s when the head is (both measured). It ends itself earlier, and says why.
"""

import asyncio
import os
import pickle
import socket
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import ray

from launcher.backend import BackendError
from launcher.node_types import NodeError
from launcher.ray_backend import groups
from launcher.ray_backend.agents import Agents
from launcher.ray_backend.exits import ANOTHER_CLUSTER, HEAD_SILENT, NO_RAYLET
from launcher.ray_backend.fence import PROBE_PERIOD_S, Answer, head_probe
from launcher.ray_backend.order import NAMESPACE
from launcher.ray_backend.wire import pack, receive

SILENT_PROBES = 3
AGENTS_PERIOD_S = 2.0


class Driver:
    """Serves requests `(id, method, arguments)` with answers `(id, error or None, result)`."""

    def __init__(self, agents: Agents) -> None:
        self._agents = agents
        self._threads = ThreadPoolExecutor(32, "ray")
        self._methods: dict[str, Callable[..., Awaitable[Any]]] = {
            "agent": agents.call,
            "gpu_ids": agents.gpu_ids,
            **{
                function.__name__: self._in_thread(function)
                for function in (
                    groups.capacity,
                    groups.reserve,
                    groups.reservation,
                    groups.reservations,
                    groups.release,
                )
            },
        }

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer until the other side goes."""
        keeping = asyncio.create_task(self._keep_agents())
        answers: set[asyncio.Task[None]] = set()
        try:
            while True:
                request_id, method, arguments = pickle.loads(await receive(reader))  # noqa: S301 - our own parent sent it
                task = asyncio.create_task(self._answer(writer, request_id, method, arguments))
                answers.add(task)
                task.add_done_callback(answers.discard)
        except EOFError:
            return
        finally:
            keeping.cancel()

    async def _answer(self, writer: asyncio.StreamWriter, request_id: int, method: str, arguments: tuple[Any]) -> None:
        error: Exception | None = None
        result = None
        try:
            result = await self._methods[method](*arguments)
        except (BackendError, NodeError) as known:
            error = known
        except Exception as unknown:  # whatever Ray raises reaches the caller as a sentence
            error = BackendError(f"{type(unknown).__name__}: {unknown}")
        writer.write(pack((request_id, error, result)))
        await writer.drain()

    def _in_thread(self, function: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
        async def call(*arguments: Any) -> Any:
            return await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)

        return call

    async def _keep_agents(self) -> None:
        """Place agents ahead of need, also on nodes that join later."""
        while True:
            try:
                await self._agents.ensure()
            except Exception as error:  # the next round tries again
                print(f"agents: {type(error).__name__}: {error}", file=sys.stderr)
            await asyncio.sleep(AGENTS_PERIOD_S)


def main() -> None:
    """Connect, say so, serve, and end when the cluster or the parent does."""
    threading.Thread(target=_watch_parent, args=(os.getppid(),), name="parent", daemon=True).start()
    channel = socket.socket(fileno=int(sys.argv[1]))
    asyncio.run(_run(channel))
    os._exit(0)  # Ray's own exit handlers would wait for a cluster that may be gone


async def _run(channel: socket.socket) -> None:
    reader, writer = await asyncio.open_connection(sock=channel)
    address, order, guest = pickle.loads(await receive(reader))  # noqa: S301 - our own parent sent it
    await asyncio.to_thread(
        ray.init, address, namespace=NAMESPACE, log_to_driver=False, configure_logging=False, ignore_reinit_error=False
    )
    worker = ray._private.worker.global_worker
    watch = (head_probe(worker.gcs_client.address, groups.cluster_id()), worker.node.raylet_socket_name)
    threading.Thread(target=_watch_cluster, args=watch, name="pulse", daemon=True).start()
    writer.write(pack(groups.cluster_id()))
    await Driver(Agents(order, guest=guest)).serve(reader, writer)


def _watch_parent(pid: int) -> None:
    """End this process when its parent is gone, also while it waits for a cluster to answer."""
    while os.getppid() == pid:
        time.sleep(PROBE_PERIOD_S)
    os._exit(0)


def _watch_cluster(probe: Callable[[], Answer], raylet_socket: str) -> None:
    """End this process when the cluster that it speaks with is gone."""
    silent = 0
    while True:
        answer = probe()
        silent = silent + 1 if answer is Answer.SILENCE else 0
        if answer is Answer.ANOTHER:
            os._exit(ANOTHER_CLUSTER)
        if silent >= SILENT_PROBES:
            os._exit(HEAD_SILENT)
        if not _listens(raylet_socket):
            os._exit(NO_RAYLET)
        time.sleep(PROBE_PERIOD_S)


def _listens(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(PROBE_PERIOD_S)
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            return True  # busy is not gone
        return True


if __name__ == "__main__":
    main()
