"""A cell on the ground: pushed, struck in its state, and everything that must hold once it has ended."""

import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ci_bot.records import Experiment, Transition
from launcher.experiment import HeldNode
from launcher.state import TERMINAL, Cause, State
from tests.cluster.cells import ORDER, Cell, Expected, Fault, expected
from tests.cluster.ground import Ground
from tests.cluster.hosts import Host, Process
from tests.cluster.topologies import ROWS, Row
from tests.e2e.load import CONCLUSIONS, TRACE
from tests.e2e.stack import Repo, wait_for

RUNS_S = 6.0
STATE_S = 120.0
END_S = 300.0
MENDED_S = (1.0, 40.0)


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
    away_s: float = 0.0
    needed: bool = False
    mended_at: float = 0.0

    @property
    def row(self) -> Row:
        return ROWS[self.cell.topology]

    @property
    def experiment(self) -> Experiment:
        found = self.repo.experiment(self.sha)
        assert found is not None
        return found

    def run(self) -> None:
        """Push, strike, and wait for the end."""
        self.token = f"t{self.dice.randrange(1 << 32):08x}"
        seconds = RUNS_S if self.cell.state is not State.NETWORK_TEARDOWN else 1.0
        files = {".descent/config.yaml": self.row.file(self.token, seconds), "train.sh": TRACE}
        self.sha = self.repo.push(files, message=self.cell.words)
        self.repo.wait(self.sha, lambda e: ORDER.index(self.cell.state) <= _place(e.state), STATE_S)
        if self.cell.fault in {Fault.RANK, Fault.GUARDIAN, Fault.MPIRUN, Fault.DAEMON}:
            wait_for(lambda: bool(self._victims()), 60, lambda: str(self.experiment))
            time.sleep(self.dice.uniform(0.0, 1.5))
        self._strike()
        self._settle()

    def _strike(self) -> None:
        self.struck_in = self.experiment.state
        match self.cell.fault:
            case Fault.CANCEL:
                runs = self.repo.checks(self.sha, lambda runs: bool(runs and _cancellable(runs[-1])), STATE_S)
                self.struck_in = self.experiment.state
                if runs[-1]["actions"]:
                    self.ground.stack.control.click(runs[-1]["id"], "cancel")
            case Fault.LINK:
                host = self._host()
                self.ground.hosts.link_down(host)
                self.struck = f"cable of {host.name}"
            case Fault.WORKER:
                pid = self.ground.stack.worker()
                assert pid is not None
                os.kill(pid, signal.SIGKILL)
                self.struck = f"worker {pid}"
            case _:
                victims = self._victims()
                if victims:
                    victim = self.dice.choice(victims)
                    self.struck = f"{victim.pid} {victim.argv[:80]}"
                    with suppress(ProcessLookupError):
                        os.kill(victim.pid, signal.SIGKILL)
        if self.cell.fault in {Fault.LINK, Fault.RAYLET}:
            self.away_s = self.dice.uniform(*MENDED_S)
            self.mended_at = time.monotonic() + self.away_s

    def _host(self) -> Host:
        """One of the hosts it is on, but not the one that all of Descent is on."""
        held = self._held()
        names = sorted({node.host for node in held} - {"host-a"}) or ["host-b", "host-c"]
        name = self.dice.choice(names)
        # Where nobody decides, the others may come to their end without it; but ranks of MPI do so together.
        self.needed = any(node.host == name and (node.decides or self.row.mpi) for node in held)
        return self.ground.hosts[name]

    def _held(self) -> tuple[HeldNode, ...]:
        return tuple(self.experiment.held.nodes)

    def _victims(self) -> list[Process]:
        hosts = [host for host in self.ground.hosts.each if host.name in {node.host for node in self._held()}]
        if self.cell.fault in {Fault.AGENT, Fault.RAYLET}:
            hosts = [self._host()]
        return [process for host in hosts for process in host.processes() if self._is_victim(process)]

    def _is_victim(self, process: Process) -> bool:
        match self.cell.fault:
            case Fault.RANK:
                return process.argv.startswith(f"sh train.sh {self.token}")
            case Fault.GUARDIAN:
                return "launcher/guardian/__main__.py" in process.argv
            case Fault.AGENT:
                return process.argv.startswith("ray::NodeAgent")
            case Fault.RAYLET:
                return process.comm == "raylet"
            case Fault.MPIRUN:
                return process.comm in {"mpirun", "mpiexec", "mpiexec.hydra", "prterun"}
            case Fault.DAEMON:
                return process.comm in {"orted", "prted", "hydra_pmi_proxy"}
            case _:
                return False

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
        return f"{self.cell.words} struck in {self.struck_in} ({self.struck}{away}): {' '.join(line)}"

    def _timeline(self) -> list[Transition]:
        return self.ground.stack.timeline(self.experiment.id)

    def untruths(self) -> list[str]:
        """Everything that is not as it must be."""
        assert self.struck_in is not None
        experiment, runs = self.experiment, self._runs()
        wanted = expected(self.cell.fault, self.struck_in, self.away_s if self.needed else 0.0)
        return [*self._of_end(wanted, experiment, runs), *self._of_causes(wanted), *self._of_traces(experiment)]

    def _of_end(self, wanted: Expected, experiment: Experiment, runs: list[dict[str, Any]]) -> Iterator[str]:
        progress = experiment.progress
        spent = progress.infrastructure_retries_used >= progress.infrastructure_retries
        if experiment.state not in TERMINAL:
            yield f"is {experiment.state}"
        elif experiment.state not in wanted.ends and not (experiment.state is State.ERROR and spent):
            yield f"is {experiment.state}: {experiment.detail}"
        if len(runs) != 1 or runs[-1]["conclusion"] != CONCLUSIONS.get(experiment.state):
            yield f"{len(runs)} check runs, {runs[-1]['conclusion']} for {experiment.state}"
        if progress.infrastructure_retries_used < wanted.retries:
            yield f"used {progress.infrastructure_retries_used} retries"

    def _of_causes(self, wanted: Expected) -> Iterator[str]:
        causes = [t.cause for t in self._timeline() if t.cause is not None]
        gave_up = self.experiment.state is State.ERROR
        if not causes or causes[-1] not in wanted.final | (wanted.causes if gave_up else frozenset[Cause]()):
            yield f"its cause is {causes[-1:]}"
        yield from (f"an attempt ended by {c}" for c in causes[:-1] if c not in wanted.causes | wanted.final)

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


def _place(state: State) -> int:
    return ORDER.index(state) if state in ORDER else -1 if state is State.CREATED else len(ORDER)


def _cancellable(run: dict[str, Any]) -> bool:
    return bool(run["actions"]) or run["status"] == "completed"
