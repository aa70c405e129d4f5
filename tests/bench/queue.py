"""One admission decision while many wait: an experiment ends, and a pass gives its machine to whoever is next."""

import asyncio
import logging
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import structlog
from sqlalchemy import select

from ci_bot.records import Claim, ClaimKind, Experiment
from ci_bot.store import experiments, lease
from ci_bot.store.engine import WORKER_LEASE, begin, migrate, open_engine, reading
from ci_bot.store.experiments import Draft
from ci_bot.store.tables import experiment, transition
from ci_bot.worker.books import Books
from ci_bot.worker.launch import Launch
from launcher.backend import Capacity, NodeCapacity
from launcher.controller import Drive, Rules
from launcher.experiment import Held, HeldNode, NodeGroup, Role, Specification
from launcher.keep import Keep
from launcher.machines import Machine, Machines
from launcher.placement import Limits
from launcher.state import Progress, State
from tests.bench.figures import Figure, Reach, Row
from tests.bench.ground import rounds

ROUNDS = rounds(30)
WAITING = (100, 1_000, 10_000)
NODES = 1_000
TYPES = tuple(f"type-{number}" for number in range(8))
REPOSITORIES = 50
SHA = "a" * 40
CLAIM = Claim(ClaimKind.BRANCH, "refs/heads/main", lasting=True)
FLAT = 1.5
PENDING = Progress(state=State.PENDING)
RUNNING = Progress(state=State.RUNNING, attempt=1)


@dataclass
class Cluster:
    """Nodes that are only counted: what is started on them neither goes on nor ends."""

    nodes: list[NodeCapacity]

    async def connect(self, timeout_s: float = 60) -> None:
        """It is there."""

    async def capacity(self) -> Capacity:
        return Capacity(tuple(self.nodes), "c1")

    async def reservations(self) -> list[str]:
        return []


async def _never(_: Drive) -> Progress:
    await asyncio.Event().wait()
    raise AssertionError


class NoSource:
    """Every archive is here already."""

    async def fetch(self, experiment: Experiment, destination: Path) -> tuple[str, ...]:
        return ()

    def repository_url(self, experiment: Experiment) -> str:
        return "https://example.invalid/octo/repository"


def node(number: int, machine_type: str) -> NodeCapacity:
    labels, total = {"type": machine_type}, {"CPU": 8.0, "GPU": 1.0, "memory": 64.0 * 2**30}
    return NodeCapacity(f"n{number:05}", f"host-{number}", f"10.0.{number // 250}.{number % 250}", True, total, labels)


def specification(name: str, machine_type: str, count: int = 1) -> Specification:
    group = NodeGroup(role=Role.WORKER, command="python train.py", machine_type=machine_type, count=count)
    topology = "single" if count == 1 else "multi-torch"
    return Specification(name=name, topology=topology, groups=(group,), env={"EPOCHS": "3"})


