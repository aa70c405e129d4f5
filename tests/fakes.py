"""A cluster, its nodes and a journal that behave, in time that passes only when everybody waits."""

import asyncio
import itertools
import re
import selectors
import uuid
from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from launcher.backend import (
    BackendError,
    Bundle,
    Capacity,
    HeadLost,
    NodeCapacity,
    NodeUnavailable,
    Reservation,
    Strategy,
)
from launcher.experiment import Held
from launcher.node_types import (
    Artifact,
    Clean,
    Daemon,
    Document,
    Exit,
    Extracted,
    LogChunk,
    NodeError,
    NodeFacts,
    NodeStatus,
    Peer,
    PrepareOrder,
    StartOrder,
    Unreached,
)
from launcher.state import Cause, Progress, Signal, State, advance

T = TypeVar("T")


# --- time ---


class _Selector(selectors.DefaultSelector):
    """Lets the loop's clock jump to the next timer."""

    loop: "VirtualLoop"

    def select(self, timeout: float | None = None) -> list[Any]:
        ready = super().select(0)
        if not ready and timeout is None:
            raise RuntimeError("everybody waits, and nothing will ever happen")
        if not ready and timeout:
            self.loop.now += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps, and whose threads are done at once."""

    def __init__(self) -> None:
        self.now = 0.0
        self.skipped = 0.0
        selector = _Selector()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        return self.now

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> Any:
        future = self.create_future()
        try:
            outcome, give = func(*args), future.set_result
        except Exception as error:
            outcome, give = error, future.set_exception
        self.call_soon(lambda: future.done() or give(outcome))
        return future


def play(main: Coroutine[Any, Any, T]) -> T:
    """The outcome of a coroutine in virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)


EPOCH = 1_800_000_000.0


def clock() -> float:
    """Seconds since the epoch, in virtual time."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    return EPOCH + loop.time() + loop.skipped


def skip(seconds: float) -> None:
    """The clock on the wall goes forward, and nobody noticed: cheaper than living through it."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    loop.skipped += seconds


# --- nodes ---


@dataclass(frozen=True)
class Command:
    """What a command does: it ends by itself after `runs_s`, or runs until it is told to end."""

    runs_s: float | None = None
    exit_code: int = 0
    cause: Cause | None = None
    """What its guardian says; by default what the exit code means."""
    log: tuple[tuple[float, bytes], ...] = ()
    """When it prints what."""
    artifacts: Mapping[str, bytes] = field(default_factory=dict)
    heeds_stop: bool = True
    ends_at_all: bool = True


@dataclass
class Run:
    """One attempt on a host's disk."""

    order: PrepareOrder
    start: StartOrder | None = None
    started_at: float | None = None
    exit: Exit | None = None
    guardian: bool = True
    printed: int = 0
    """How much of its log was printed when it ended early."""
    ports: dict[str, int] = field(default_factory=dict)
    told: Document | None = None
    """The network document."""
    returned: dict[str, bytes] = field(default_factory=dict)
    """The artifacts of an earlier attempt that were put back."""
    daemons: tuple[Daemon, ...] = ()
    mpirun_gone: Mapping[str, float] = field(default_factory=dict)


@dataclass
class Host:
    """A machine: its disk outlives its agents."""

    name: str
    command: Command = field(default_factory=Command)
    isolation: Any = "bubblewrap"
    cpus: float = 4
    gpus: float = 0
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    """Of its disk."""
    runs: dict[str, Run] = field(default_factory=dict)
    ended: dict[str, Run] = field(default_factory=dict)
    code: dict[str, bytes] = field(default_factory=dict)
    whole: set[str] = field(default_factory=set)
    skew_s: float = 0
    """How far its clock goes before the others'."""
    slow: dict[str, float] = field(default_factory=dict)
    """What its agent's methods take, in seconds."""
    walled: str = ""
    """Why no peer reaches it, if none does."""
    leftovers: list[tuple[str, ...]] = field(default_factory=list)
    """What the next proofs will still find."""
    mark: int = 1
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def total(self) -> dict[str, float]:
        return {"CPU": self.cpus, **({"GPU": self.gpus} if self.gpus else {})}

    def bump(self) -> None:
        self.mark += 1
        self.changed.set()
        self.changed = asyncio.Event()

    def end(
        self, key: str, cause: Cause, *, code: int | None = None, stopped: bool = False, put_down: bool = False
    ) -> None:
        """A command's record is on disk."""
        run = self.runs.get(key)
        if run is None or run.exit or run.started_at is None:
            return
        run.printed = len(self.printed(run))
        run.exit = Exit(
            cause,
            code,
            "SIGTERM" if stopped else None,
            clock() + self.skew_s,
            {"stopped": stopped, "put_down": put_down},
        )
        self.bump()

    def printed(self, run: Run) -> bytes:
        if run.started_at is None:
            return b""
        data = b"".join(text for at, text in self.command.log if clock() >= run.started_at + at)
        return data[: run.printed] if run.exit else data


