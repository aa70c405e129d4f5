"""Node agents as Ray's actors: placed, found, asked; and the ids of the GPUs in a bundle."""

import asyncio
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy

from launcher.backend import BackendError, NodeUnavailable
from launcher.node_types import NodeError
from launcher.ray_backend import groups
from launcher.ray_backend.agent import MAX_CONCURRENCY, NodeAgent
from launcher.ray_backend.answers import in_order
from launcher.ray_backend.order import NAMESPACE, AgentOrder, agent_name, refusal
from launcher.state import Cause

IDENTITY_S = 30.0
PROBE_S = 30.0


class Agents:
    """The agents of a cluster, one per node, each with the order that we want."""

    def __init__(self, order: AgentOrder, *, guest: bool) -> None:
        self._order = order
        self._guest = guest
        self._actor = ray.remote(NodeAgent)
        self._known: dict[str, Any] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._making: set[asyncio.Task[Any]] = set()

    async def ensure(self) -> None:
        """Place an agent on every living node, without waiting for them."""
        capacity = await asyncio.to_thread(groups.capacity)
        alive = {node.node_id for node in capacity.alive}
        for node_id in self._known.keys() - alive:
            del self._known[node_id]
        for node_id in alive - self._known.keys():
            task = asyncio.create_task(self._handle(node_id))
            self._making.add(task)
            task.add_done_callback(self._made)

    def _made(self, task: "asyncio.Task[Any]") -> None:
        self._making.discard(task)
        if not task.cancelled():
            task.exception()  # the next round tries again, and whoever needs the agent is told

    async def call(self, node_id: str, method: str, arguments: tuple[Any, ...]) -> Any:
        """One method of a node's agent.

        Raises:
            NodeError: as the node raised it.
            NodeUnavailable: the agent did not answer; it may or may not have done it.
        """
        handle = await self._handle(node_id)
        try:
            return await handle.call.remote(method, arguments)
        except RayTaskError as error:
            if isinstance(error.cause, NodeError):
                raise error.cause from None
            raise BackendError(f"the agent failed in {method}: {_first_line(error.cause)}") from None
        except RayActorError as error:
            self._known.pop(node_id, None)
            raise NodeUnavailable(f"its agent does not answer: {_first_line(error)}") from None

    async def gpu_ids(self, name: str, bundle_index: int, count: int) -> tuple[str, ...]:
        """The ids of all GPUs of a placed bundle, in the node's order, asked of a task inside it."""
        if count == 0:
            return ()
        group = await asyncio.to_thread(groups.placed, name)
        if group is None:
            raise BackendError(f"{name} is not placed")
        inside = PlacementGroupSchedulingStrategy(group, bundle_index, placement_group_capture_child_tasks=False)
        ref = _gpu_ids.options(num_gpus=count, scheduling_strategy=inside).remote()
        try:
            ids = await asyncio.wait_for(ref, PROBE_S)
        except TimeoutError:
            ray.cancel(ref, force=True)  # something is in the bundle already; a probe must not come after it
            raise BackendError(f"the GPUs of {name} could not be asked for within {PROBE_S:.0f} s") from None
        return in_order(ids)

    async def _handle(self, node_id: str) -> Any:
        """The agent's handle; it is placed when it is not there, and replaced when it is another one.

        Raises:
            NodeError: it is another one, and not ours to replace.
            NodeUnavailable: it does not answer.
        """
        async with self._locks.setdefault(node_id, asyncio.Lock()):
            if node_id not in self._known:
                try:
                    self._known[node_id] = await self._meet(node_id)
                except (RayError, GetTimeoutError, TimeoutError, ValueError) as error:
                    raise NodeUnavailable(f"its agent could not be reached: {_first_line(error)}") from None
            return self._known[node_id]

    async def _meet(self, node_id: str) -> Any:
        handle = await asyncio.to_thread(self._place, node_id)
        identity = await asyncio.wait_for(handle.identity.remote(), IDENTITY_S)
        if identity != self._order.identity and self._guest:
            raise NodeError(Cause.PREPARATION_FAILED, refusal(identity, self._order.identity))
        if identity != self._order.identity:
            await asyncio.to_thread(ray.kill, handle, no_restart=True)
            raise NodeUnavailable("an agent of another version gives way")
        return handle

    def _place(self, node_id: str) -> Any:
        return self._actor.options(
            name=agent_name(node_id),
            namespace=NAMESPACE,
            lifetime="detached",
            get_if_exists=True,
            num_cpus=0,
            max_restarts=-1,
            max_task_retries=0,
            max_concurrency=MAX_CONCURRENCY,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False),
        ).remote(self._order)


@ray.remote(num_cpus=0, max_calls=0, max_retries=0)  # type: ignore[untyped-decorator]  # ray is not typed
def _gpu_ids() -> list[str]:
    ids: list[str] = ray.get_runtime_context().get_accelerator_ids()["GPU"]
    return ids


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"
