"""THE state machine of an experiment: eleven states, the facts that move it, the causes that end it. Pure."""

from dataclasses import dataclass, replace
from enum import StrEnum


class State(StrEnum):
    """The states of the original, names exact."""

    CREATED = "CREATED"
    PENDING = "PENDING"
    PROVISIONING = "PROVISIONING"
    PROVISIONED = "PROVISIONED"
    NETWORK_SETUP = "NETWORK_SETUP"
    RUNNING = "RUNNING"
    NETWORK_TEARDOWN = "NETWORK_TEARDOWN"
    STOPPED = "STOPPED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    ERROR = "ERROR"

    @property
    def words(self) -> str:
        """What a person reads: "Network setup"."""
        return self.value.replace("_", " ").capitalize()


TERMINAL = frozenset({State.STOPPED, State.FAILED, State.CANCELLED, State.ERROR})
WAITING = frozenset({State.CREATED, State.PENDING})
HOLDING = frozenset({State.PROVISIONING, State.PROVISIONED, State.NETWORK_SETUP, State.RUNNING})
"""States in which an attempt may hold nodes, and that end through NETWORK_TEARDOWN."""


class Budget(StrEnum):
    """Which retries an end may spend."""

    USER = "user"
    INFRASTRUCTURE = "infrastructure"
    FREE = "free"  # a new attempt that costs nothing
    NONE = "none"


class Cause(StrEnum):
    """Why an attempt ended; the first one counts."""

    SUCCEEDED = "succeeded"
    COMMAND_EXITED = "command exited"
    COMMAND_KILLED = "command killed"
    OUT_OF_MEMORY = "out of memory"
    DISK_LIMIT = "disk limit"
    DAEMON_LOST = "daemon lost"
    TIME_LIMIT = "time limit"
    WISHED = "wished"
    SHUTDOWN = "shutdown"
    UNSATISFIABLE = "unsatisfiable"
    NOT_SUPPORTED = "not supported"
    REFUSED_ARCHIVE = "refused archive"
    COMMIT_GONE = "commit gone"
    NOT_FETCHABLE = "not fetchable"
    QUEUE_DEADLINE = "queue deadline"
    PREPARATION_FAILED = "preparation failed"
    DEADLINE = "deadline"
    DISK_FULL = "disk full"
    NODE_LOST = "node lost"
    HEAD_LOST = "head lost"
    GUARDIAN_LOST = "guardian lost"
    RESERVATION_LOST = "reservation lost"
    PEER_UNREACHABLE = "peer unreachable"
    ARTIFACTS_NOT_STORED = "artifacts not stored"
    NOT_PROVEN_CLEAN = "not proven clean"


@dataclass(frozen=True)
class Verdict:
    """What a cause means: the end it leads to, the budget it may spend instead, the sentence a person reads."""

    end: State
    budget: Budget
    sentence: str


