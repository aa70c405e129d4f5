"""Faults by topology by state: a cell says what is struck when, and what must come of it. Pure.

Cells are drawn from a seed, so that a sample can be had again.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from launcher.state import HOLDING, TERMINAL, Cause, State

ORDER = (
    State.PENDING,
    State.PROVISIONING,
    State.PROVISIONED,
    State.NETWORK_SETUP,
    State.RUNNING,
    State.NETWORK_TEARDOWN,
)


class Fault(StrEnum):
    """What is done."""

    RANK = "rank"
    GUARDIAN = "guardian"
    AGENT = "agent"
    RAYLET = "raylet"
    LINK = "link"
    WORKER = "worker"
    CANCEL = "cancel"
    TIMEOUT = "timeout"
    MPIRUN = "mpirun"
    DAEMON = "daemon"


_HOLDING = (*(state for state in ORDER if state in HOLDING), State.NETWORK_TEARDOWN)
WHEN: dict[Fault, tuple[State, ...]] = {
    Fault.RANK: (State.RUNNING,),
    Fault.GUARDIAN: (State.RUNNING,),
    Fault.MPIRUN: (State.RUNNING,),
    Fault.DAEMON: (State.RUNNING,),
    Fault.TIMEOUT: (State.RUNNING,),
    Fault.AGENT: _HOLDING,
    Fault.RAYLET: _HOLDING,
    Fault.LINK: _HOLDING,
    Fault.WORKER: ORDER,
    Fault.CANCEL: (State.PENDING, *(state for state in _HOLDING if state is not State.NETWORK_TEARDOWN)),
}
"""The states in which each strikes."""
MPI_ONLY = frozenset({Fault.MPIRUN, Fault.DAEMON})
SURELY_LOST_S = 30.0
"""A host that is away for so long is lost; one that is back sooner may give what its guardian kept meanwhile."""
_HOST_GONE = frozenset(
    {Cause.NODE_LOST, Cause.GUARDIAN_LOST, Cause.RESERVATION_LOST, Cause.PREPARATION_FAILED}
    | {Cause.PEER_UNREACHABLE, Cause.DEADLINE, Cause.HEAD_LOST}
)


@dataclass(frozen=True)
class Cell:
    """One thing to try."""

    fault: Fault
    topology: str
    state: State

    @property
    def words(self) -> str:
        return f"{self.topology}-{self.fault}-{self.state}"


@dataclass(frozen=True)
class Expected:
    """What may come of a cell: `ends`, and `causes` of attempts that were not the last.

    `retries` is how many of the infrastructure budget must have been used at least, `most` at most.
    """

    ends: frozenset[State]
    causes: frozenset[Cause] = frozenset()
    final: frozenset[Cause] = frozenset({Cause.SUCCEEDED})
    retries: int = 0
    most: float = math.inf


def expected(fault: Fault, struck_in: State, away_s: float = math.inf) -> Expected:
    """What must come of a fault that struck in this state.

    A host was without its cable, or without Ray, for `away_s`: meanwhile its commands may have ended well, and its
    agent's successor is asked for the record before anything is lost. A command that had ended by itself before keeps
    its end: its success is true in NETWORK_TEARDOWN whatever dies then.
    """
    running, over = struck_in is State.RUNNING, struck_in is State.NETWORK_TEARDOWN or struck_in in TERMINAL
    stopped, failed = frozenset({State.STOPPED}), frozenset({State.FAILED})
    if over:
        # An attempt whose host was lost before all of it was kept, or proven clean, may say so.
        unkept = frozenset({Cause.ARTIFACTS_NOT_STORED, Cause.NOT_PROVEN_CLEAN})
        of_host = fault in {Fault.AGENT, Fault.RAYLET, Fault.LINK}
        ends = stopped | (frozenset({State.ERROR}) if of_host else frozenset())
        return Expected(ends, _HOST_GONE, frozenset({Cause.SUCCEEDED}) | (unkept if of_host else frozenset()))
    match fault:
        case Fault.RANK | Fault.MPIRUN:
            return Expected(failed, final=frozenset({Cause.COMMAND_KILLED, Cause.COMMAND_EXITED}))
        case Fault.DAEMON:
            return Expected(failed, final=frozenset({Cause.DAEMON_LOST}))
        case Fault.TIMEOUT:
            return Expected(failed, final=frozenset({Cause.TIME_LIMIT}))
        case Fault.CANCEL:
            return Expected(frozenset({State.CANCELLED}), final=frozenset({Cause.WISHED}))
        case Fault.GUARDIAN:
            return Expected(stopped, frozenset({Cause.GUARDIAN_LOST}), retries=int(running))
        case Fault.WORKER:
            return Expected(stopped)
        case Fault.AGENT:
            return Expected(stopped, _HOST_GONE, most=0 if running else math.inf)
        case Fault.RAYLET | Fault.LINK:
            return Expected(stopped, _HOST_GONE, retries=int(running and away_s > SURELY_LOST_S))


def place(state: State) -> int:
    """Where a state stands in an attempt's course; every end comes after all of them."""
    return ORDER.index(state) if state in ORDER else -1 if state is State.CREATED else len(ORDER)


def table(struck: Sequence[tuple[Cell, State, str]]) -> list[str]:
    """What was struck in which state, a line each: cell, drawn state, state that it was in, what."""
    rows = [("topology", "fault", "drawn", "struck in", "what")]
    rows += [(cell.topology, cell.fault, cell.state, state, what) for cell, state, what in struck]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return ["  ".join([*map(str.ljust, row, widths), row[4]]) for row in rows]


def every(topologies: Sequence[str]) -> list[Cell]:
    """The whole matrix."""
    return [
        Cell(fault, topology, state)
        for topology in topologies
        for fault, states in WHEN.items()
        if fault not in MPI_ONLY or "mpi" in topology
        for state in states
    ]


def drawn(topologies: Sequence[str], seed: int, count: int) -> list[Cell]:
    """A sample of so many cells: every fault as often as any other, as long as there are cells of it."""
    dice = random.Random(seed)
    rest, sample = every(topologies), list[Cell]()
    while rest and len(sample) < count:
        faults = sorted({cell.fault for cell in rest})
        for fault in dice.sample(faults, len(faults)):
            cell = dice.choice([cell for cell in rest if cell.fault is fault])
            rest.remove(cell)
            sample.append(cell)
    return sample[:count]