@dataclass
class FakeAgent:
    """The agent of a node, seen from afar."""

    backend: "FakeBackend"
    node_id: str

    async def _reach(self, method: str) -> Host:
        self.backend.calls.append((method, self.node_id))
        await asyncio.sleep(0.001)
        self.backend.fail(method)
        host = await self._answering()
        if method in host.slow:
            await asyncio.sleep(host.slow[method])
        return host

    async def _answering(self) -> Host:
        if self.node_id in self.backend.hanging:
            await asyncio.sleep(30)
            raise NodeUnavailable("no answer within 30 s")
        if self.node_id not in self.backend.nodes or self.node_id in self.backend.silent:
            raise NodeUnavailable("its agent does not answer")
        return self.backend.nodes[self.node_id]

    async def facts(self) -> NodeFacts:
        host = await self._reach("facts")
        return NodeFacts(
            host.name, f"10.0.0.{len(host.name)}", "i", host.isolation, "no bubblewrap", 1, 1 << 40, 1 << 35, host.id
        )

    async def code_offset(self, code_key: str) -> int:
        host = await self._reach("code_offset")
        return -1 if code_key in host.whole else len(host.code.get(code_key, b""))

    async def put_code(self, code_key: str, offset: int, chunk: bytes, last: bool) -> Extracted | None:
        host = await self._reach("put_code")
        host.code[code_key] = host.code.get(code_key, b"")[:offset] + chunk
        if not last:
            return None
        host.whole.add(code_key)
        return Extracted(1, len(chunk), submodules=False, lfs=False)

    async def prepare(self, key: str, order: PrepareOrder) -> None:
        host = await self._reach("prepare")
        assert order.code_key in host.whole
        host.runs.setdefault(key, Run(order))

    async def put_artifact(self, key: str, path: str, offset: int, data: bytes, last: bool) -> None:
        run = (await self._reach("put_artifact")).runs[key]
        assert run.start is None
        if offset > len(run.returned.get(path, b"")):
            raise NodeError(Cause.PREPARATION_FAILED, "a piece is missing")
        run.returned[path] = run.returned.get(path, b"")[:offset] + data

    async def reserve_ports(self, key: str, names: Sequence[str]) -> dict[str, int]:
        run = (await self._reach("reserve_ports")).runs[key]
        for name in names:
            if name not in run.ports:
                run.ports[name] = next(self.backend.free_ports)
        return {name: run.ports[name] for name in names}

    async def connect(self, key: str, document: Document, peers: Sequence[Peer]) -> tuple[Unreached, ...]:
        (await self._reach("connect")).runs[key].told = document
        why = {peer: self.backend.why_unreached(peer.port) for peer in peers}
        if any(why.values()):
            await asyncio.sleep(10)
        return tuple(Unreached(peer.rank, peer.address, peer.port, said) for peer, said in why.items() if said)

    async def start(self, key: str, order: StartOrder) -> None:
        host = await self._reach("start")
        run, command = host.runs[key], host.command
        if run.start is not None:
            return
        document = order.document or run.told
        assert document is not None
        run.start, run.started_at = replace(order, document=document), clock()
        host.bump()
        if command.runs_s is not None:
            said = command.cause or (Cause.COMMAND_EXITED if command.exit_code else Cause.SUCCEEDED)
            asyncio.get_running_loop().call_later(command.runs_s, lambda: host.end(key, said, code=command.exit_code))

    async def status(self, keys: Sequence[str]) -> dict[str, NodeStatus]:
        host = await self._reach("status")
        return {key: replace(self._status(host.runs.get(key)), clock=clock() + host.skew_s) for key in keys}

    def _status(self, run: Run | None) -> NodeStatus:
        if run is None:
            return NodeStatus("absent")
        if run.started_at is None:
            return NodeStatus("prepared")
        return NodeStatus(
            "ended" if run.exit else "running" if run.guardian else "lost",
            exit=run.exit,
            started_at=run.started_at,
            daemons=run.daemons,
            mpirun_gone=run.mpirun_gone,
        )

    async def watch(self, after: int, timeout_s: float) -> int:
        host = await self._reach("watch")
        if host.mark <= after:
            changed = asyncio.ensure_future(host.changed.wait())
            await asyncio.wait({changed}, timeout=timeout_s)
            changed.cancel()
        return (await self._answering()).mark

    async def read_log(self, key: str, offset: int, limit: int) -> LogChunk:
        host = await self._reach("read_log")
        run = host.runs.get(key)
        data = host.printed(run) if run else b""
        piece = data[offset : offset + min(limit, 64)]
        return LogChunk(offset, piece, offset + len(piece), len(data), bool(run and run.exit))

    async def stop(self, key: str, grace_s: float) -> None:
        host = await self._reach("stop")
        if host.command.ends_at_all and key in host.runs:
            after_s = 0.01 if host.command.heeds_stop else grace_s
            asyncio.get_running_loop().call_later(after_s, lambda: host.end(key, Cause.COMMAND_KILLED, stopped=True))

    async def artifacts(self, key: str) -> list[Artifact]:
        host = await self._reach("artifacts")
        assert key in host.runs
        return [Artifact(path, len(data)) for path, data in host.command.artifacts.items()]

    async def read_artifact(self, key: str, path: str, offset: int, limit: int) -> bytes:
        host = await self._reach("read_artifact")
        return host.command.artifacts[path][offset : offset + limit]

    async def clean(self, key: str) -> Clean:
        host = await self._reach("clean")
        run = host.runs.get(key)
        if run and self._status(run).phase == "running":
            return Clean(empty=False, left=("its command, which was not stopped",))
        if host.leftovers:
            return Clean(empty=False, left=host.leftovers.pop(0))
        if run:
            host.ended[key] = host.runs.pop(key)
        return Clean(empty=True)

    async def inventory(self) -> list[str]:
        return sorted((await self._reach("inventory")).runs)