VERDICTS: dict[Cause, Verdict] = {
    Cause.SUCCEEDED: Verdict(State.STOPPED, Budget.NONE, "The command ended with exit code 0."),
    Cause.COMMAND_EXITED: Verdict(State.FAILED, Budget.USER, "The command exited with code {exit_code}{hint}."),
    Cause.COMMAND_KILLED: Verdict(State.FAILED, Budget.USER, "The command was killed by {signal}{hint}."),
    Cause.OUT_OF_MEMORY: Verdict(State.FAILED, Budget.USER, "Out of memory: {used} of {limit}."),
    Cause.DISK_LIMIT: Verdict(State.FAILED, Budget.USER, "Out of disk: the experiment wrote {used} of {limit}."),
    Cause.DAEMON_LOST: Verdict(State.FAILED, Budget.USER, "A daemon of mpirun was lost: {who}, it {why}."),
    Cause.TIME_LIMIT: Verdict(State.FAILED, Budget.NONE, "Stopped at its time limit of {limit}."),
    Cause.WISHED: Verdict(State.CANCELLED, Budget.NONE, "{why}."),
    Cause.SHUTDOWN: Verdict(State.PENDING, Budget.FREE, "Descent was shut down; the experiment is queued again."),
    Cause.UNSATISFIABLE: Verdict(State.FAILED, Budget.NONE, "{why}"),
    Cause.NOT_SUPPORTED: Verdict(State.FAILED, Budget.NONE, "{why}"),
    Cause.REFUSED_ARCHIVE: Verdict(State.FAILED, Budget.NONE, "The repository's files were refused: {why}."),
    Cause.COMMIT_GONE: Verdict(State.ERROR, Budget.NONE, "The commit can't be fetched any more: {why}."),
    Cause.NOT_FETCHABLE: Verdict(State.ERROR, Budget.NONE, "The code could not be fetched for {waited}: {why}."),
    Cause.QUEUE_DEADLINE: Verdict(State.ERROR, Budget.NONE, "It waited {waited} for machines; the limit is {limit}."),
    Cause.PREPARATION_FAILED: Verdict(State.ERROR, Budget.INFRASTRUCTURE, "Node {node} could not be prepared: {why}."),
    Cause.DEADLINE: Verdict(State.ERROR, Budget.INFRASTRUCTURE, "{state} took longer than {limit}."),
    Cause.DISK_FULL: Verdict(State.ERROR, Budget.INFRASTRUCTURE, "Node {node}: the disk is full."),
    Cause.NODE_LOST: Verdict(State.ERROR, Budget.INFRASTRUCTURE, "Node {node} was lost: {why}."),
    Cause.HEAD_LOST: Verdict(State.ERROR, Budget.INFRASTRUCTURE, "Ray's head was lost: {why}."),
    Cause.GUARDIAN_LOST: Verdict(
        State.ERROR, Budget.INFRASTRUCTURE, "Node {node}: the process that watches the command was lost."
    ),
    Cause.RESERVATION_LOST: Verdict(State.ERROR, Budget.INFRASTRUCTURE, "Ray gave up the reservation: {why}."),
    Cause.PEER_UNREACHABLE: Verdict(State.ERROR, Budget.INFRASTRUCTURE, "{why}."),
    Cause.ARTIFACTS_NOT_STORED: Verdict(State.ERROR, Budget.NONE, "The artifacts could not be stored: {why}."),
    Cause.NOT_PROVEN_CLEAN: Verdict(State.ERROR, Budget.NONE, "{node} not proven clean: {why}."),
}


class Signal(StrEnum):
    """Facts, in the past tense; together with a state they give the next one."""

    COMMIT_RESOLVED = "commit resolved"
    ADMITTED = "admitted"
    NOT_PLACED = "not placed"
    NODES_READY = "nodes ready"
    NODES_REPORTED = "nodes reported"
    COMMANDS_STARTED = "commands started"
    ENDED = "ended"  # carries a Cause
    RELEASED = "released"


FORWARD: dict[tuple[State, Signal], State] = {
    (State.CREATED, Signal.COMMIT_RESOLVED): State.PENDING,
    (State.PENDING, Signal.ADMITTED): State.PROVISIONING,
    (State.PROVISIONING, Signal.NOT_PLACED): State.PENDING,
    (State.PROVISIONING, Signal.NODES_READY): State.PROVISIONED,
    (State.PROVISIONED, Signal.NODES_REPORTED): State.NETWORK_SETUP,
    (State.NETWORK_SETUP, Signal.COMMANDS_STARTED): State.RUNNING,
    **{(state, Signal.ENDED): State.NETWORK_TEARDOWN for state in HOLDING},
}
"""Where a fact leads. ENDED while WAITING, ENDED and RELEASED in NETWORK_TEARDOWN lead where the cause says."""

