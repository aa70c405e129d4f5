"""A cell on the ground: pushed, struck in its state, and everything that must hold once it has ended."""

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import select

from ci_bot.records import Experiment, Transition
from ci_bot.store.tables import delivery
from launcher.asking import NODE_LOST_S
from launcher.experiment import HeldNode
from launcher.state import TERMINAL, Cause, State
from tests.cluster.cells import Cell, Expected, Fault, expected, place
from tests.cluster.ground import Ground
from tests.cluster.holding import PAUSE_S, Book, held_in
from tests.cluster.hosts import Host
from tests.cluster.topologies import ROWS, WAITS_S, Row
from tests.cluster.victims import Victim, names, victims
from tests.e2e.load import CONCLUSIONS, TRACE
from tests.e2e.stack import Repo, wait_for

RUNS_S = 6.0
TIMEOUT_S = 3
STATE_S = 120.0
END_S = 300.0
TRIES = 10
"""How often it is pushed until it is struck in the state that was drawn."""
LASTS_S = {State.PROVISIONING: 0.5, State.RUNNING: 1.5}
"""What passes in a state at most before it is struck there; the others are over by then."""
MENDED_S = (1.0, 40.0)
NOTICED_S = NODE_LOST_S + 5.0
"""How soon the loss of a node ends an attempt that runs, the time included that a machine of two cores adds."""
OF_COMMANDS = frozenset({Fault.RANK, Fault.GUARDIAN, Fault.MPIRUN, Fault.DAEMON})
"""Their victims are there a while after RUNNING began."""
OF_HOSTS = frozenset({Fault.AGENT, Fault.RAYLET, Fault.LINK})


