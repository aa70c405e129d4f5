"""Drives one attempt: reserve, prepare, connect, run, tear down; every step may be taken again after any crash."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn, Protocol, TypeVar

from launcher.backend import AgentClient, Backend, BackendError, NodeUnavailable, Reservation
from launcher.experiment import Held, HeldNode, Specification
from launcher.keep import CodeArchive, Keep
from launcher.machines import Machine
from launcher.node_types import NodeError, NodeStatus, PrepareOrder, StartOrder
from launcher.placement import bundles, needs
from launcher.state import HOLDING, Cause, Progress, Signal, State

T = TypeVar("T")

PLACEMENT_S = 30.0
PROVISIONING_S = 900.0
NETWORK_S = 120.0
TEARDOWN_S = 300.0
STOP_S = 30.0
"""What a tree may take to end after its grace; then it is asked again."""
NODE_LOST_S = 15.0
"""How long a node may be silent before its attempt ends."""
LEASE_S = 15.0
"""How long a guardian outlives its agent."""
POLL_S = 0.25
CHUNK_BYTES = 4 << 20


class Ended(Exception):
    """The attempt ends, for a cause and with what fills its sentence."""

    def __init__(self, cause: Cause, **detail: Any) -> None:
        super().__init__(f"{cause}: {detail}")
        self.cause = cause
        self.detail = detail


class Journal(Protocol):
    """Where the attempt's facts are recorded, by compare-and-swap; raises when somebody else drives it now."""

    async def signal(
        self,
        experiment_id: int,
        expected: Progress,
        signal: Signal,
        cause: Cause | None = None,
        *,
        detail: dict[str, Any] | None = None,
        held: Held | None = None,
    ) -> Progress:
        """Record a fact and give the progress it leads to."""

    async def hold(self, experiment_id: int, expected: Progress, held: Held) -> None:
        """Record what the attempt holds, before it is used."""

    async def quarantine(self, host: str, why: str) -> None:
        """Record that a host could not be proven clean."""


@dataclass(frozen=True)
class Attempt:
    """All that an attempt needs to know; `env` is what the experiment's commands see besides the node's own."""

    experiment_id: int
    specification: Specification
    machines: tuple[Machine, ...]
    """One for each node group, in their order."""
    progress: Progress
    held: Held
    code: CodeArchive
    env: dict[str, str]
    storage_key: str
    trusted: bool
    running_at: float | None


@dataclass(frozen=True)
class Rules:
    """The operator's word on how attempts run; seconds and bytes in names."""

    isolation: str = "auto"
    time_limit_s: int = 86400
    grace_s: float = 10
    log_max_bytes: int = 1 << 30
    allow_shared_hosts: bool = False
    fence_s: float = 120
    """After that much silence of the head an agent ends what it runs."""