WAITING_CAUSES: dict[State, frozenset[Cause]] = {
    state: frozenset(
        {
            Cause.WISHED,
            Cause.UNSATISFIABLE,
            Cause.NOT_SUPPORTED,
            Cause.REFUSED_ARCHIVE,
            Cause.COMMIT_GONE,
            Cause.NOT_FETCHABLE,
            Cause.QUEUE_DEADLINE,
        }
    )
    for state in WAITING
}
"""The only causes that may end an experiment which holds nothing."""


class IllegalTransition(Exception):
    """A fact that this state can't take; a defect of ours, never of a user's."""


@dataclass(frozen=True)
class Progress:
    """Where an experiment stands. `attempt` numbers reservations, monotonic; the retries used count against budgets."""

    state: State = State.CREATED
    attempt: int = 0
    cause: Cause | None = None
    intended: State | None = None
    user_retries: int = 0
    user_retries_used: int = 0
    infrastructure_retries: int = 2
    infrastructure_retries_used: int = 0

    @property
    def tries(self) -> int:
        """Which try this is, from 1; a placement that failed or a shutdown is no try of its own."""
        return 1 + self.user_retries_used + self.infrastructure_retries_used


def advance(progress: Progress, signal: Signal, cause: Cause | None = None) -> Progress:
    """Where the experiment stands after a fact.

    Args:
        progress: where it stands now.
        signal: the fact.
        cause: why it ended; given with ENDED and with nothing else.

    Raises:
        IllegalTransition: the table has no such pair.
    """
    if (signal is Signal.ENDED) != (cause is not None):
        raise IllegalTransition(f"{signal} with cause {cause}")
    state = progress.state
    if cause is not None:
        return _end(progress, cause)
    if signal is Signal.RELEASED and state is State.NETWORK_TEARDOWN and progress.intended is not None:
        return replace(progress, state=progress.intended, intended=None)
    if (state, signal) not in FORWARD:
        raise IllegalTransition(f"{state} can't take {signal!r}")
    if signal is Signal.ADMITTED:
        return replace(progress, state=FORWARD[state, signal], attempt=progress.attempt + 1, cause=None)
    return replace(progress, state=FORWARD[state, signal])


def _end(progress: Progress, cause: Cause) -> Progress:
    state = progress.state
    if state in WAITING and cause in WAITING_CAUSES[state]:
        return replace(progress, state=VERDICTS[cause].end, cause=cause)
    if state in HOLDING:
        return _intend(replace(progress, state=State.NETWORK_TEARDOWN, cause=cause), cause)
    if state is State.NETWORK_TEARDOWN:
        return _end_during_teardown(progress, cause)
    raise IllegalTransition(f"{state} can't end: {cause}")


def _intend(progress: Progress, cause: Cause) -> Progress:
    """Choose the end, or the retry that a budget still pays for."""
    verdict = VERDICTS[cause]
    if verdict.budget is Budget.FREE:
        return replace(progress, intended=State.PENDING)
    if verdict.budget is Budget.USER and progress.user_retries_used < progress.user_retries:
        return replace(progress, intended=State.PENDING, user_retries_used=progress.user_retries_used + 1)
    if (
        verdict.budget is Budget.INFRASTRUCTURE
        and progress.infrastructure_retries_used < progress.infrastructure_retries
    ):
        used = progress.infrastructure_retries_used + 1
        return replace(progress, intended=State.PENDING, infrastructure_retries_used=used)
    return replace(progress, intended=verdict.end)


def _end_during_teardown(progress: Progress, cause: Cause) -> Progress:
    """An end is written once; only these may still change it, and none of them starts anything."""
    if cause is Cause.NOT_PROVEN_CLEAN:
        return replace(progress, state=State.ERROR, intended=None, cause=cause)
    if cause is Cause.WISHED and progress.intended is State.PENDING:
        return replace(progress, intended=State.CANCELLED, cause=cause)
    if cause is Cause.ARTIFACTS_NOT_STORED and progress.intended is State.STOPPED:
        return replace(progress, intended=State.ERROR, cause=cause)
    raise IllegalTransition(f"teardown towards {progress.intended} can't take {cause}")