# --- the cluster ---


@dataclass
class FakeBackend:
    """A cluster that does what its fields say, which a test may change at any time."""

    nodes: dict[str, Host]
    cluster_id: str = "c1"
    polls_until_placed: float = 0
    """`inf`: it never fits."""
    verdict: Any = None
    """What every reservation is, whatever else."""
    head_down: bool = False
    silent: set[str] = field(default_factory=set)
    hanging: set[str] = field(default_factory=set)
    """Nodes that do not even refuse."""
    faults: dict[str, list[Exception]] = field(default_factory=lambda: defaultdict(list))
    """What the next calls of a method raise."""
    groups: dict[str, tuple[Bundle, ...]] = field(default_factory=dict)
    free_ports: Iterator[int] = field(default_factory=lambda: itertools.count(20000))
    polls: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    calls: list[tuple[str, str]] = field(default_factory=list)
    on_release: Callable[[str], None] | None = None

    def fail(self, method: str) -> None:
        if self.faults[method]:
            raise self.faults[method].pop(0)

    def why_unreached(self, port: int) -> str:
        """Why a peer can't connect to a reserved port: empty when the agent of the host that has it listens there."""
        for node_id, host in self.nodes.items():
            for run in host.runs.values():
                if port in run.ports.values():
                    listens = run.start is None and node_id not in self.silent
                    return host.walled or ("" if listens else "refused")
        return "refused"

    async def _reach(self, method: str, name: str = "") -> None:
        self.calls.append((method, name))
        await asyncio.sleep(0.001)
        self.fail(method)
        if self.head_down:
            raise HeadLost("the head does not answer")

    async def connect(self, timeout_s: float = 60) -> None:
        await self._reach("connect")

    async def close(self) -> None:
        pass

    async def capacity(self) -> Capacity:
        await self._reach("capacity")
        return Capacity(
            tuple(
                NodeCapacity(node_id, host.name, f"10.0.0.{index}", alive=True, total=host.total)
                for index, (node_id, host) in enumerate(self.nodes.items())
            ),
            self.cluster_id,
        )

    async def reserve(self, name: str, bundles: tuple[Bundle, ...], strategy: Strategy) -> None:
        await self._reach("reserve", name)
        self.groups.setdefault(name, bundles)

    async def reservation(self, name: str) -> Reservation:
        await self._reach("reservation", name)
        if name not in self.groups:
            return Reservation("absent", why="Ray knows no such group")
        if self.verdict:
            return Reservation(self.verdict, why="so it is")
        self.polls[name] += 1
        places = [self._place(bundle, index) for index, bundle in enumerate(self.groups[name])]
        if self.polls[name] <= self.polls_until_placed or None in places:
            return Reservation("waiting")
        return Reservation("placed", tuple(place for place in places if place))

    def _place(self, bundle: Bundle, index: int) -> str | None:
        """The bundles one after the other on the nodes, which are asked for as often as there are any."""
        match = re.fullmatch(r"!in\((.*)\)", bundle.labels.get("ray.io/node-id", "!in()"))
        assert match
        there = [node_id for node_id in self.nodes if node_id not in match[1].split(",")]
        return there[index % len(there)] if there else None

    async def reservations(self) -> list[str]:
        await self._reach("reservations")
        return sorted(self.groups)

    async def gpu_ids(self, name: str, bundle_index: int, count: int) -> tuple[str, ...]:
        await self._reach("gpu_ids", name)
        return tuple(str(index) for index in range(count))

    async def release(self, name: str) -> None:
        await self._reach("release", name)
        if self.on_release:
            self.on_release(name)
        self.groups.pop(name, None)

    def agent(self, node_id: str) -> FakeAgent:
        return FakeAgent(self, node_id)

    def restart_ray(self, old: str, new: str, cluster_id: str | None = None) -> None:
        """The host comes back as another node, perhaps of another cluster, with all that is on its disk."""
        self.nodes[new] = self.nodes.pop(old)
        if cluster_id:
            self.cluster_id = cluster_id
            self.groups.clear()