@dataclass
class Strike:
    """One cell: what was pushed, and where it was struck."""

    ground: Ground
    repo: Repo
    cell: Cell
    dice: random.Random
    sha: str = ""
    token: str = ""
    struck_in: State | None = None
    struck: str = ""
    struck_at: float = 0.0
    victim: Victim | None = None
    host: str = ""
    """Whose host was struck, where one was."""
    away_s: float = 0.0
    needed: bool = False
    mended_at: float = 0.0
    missed: list[str] = field(default_factory=list)

    @property
    def row(self) -> Row:
        return ROWS[self.cell.topology]

    @property
    def experiment(self) -> Experiment:
        found = self.repo.experiment(self.sha)
        assert found is not None
        return found

    def run(self) -> None:
        """Push and strike, again with a new push where the state had gone by, and wait for the end."""
        while not self.struck:
            assert len(self.missed) < TRIES, f"{self.cell.words} was never struck: {self.missed}"
            self._push()
            with self._held() as held:
                if held:
                    self._strike()
            self._settle()
            if not self.struck:
                assert self.experiment.state is self._unstruck, self.story()
                self.missed.append(self.story())

    @property
    def _unstruck(self) -> State:
        """What it comes to by itself."""
        return State.FAILED if self.cell.fault is Fault.TIMEOUT else State.STOPPED

    def _push(self) -> None:
        self.token = f"t{self.dice.randrange(1 << 32):08x}"
        fault, state = self.cell.fault, self.cell.state
        if fault is Fault.TIMEOUT:
            file = self.row.file(self.token, WAITS_S, timeout=TIMEOUT_S)
        elif fault is Fault.CANCEL and state is State.PENDING:
            file = self.row.waiting(self.token)  # as long as it takes to be pressed
        else:
            file = self.row.file(self.token, 1.0 if state is State.NETWORK_TEARDOWN else RUNS_S)
        files = {".descent/config.yaml": file, "train.sh": TRACE}
        self.sha = self.repo.push(files, message=f"{self.cell.words} {len(self.missed)}")

    @contextmanager
    def _held(self) -> Iterator[bool]:
        """Whether it is in the drawn state, where it stays meanwhile; RUNNING needs no help for that."""
        stack, state = self.ground.stack, self.cell.state
        book, worker = Book(stack.data_dir / "descent.db"), stack.worker()
        assert worker is not None
        if self.cell.fault is Fault.CANCEL:
            self.repo.checks(self.sha, lambda runs: bool(runs and _cancellable(runs[-1])), STATE_S)
        with book.reading(self.repo.full_name, self.sha) as read:
            holds = state is State.PROVISIONING and self.cell.fault in OF_HOSTS  # before that it is on no host

            def there() -> bool:
                row = read()
                return row is not None and place(row.state) >= place(state) and (row.holds or not holds)

            _soon(there, STATE_S, lambda: str(self.experiment))
            if self.cell.fault not in OF_COMMANDS:
                self._linger(state)
            if state is State.RUNNING:
                row = read()
                yield row is not None and row.state is state
            else:
                writable = book if self.cell.fault is Fault.CANCEL else None
                with held_in(state, read, worker, writable) as held:
                    yield held

    def _linger(self, state: State) -> None:
        """Let some of the state go by, less after each time that it was too much."""
        time.sleep(self.dice.uniform(0.0, LASTS_S.get(state, 0.0)) / 2 ** len(self.missed))

    def _strike(self) -> None:
        """Strike, and note what was struck; nothing is where nobody was there to be struck."""
        fault, stack = self.cell.fault, self.ground.stack
        self.struck_in = self.experiment.state
        if fault in OF_COMMANDS:
            wait_for(lambda: bool(self._victims()) or self.experiment.state is not State.RUNNING, 60)
            self._linger(State.RUNNING)
            self.struck_in = self.experiment.state
        if self.struck_in is not self.cell.state:
            return
        self.struck_at = time.time()
        match fault:
            case Fault.CANCEL:
                self._cancel()
            case Fault.LINK:
                host = self._host()
                self.ground.hosts.link_down(host)
                self.struck, self.host = f"cable of {host.name}", host.name
            case Fault.WORKER:
                pid = stack.worker()
                assert pid is not None
                os.kill(pid, signal.SIGKILL)
                self.struck = f"worker {pid}"
            case Fault.TIMEOUT:
                self.struck = f"time limit of {TIMEOUT_S} s"
            case _:
                found = self._victims()
                self.victim = self.dice.choice(found) if found else None
                if self.victim and self.victim.kill():
                    self.struck, self.host = self.victim.words, self.victim.host
        if self.struck and fault in {Fault.LINK, Fault.RAYLET}:
            self.away_s = self.dice.uniform(*MENDED_S)
            self.mended_at = time.monotonic() + self.away_s

    def _cancel(self) -> None:
        """Press the button; it is pressed once Descent has been told so."""
        (run,) = self._runs()
        if not run["actions"]:
            return
        stack, before = self.ground.stack, self._delivered()
        stack.control.click(run["id"], "cancel")
        wait_for(lambda: self._delivered() > before, 20)
        self.struck = f"button of check run {run['id']}"

    def _delivered(self) -> int:
        bodies = select(delivery.c.body).where(delivery.c.event == "check_run")
        found = self.ground.stack.look(lambda c: c.execute(bodies).scalars().all())
        return sum(b'"requested_action"' in body for body in found)

    def _host(self) -> Host:
        """One of the hosts it is on; the one that all of Descent is on loses only its agent here."""
        nodes = self._nodes()
        spared = set[str]() if self.cell.fault is Fault.AGENT else {"host-a"}
        name = self.dice.choice(sorted({node.host for node in nodes} - spared))
        # Where nobody decides, the others may come to their end without it; but ranks of MPI do so together.
        self.needed = any(node.host == name and (node.decides or self.row.mpi) for node in nodes)
        return self.ground.hosts[name]

    def _nodes(self) -> tuple[HeldNode, ...]:
        return tuple(self.experiment.held.nodes)

    def _victims(self) -> list[Victim]:
        nodes = self._nodes()
        hosts = [host for host in self.ground.hosts.each if host.name in {node.host for node in nodes}]
        if self.cell.fault in OF_HOSTS:
            hosts = [self._host()]
        return victims(self.cell.fault, self.token, hosts, nodes)

    def _settle(self) -> None:
        """Wait for the end; meanwhile cables are put back, and Ray is started again by whoever looks after it."""
        give_up_at = time.monotonic() + END_S
        while not (runs := self._runs()) or runs[-1]["status"] != "completed":
            assert time.monotonic() < give_up_at, f"{self.story()}: {self.experiment}"
            if self.mended_at and time.monotonic() >= self.mended_at:
                self.ground.cluster.mend()
                self.mended_at = 0.0
            time.sleep(0.2)

    def _runs(self) -> list[dict[str, Any]]:
        return list(self.ground.stack.control.check_runs(self.repo.full_name, self.sha))

    # --- what must hold ---

    def story(self) -> str:
        """What happened, in a line."""
        line = [f"{t.attempt}:{t.state}{f'({t.cause})' if t.cause else ''}" for t in self._timeline()]
        away = f" for {self.away_s:.0f} s" if self.away_s else ""
        again = f", pushed {1 + len(self.missed)} times" if self.missed else ""
        struck = f"struck in {self.struck_in} ({self.struck}{away}{again})" if self.struck else "struck in time nowhere"
        return f"{self.cell.words} {struck}: {' '.join(line)}"

    def _timeline(self) -> list[Transition]:
        return self.ground.stack.timeline(self.experiment.id)

    def untruths(self) -> list[str]:
        """Everything that is not as it must be."""
        assert self.struck_in is not None
        experiment, runs = self.experiment, self._runs()
        wanted = expected(self.cell.fault, self.struck_in, self.away_s if self.needed else 0.0)
        found = [*self._of_end(wanted, experiment, runs), *self._of_causes(wanted), *self._of_traces(experiment)]
        if self.struck_in is not self.cell.state:
            found.append(f"it was struck in {self.struck_in}")
        return [*found, *self._of_names(experiment)]

    def _of_end(self, wanted: Expected, experiment: Experiment, runs: list[dict[str, Any]]) -> Iterator[str]:
        progress = experiment.progress
        spent = progress.infrastructure_retries_used >= progress.infrastructure_retries
        if experiment.state not in TERMINAL:
            yield f"is {experiment.state}"
        elif experiment.state not in wanted.ends and not (experiment.state is State.ERROR and spent):
            yield f"is {experiment.state}: {experiment.detail}"
        if len(runs) != 1 or runs[-1]["conclusion"] != self._conclusion(experiment):
            yield f"{len(runs)} check runs, {runs[-1]['conclusion']} for {experiment.state}"
        if not wanted.retries <= progress.infrastructure_retries_used <= wanted.most:
            yield f"used {progress.infrastructure_retries_used} retries"

    def _conclusion(self, experiment: Experiment) -> str | None:
        limited = experiment.progress.cause is Cause.TIME_LIMIT
        return "timed_out" if limited else CONCLUSIONS.get(experiment.state)

    def _of_causes(self, wanted: Expected) -> Iterator[str]:
        causes = [t.cause for t in self._timeline() if t.cause is not None]
        gave_up = self.experiment.state is State.ERROR
        if not causes or causes[-1] not in wanted.final | (wanted.causes if gave_up else frozenset[Cause]()):
            yield f"its cause is {causes[-1:]}"
        yield from (f"an attempt ended by {c}" for c in causes[:-1] if c not in wanted.causes | wanted.final)

    def _of_names(self, experiment: Experiment) -> Iterator[str]:
        """Who is named as the first cause, and how soon, where that is certain."""
        if not self.host or self.struck_in is not State.RUNNING:
            return
        ended = next(t for t in self._timeline() if t.state is State.NETWORK_TEARDOWN)
        if self.cell.fault in {Fault.GUARDIAN, Fault.RAYLET, Fault.LINK}:
            lost = ended.cause is not Cause.SUCCEEDED  # where nobody decides, the others may have come to their end
            if lost and not ended.reason.startswith(f"Node {self.host}"):
                yield f"{self.host} was struck, and it says: {ended.reason}"
            if ended.at - self.struck_at > NOTICED_S:
                yield f"noticed after {ended.at - self.struck_at:.1f} s"
        elif self.victim and self.cell.fault in {Fault.RANK, Fault.MPIRUN, Fault.DAEMON}:
            # What becomes of a rank of MPI, the mpirun tells by its own end.
            tells = self.row.mpi and self.cell.fault is not Fault.DAEMON
            node = next(each for each in self._nodes() if each.decides) if tells else self.victim.node
            if node is None:
                yield f"{self.victim.words} is of no node"
            elif not names(experiment.detail, node):
                yield f"{self.victim.words} was struck, {node.words} should be named: {experiment.detail}"

    def _of_traces(self, experiment: Experiment) -> Iterator[str]:
        """Never two attempts of a process at once; and what succeeded had run to its end."""
        storage = self.ground.cluster.storage_dir
        for path in storage.glob(f"*/{self.token}.*.trace"):
            if "overlap" in path.read_text():
                yield f"{path.name}: two at once: {path.read_text().split()}"
        for name in self.row.traces if experiment.state is State.STOPPED else ():
            text = "".join(path.read_text() for path in storage.glob(f"*/{self.token}.{name}.trace"))
            if not any(line.startswith("end ") and line.endswith(" 0") for line in text.splitlines()):
                yield f"{name} did not end with 0: {text!r}"


def _cancellable(run: dict[str, Any]) -> bool:
    return bool(run["actions"]) or run["status"] == "completed"


def _soon(there: Callable[[], bool], timeout_s: float, words: Callable[[], str]) -> None:
    """Wait for what may be over a moment later."""
    give_up_at = time.monotonic() + timeout_s
    while not there():
        assert time.monotonic() < give_up_at, f"not within {timeout_s} s: {words()}"
        time.sleep(PAUSE_S)