@dataclass
class Drive:
    """One attempt on its way; `interrupt` may be called at any time, its first cause counts."""

    attempt: Attempt
    backend: Backend
    journal: Journal
    keep: Keep
    rules: Rules
    now: Callable[[], float]
    progress: Progress = field(init=False)
    held: Held = field(init=False)
    running_at: float | None = field(init=False)

    def __post_init__(self) -> None:
        self.progress = self.attempt.progress
        self.held = self.attempt.held
        self.running_at = self.attempt.running_at
        self._interruption: asyncio.Future[Ended] = asyncio.get_running_loop().create_future()

    def interrupt(self, cause: Cause, **detail: Any) -> None:
        """End the attempt for a wish or a shutdown."""
        if not self._interruption.done():
            self._interruption.set_result(Ended(cause, **detail))

    async def run(self) -> Progress:
        """Take the attempt to its end, or to PENDING for another."""
        while self.progress.state in HOLDING:
            await self._advance()
        if self.progress.state is State.NETWORK_TEARDOWN:
            await self._tear_down()
        return self.progress

    # --- one state after another ---

    async def _advance(self) -> None:
        steps: dict[State, Callable[[], Awaitable[Signal]]] = {
            State.PROVISIONING: self._provision,
            State.PROVISIONED: self._connect,
            State.NETWORK_SETUP: self._start,
            State.RUNNING: self._watch,
        }
        state = self.progress.state
        try:
            signal = await self._bounded(steps[state](), self._deadline())
        except Ended as end:
            await self._record(Signal.ENDED, end.cause, detail=end.detail)
        else:
            await self._record(signal)

    def _deadline(self) -> tuple[float, Ended]:
        """Seconds that the current state may still take, and the end when they are over."""
        state = self.progress.state
        if state is State.RUNNING:
            may_run_s = self.attempt.specification.timeout_s or self.rules.time_limit_s
            left_s = (self.running_at or self.now()) + may_run_s - self.now()
            return max(left_s, 0.0), Ended(Cause.TIME_LIMIT, limit_s=may_run_s)
        limit_s = PROVISIONING_S if state is State.PROVISIONING else NETWORK_S
        return limit_s, Ended(Cause.DEADLINE, state=state.words, limit_s=limit_s)

    async def _bounded(self, step: Awaitable[Signal], deadline: tuple[float, Ended]) -> Signal:
        """The step's fact, unless an interruption or the deadline comes first."""
        limit_s, overdue = deadline
        task = asyncio.ensure_future(step)
        try:
            either: set[asyncio.Future[Any]] = {task, self._interruption}
            await asyncio.wait(either, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            raise self._interruption.result() if self._interruption.done() else overdue
        finally:
            if not task.done():
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    async def _record(
        self, signal: Signal, cause: Cause | None = None, *, detail: dict[str, Any] | None = None
    ) -> None:
        self.progress = await self.journal.signal(
            self.attempt.experiment_id, self.progress, signal, cause, detail=detail, held=self.held
        )

    @property
    def _group(self) -> str:
        """The attempt's reservation: known before it is made, so that it can be removed whatever was recorded."""
        return f"exp-{self.attempt.experiment_id}-a{self.progress.attempt}"

    # --- PROVISIONING ---

    async def _provision(self) -> Signal:
        """Reserve the gang, then make code and environment ready on every node."""
        group = self._group
        placed = await self._place(group)
        if placed is None:
            await self.backend.release(group)
            self.held = Held()
            return Signal.NOT_PLACED
        self.held = await self._hold(group, placed)
        await self.journal.hold(self.attempt.experiment_id, self.progress, self.held)
        await _together(self._prepare(node) for node in self.held.nodes)
        return Signal.NODES_READY

    async def _place(self, group: str) -> Reservation | None:
        """The placed reservation, or None when there was no room within PLACEMENT_S."""
        wanted = needs(self.attempt.specification, self.attempt.machines, shared_hosts=self.rules.allow_shared_hosts)
        give_up_at = asyncio.get_running_loop().time() + PLACEMENT_S
        await self._answered(lambda: self.backend.reserve(group, wanted.bundles, wanted.strategy))
        pause_s = 0.002
        while True:
            reservation = await self._answered(lambda: self.backend.reservation(group))
            if reservation.state == "placed":
                return reservation
            if reservation.state in {"lost", "absent"}:
                raise Ended(Cause.RESERVATION_LOST, why=reservation.why or reservation.state)
            if reservation.state == "infeasible" or asyncio.get_running_loop().time() > give_up_at:
                return None
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, POLL_S)

    async def _hold(self, group: str, placed: Reservation) -> Held:
        capacity = await self._answered(self.backend.capacity)
        wanted = bundles(self.attempt.specification, self.attempt.machines)
        by_id = {node.node_id: node for node in capacity.nodes}
        nodes = []
        for index, node_id in enumerate(placed.node_ids):
            where = by_id.get(node_id)
            if where is None:
                raise Ended(Cause.RESERVATION_LOST, why=f"node {node_id[:8]} left the cluster")
            gpus = await self.backend.gpu_ids(group, index, int(wanted[index].resources.get("GPU", 0)))
            nodes.append(
                HeldNode(key=f"{group}-n{index}", node_id=node_id, host=where.host, address=where.address, gpu_ids=gpus)
            )
        return Held(group=group, cluster_id=capacity.cluster_id, nodes=tuple(nodes))

    async def _prepare(self, node: HeldNode) -> None:
        agent = self.backend.agent(node.node_id)
        facts = await self._reach(node, agent.facts)
        isolation = self._isolation(node, facts.isolation, facts.isolation_why)
        self._replace(replace(node, isolation=isolation, address=facts.address or node.address))
        await self._send_code(node, agent)
        order = PrepareOrder(
            code_key=self.attempt.code.key,
            storage_key=self.attempt.storage_key,
            trusted=self.attempt.trusted,
            isolation=isolation,
            workdir=self.attempt.specification.workdir,
            artifacts=self.attempt.specification.artifacts,
        )
        await self._reach(node, lambda: agent.prepare(node.key, order))

    def _isolation(self, node: HeldNode, capable: str, why: str) -> str:
        wanted = self.rules.isolation
        if wanted == "none" and self.attempt.trusted:
            return "none"
        if capable == "bubblewrap":
            return "bubblewrap"
        raise Ended(Cause.PREPARATION_FAILED, node=node.host, why=f"commands can't be isolated there: {why}")

    async def _send_code(self, node: HeldNode, agent: AgentClient) -> None:
        """The archive, from where the node's copy ends; -1 says that it has the whole tree."""
        code = self.attempt.code
        offset = await self._reach(node, lambda: agent.code_offset(code.key))
        while offset >= 0:
            chunk, last = await asyncio.to_thread(code.read, offset, CHUNK_BYTES)
            start = offset
            await self._reach(node, lambda: agent.put_code(code.key, start, chunk, last))  # noqa: B023 - awaited here
            offset = -1 if last else offset + len(chunk)

    # --- PROVISIONED, NETWORK_SETUP ---

    async def _connect(self) -> Signal:
        """Every node has given its address with its facts; one node needs no network document."""
        for node in self.held.nodes:
            if not node.address:
                raise Ended(Cause.PREPARATION_FAILED, node=node.host, why="it gave no address")
        return Signal.NODES_REPORTED

    async def _start(self) -> Signal:
        await _together(self._start_on(node) for node in self.held.nodes)
        status = await self._status(self.held.nodes[0])
        self.running_at = status.started_at or self.now()
        return Signal.COMMANDS_STARTED

    async def _start_on(self, node: HeldNode) -> None:
        group, machine = self.attempt.specification.groups[0], self.attempt.machines[0]
        order = StartOrder(
            command=group.command,
            env=self.attempt.env | {"ATTEMPT": str(self.progress.tries)},
            gpu_ids=node.gpu_ids,
            isolation=node.isolation,
            memory_bytes=machine.memory_bytes,
            disk_bytes=machine.disk_bytes,
            log_max_bytes=self.rules.log_max_bytes,
            grace_s=self.rules.grace_s,
            lease_s=LEASE_S,
        )
        await self._reach(node, lambda: self.backend.agent(node.node_id).start(node.key, order))

    # --- RUNNING ---

    async def _watch(self) -> Signal:
        """Follow every node and its log; only an end comes out of it."""
        logs = [asyncio.ensure_future(self._follow_log(node)) for node in self.held.nodes]
        try:
            await _together(self._watch_node(node) for node in self.held.nodes)
        finally:
            for task in logs:
                task.cancel()
            await asyncio.gather(*logs, return_exceptions=True)
        raise AssertionError("watching ends by raising Ended")

    async def _watch_node(self, node: HeldNode) -> NoReturn:
        agent, seen = self.backend.agent(node.node_id), 0
        while True:
            status = await self._status(node)
            if status.phase == "ended" and status.exit:
                if status.exit.detail.get("stopped"):  # not by us: we stop nothing before NETWORK_TEARDOWN
                    raise Ended(Cause.NODE_LOST, node=node.host, why="it was cut off and ended what it ran")
                raise Ended(status.exit.cause, node=node.host, **status.exit.told())
            if status.phase == "lost":
                raise Ended(Cause.GUARDIAN_LOST, node=node.host)
            if status.phase == "absent":
                raise Ended(Cause.NODE_LOST, node=node.host, why="it does not know the attempt any more")
            reservation = await self._answered(lambda: self.backend.reservation(self.held.group))
            if reservation.state in {"lost", "absent"}:
                capacity = await self._answered(self.backend.capacity)
                if capacity.cluster_id != self.held.cluster_id:
                    raise Ended(Cause.HEAD_LOST, why="another one took its place")
                raise Ended(Cause.RESERVATION_LOST, why=reservation.why or reservation.state)
            try:
                seen = await agent.watch(seen, 2.0)
            except BackendError:
                await asyncio.sleep(POLL_S)  # _status decides how long that may last

    async def _follow_log(self, node: HeldNode) -> None:
        pause_s = 0.05
        while True:
            try:
                moved = await self._pull_log(node)
            except (BackendError, NodeError):
                moved = 0  # the watch decides what a silent node means
            pause_s = 0.05 if moved else min(2 * pause_s, 0.5)
            if moved < CHUNK_BYTES:
                await asyncio.sleep(pause_s)

    async def _pull_log(self, node: HeldNode) -> int:
        """Move the next piece of the node's log here; how many bytes moved."""
        log = self.keep.log(self.attempt.experiment_id, self.progress.attempt, self.rules.log_max_bytes)
        offset = await asyncio.to_thread(lambda: log.size)
        chunk = await self.backend.agent(node.node_id).read_log(node.key, offset, CHUNK_BYTES)
        if chunk.data:
            await asyncio.to_thread(log.put, chunk.offset, chunk.data)
        return len(chunk.data)

    # --- NETWORK_TEARDOWN ---

    async def _tear_down(self) -> None:
        """Prove every tree empty, keep what it made, then give the group back."""
        for node in self.held.nodes:
            try:
                await self._clear(node)
            except Ended as end:
                await self.journal.quarantine(node.host, str(end.detail["why"]))
                await self._end_in_teardown(end)
                return
        await self._released(self._group)
        wished = self._interruption.done() and self._interruption.result().cause is Cause.WISHED
        if wished and self.progress.intended is State.PENDING:
            await self._end_in_teardown(self._interruption.result())
        if self.progress.intended is State.PENDING:
            self.held = Held()  # an end keeps the record of where it ran
        await self._record(Signal.RELEASED)

    async def _end_in_teardown(self, end: Ended) -> None:
        await self._record(Signal.ENDED, end.cause, detail=end.detail)

    async def _clear(self, node: HeldNode) -> None:
        """Have a node proven clean; that something could not be kept is on record before the node forgets it.

        Raises:
            Ended: it is not proven clean.
        """
        try:
            await self._prove(node, keeping=True)
        except Ended as end:
            if end.cause is not Cause.ARTIFACTS_NOT_STORED:
                raise
            if self.progress.intended is State.STOPPED:
                await self._end_in_teardown(end)
            await self._prove(node, keeping=False)

    async def _prove(self, node: HeldNode, *, keeping: bool) -> None:
        """Stop what runs there, store log and artifacts, and have the node prove that nothing is left.

        A node that the cluster has lost is waited for until its agent's fence, its guardians' lease and the grace have
        passed: then nothing of the attempt can run any more. That *we* hear nothing proves nothing.
        """
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + TEARDOWN_S
        fence_s = self.rules.fence_s + LEASE_S + self.rules.grace_s + 1
        gone_since: float | None = None
        left: list[str] = []
        while loop.time() < give_up_at:
            try:
                agent = await self._agent_for(node)
                if agent is not None:
                    gone_since = None
                    left = await self._clear_with(agent, node, keeping=keeping)
                    if not left:
                        return
                elif gone_since is None:
                    gone_since = loop.time()
            except BackendError as error:
                left, gone_since = [f"it does not answer ({error})"], None
            fenced = gone_since is not None and loop.time() - gone_since > fence_s
            if fenced and keeping and self.progress.intended is State.STOPPED:
                raise Ended(Cause.ARTIFACTS_NOT_STORED, why=f"{node.host} left the cluster with them")
            if fenced:
                return
            await asyncio.sleep(POLL_S)
        raise Ended(Cause.NOT_PROVEN_CLEAN, node=node.host, why=", ".join(left) or "it left the cluster")

    async def _clear_with(self, agent: AgentClient, node: HeldNode, *, keeping: bool) -> list[str]:
        status = (await agent.status([node.key]))[node.key]
        if status.phase == "running":
            await agent.stop(node.key, self.rules.grace_s)
            give_up_at = asyncio.get_running_loop().time() + self.rules.grace_s + STOP_S
            seen = 0
            while status.phase == "running":
                if asyncio.get_running_loop().time() > give_up_at:
                    return ["its command, which does not end"]
                seen = await agent.watch(seen, 1.0)
                status = (await agent.status([node.key]))[node.key]
        if keeping and status.phase in {"ended", "lost"}:
            await self._keep_what_it_left(agent, node)
        clean = await agent.clean(node.key)
        return [] if clean.empty else list(clean.left)

    async def _keep_what_it_left(self, agent: AgentClient, node: HeldNode) -> None:
        try:
            await self._pull_rest(agent, node)
            await self._store_artifacts(agent, node)
        except (OSError, NodeError) as error:
            raise Ended(Cause.ARTIFACTS_NOT_STORED, why=str(error)) from error

    async def _pull_rest(self, agent: AgentClient, node: HeldNode) -> None:
        log = self.keep.log(self.attempt.experiment_id, self.progress.attempt, self.rules.log_max_bytes)
        while True:
            chunk = await agent.read_log(node.key, log.size, CHUNK_BYTES)
            if not chunk.data:
                return
            await asyncio.to_thread(log.put, chunk.offset, chunk.data)

    async def _store_artifacts(self, agent: AgentClient, node: HeldNode) -> None:
        store = self.keep.artifacts(self.attempt.experiment_id, self.progress.attempt)
        for artifact in await agent.artifacts(node.key):
            with store.receive(artifact.path, artifact.size) as file:
                while file.offset < artifact.size:
                    data = await agent.read_artifact(node.key, artifact.path, file.offset, CHUNK_BYTES)
                    if not data:
                        break
                    await asyncio.to_thread(file.write, data)

    async def _agent_for(self, node: HeldNode) -> AgentClient | None:
        """The agent that now serves the host: the node's own, or its successor's after a restart of Ray there.

        None where the cluster says that it has no such host.
        """
        alive = (await self.backend.capacity()).alive
        found = next((each for each in alive if each.node_id == node.node_id), None)
        found = found or next((each for each in alive if each.host == node.host), None)
        return self.backend.agent(found.node_id) if found else None

    async def _released(self, group: str) -> None:
        """Give the group back; one that can't be reached now is swept away later."""
        give_up_at = asyncio.get_running_loop().time() + TEARDOWN_S
        while asyncio.get_running_loop().time() < give_up_at:
            with contextlib.suppress(BackendError):
                await self.backend.release(group)
                return
            await asyncio.sleep(POLL_S)

    # --- asking nodes ---

    def _replace(self, node: HeldNode) -> None:
        self.held = replace(self.held, nodes=tuple(node if each.key == node.key else each for each in self.held.nodes))

    async def _status(self, node: HeldNode) -> NodeStatus:
        """The node's word on the attempt, asked of its successor too; Ended when nobody answers for NODE_LOST_S."""

        async def ask() -> NodeStatus:
            agent = await self._agent_for(node)
            if agent is None:
                raise NodeUnavailable(f"{node.host} is not in the cluster")
            return (await agent.status([node.key]))[node.key]

        return await self._reach(node, ask)

    async def _reach(self, node: HeldNode, call: Callable[[], Awaitable[T]]) -> T:
        """The call's answer; an agent that restarts gets NODE_LOST_S to come back."""
        loop = asyncio.get_running_loop()
        silent_since: float | None = None
        while True:
            try:
                return await call()
            except NodeError as error:
                raise Ended(error.cause, node=node.host, why=error.why) from error
            except BackendError as error:
                silent_since = loop.time() if silent_since is None else silent_since
                if loop.time() - silent_since > NODE_LOST_S:
                    raise Ended(Cause.NODE_LOST, node=node.host, why=str(error)) from error
            await asyncio.sleep(POLL_S)

    async def _answered(self, call: Callable[[], Awaitable[T]]) -> T:
        """The cluster's answer; Ended when its head does not answer for NODE_LOST_S."""
        loop = asyncio.get_running_loop()
        silent_since: float | None = None
        while True:
            try:
                return await call()
            except BackendError as error:
                silent_since = loop.time() if silent_since is None else silent_since
                if loop.time() - silent_since > NODE_LOST_S:
                    raise Ended(Cause.HEAD_LOST, why=str(error)) from error
            await asyncio.sleep(POLL_S)


async def _together(calls: Iterable[Awaitable[Any]]) -> None:
    """All of them; the first failure cancels the others and is raised."""
    tasks = [asyncio.ensure_future(call) for call in calls]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