def unavailable(times: int) -> list[Exception]:
    """So many calls that are not answered."""
    return [BackendError("not now") for _ in range(times)]


# --- the journal ---


class Moved(Exception):
    """Somebody else has moved the row."""


@dataclass
class FakeJournal:
    """One row, moved by compare-and-swap; `after` is called with each new state."""

    progress: Progress
    held: Held = field(default_factory=Held)
    states: list[State] = field(default_factory=list)
    ends: list[tuple[Cause, dict[str, Any]]] = field(default_factory=list)
    quarantined: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    after: Callable[[State], None] = lambda state: None

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
        await asyncio.sleep(0.001)
        if expected != self.progress:
            raise Moved(f"it is {self.progress.state}")
        self.progress = advance(expected, signal, cause)
        self.held = self.held if held is None else held
        self.states.append(self.progress.state)
        if cause:
            self.ends.append((cause, dict(detail or {})))
        self.after(self.progress.state)
        return self.progress

    async def hold(self, experiment_id: int, expected: Progress, held: Held) -> None:
        await asyncio.sleep(0.001)
        if expected != self.progress:
            raise Moved(f"it is {self.progress.state}")
        self.held = held

    async def quarantine(self, host: str, why: str) -> None:
        self.quarantined[host] = why

    async def remark(self, experiment_id: int, notes: Sequence[str]) -> None:
        self.notes += notes

    def moved_by_another(self) -> None:
        self.progress = replace(self.progress, attempt=self.progress.attempt + 1)


def causes(journal: FakeJournal) -> list[Cause]:
    """Why it ended, in the order told."""
    return [cause for cause, _ in journal.ends]


def names(calls: Iterable[tuple[str, str]], *wanted: str) -> list[str]:
    """Which of these were called, in order."""
    return [name for name, _ in calls if name in wanted]