@dataclass
class House:
    """A launch loop over a database with so many waiting, and a cluster that is full: gangs, and one for each round."""

    root: Path
    waiting: int
    passes_s: list[float] = field(default_factory=list)
    admitted: int = 0
    running: list[int] = field(default_factory=list)
    """Those that end, one in each round."""

    def __post_init__(self) -> None:
        self.engine = open_engine(f"sqlite:///{self.root}/descent.db")
        migrate(self.engine)
        self.nodes = [node(number, TYPES[number % len(TYPES)]) for number in range(NODES)]
        with begin(self.engine) as connection:
            self.running = [self._run(connection, number, [each]) for number, each in enumerate(self.nodes[:ROUNDS])]
            for machine_type in TYPES:
                mine = [each for each in self.nodes[ROUNDS:] if each.labels["type"] == machine_type]
                self._run(connection, ROUNDS + TYPES.index(machine_type), mine)
            self._queue(connection)
        books = Books(self.engine, "bench")
        epoch = lease.acquire(self.engine, WORKER_LEASE, "bench", time.time(), 3600)
        assert epoch is not None
        books.epoch = epoch
        keep = Keep(self.root / "keep")
        for repository_id in range(1, REPOSITORIES + 1):
            archive = keep.code(f"{repository_id}-{SHA}").path
            archive.parent.mkdir(parents=True, exist_ok=True)
            archive.write_bytes(b"")
        self.cluster = Cluster(self.nodes)
        table = {name: Machine(name, gpus=1, cpus=8, labels={"type": name}) for name in TYPES}
        self.launch = Launch(
            books=books,
            backend=self.cluster,
            keep=keep,
            source=NoSource(),
            machines=Machines(table),
            rules=Rules(grace_s=1),
            limits=Limits(),
            queue_s=7 * 86400,
            require_container=False,
            changed=lambda: None,
        )
        self.launch._swept_at = float("inf")  # the sweep runs beside the passes, every 30 s

    def _run(self, connection: Any, number: int, nodes: list[NodeCapacity]) -> int:
        """An experiment has these nodes, all of one type."""
        wanted = specification(f"runs-{number}", nodes[0].labels["type"], len(nodes))
        running = self._create(connection, wanted.name, wanted, -1 - number)
        held = tuple(
            HeldNode(f"exp-{running}-a1-n{rank}", each.node_id, each.host, each.address, ("0",))
            for rank, each in enumerate(nodes)
        )
        group = Held(f"exp-{running}-a1", "c1", held, connected=True)
        assert experiments.record(connection, running, PENDING, RUNNING, at=time.time(), held=group)
        return running

    def _queue(self, connection: Any) -> None:
        """All that wait: one is created as ever, the others are its copies."""
        one = self._create(connection, "waits-0", specification("waits-0", TYPES[0]), 0)
        row = dict(connection.execute(select(experiment).where(experiment.c.id == one)).mappings().one())
        steps = [dict(each) for each in connection.execute(select(transition).filter_by(experiment_id=one)).mappings()]
        copies, histories = [], []
        for number in range(1, self.waiting):
            name, at = f"waits-{number}", row["created_at"] + number * 0.5
            wanted = specification(name, TYPES[number % len(TYPES)]).model_dump_json()
            changes = {"id": one + number, "name": name, "specification": wanted, "queued_at": at}
            copies.append(row | changes | {"repository_id": number % REPOSITORIES + 1})
            histories += [step | {"experiment_id": one + number} for step in steps]
        connection.execute(experiment.insert(), copies)
        connection.execute(transition.insert(), histories)

    def _create(self, connection: Any, name: str, wanted: Specification, number: int) -> int:
        draft = Draft(
            repository_id=number % REPOSITORIES + 1,
            installation_id=1,
            full_name="octo/repository",
            head_sha=SHA,
            ref="refs/heads/main",
            name=name,
            specification=wanted,
            configuration_path="config.yaml",
            configuration_source="version: 1\n" * 20,
        )
        at = time.time() - self.waiting + number * 0.5
        found, _ = experiments.create(connection, draft, CLAIM, at)
        experiments.record(connection, found, Progress(), PENDING, at=at)
        return found

    async def settle(self) -> float:
        """Passes until what the first ones have to do is done; the seconds of the first."""
        began = time.perf_counter()
        await self.launch.step()
        first_s = time.perf_counter() - began
        for _ in range(3):
            await self.launch.step()
        return first_s

    async def decide(self) -> None:
        """An experiment ends, and one pass gives its machine away."""
        with begin(self.engine) as connection:
            ended = replace(RUNNING, state=State.STOPPED)
            assert experiments.record(connection, self.running[self.admitted], RUNNING, ended, at=time.time())
        began = time.perf_counter()
        await self.launch.step()
        self.passes_s.append(time.perf_counter() - began)
        self.admitted += 1
        with reading(self.engine) as connection:
            started = experiments.listed(connection, states=[State.PROVISIONING], limit=10 * ROUNDS)
        names = sorted(int(each.name.removeprefix("waits-")) for each in started)
        assert names == list(range(self.admitted)), f"not those who were next: {names}"

    async def close(self) -> None:
        await self.launch.leave()
        self.engine.dispose()


async def _passes(root: Path) -> tuple[dict[int, list[float]], dict[int, float]]:
    houses = []
    for waiting in WAITING:
        directory = root / str(waiting)
        directory.mkdir()
        houses.append(House(directory, waiting))
    try:
        first_s = {house.waiting: await house.settle() for house in houses}
        for _ in range(ROUNDS):
            for house in houses:
                await house.decide()
    finally:
        for house in houses:
            await house.close()
    return {house.waiting: house.passes_s for house in houses}, first_s


def measure() -> Iterator[Row]:
    """The row."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    root = Path(tempfile.mkdtemp(prefix="descent-bench-"))
    try:
        with patch.object(Drive, "run", _never):  # drives go on beside the passes; here they would only disturb
            passes_s, first_s = asyncio.run(_passes(root))
    finally:
        shutil.rmtree(root)
        structlog.reset_defaults()
    figures = tuple(
        Figure(f"{waiting:,} waiting", "ms", tuple(1000 * each for each in passes_s[waiting])) for waiting in WAITING
    )
    firsts = ", ".join(f"{waiting:,}: {first_s[waiting]:.2f} s" for waiting in WAITING)
    yield Row(
        "queue",
        figures,
        reaches=(Reach("10 000 over 100", figures[-1].median / figures[0].median, FLAT),),
        notes=(
            "One whole pass of the worker's launch loop on a SQLite file, by its own clock: an experiment has ended, "
            "the next one of its machine type is admitted (checked each time), and twice a second some of the others "
            "are told why they wait. "
            f"{NODES:,} nodes of {len(TYPES)} machine types, all held by {len(TYPES)} gangs and {ROUNDS} single "
            f"experiments; those that wait are of {REPOSITORIES} repositories.",
            f"The first pass after a worker's start, which reads all that wait: {firsts}.",
        ),
    )
