"""What we remember, as values: experiments, their history, claims and check runs. Pure."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from launcher.experiment import Held as Held
from launcher.experiment import HeldNode as HeldNode
from launcher.experiment import Specification, Value
from launcher.state import Cause, Progress, State

DESCENT = "descent[app]"
"""Who wishes that an experiment be cancelled when its last claim ends. No login: in one, brackets hold "bot" alone."""


class ClaimKind(StrEnum):
    """What can want an experiment."""

    BRANCH = "branch"  # key: the full ref
    TAG = "tag"  # key: the full ref
    PULL_REQUEST = "pull_request"  # key: the number
    RERUN = "rerun"  # key: who asked
    MERGE_GROUP = "merge_group"  # key: the full ref of the group's head


@dataclass(frozen=True)
class Claim:
    """Something that wants an experiment; an experiment whose last open claim ends is cancelled."""

    kind: ClaimKind
    key: str
    lasting: bool = False
    """Ended only by a person: claims of the default branch and of merge groups."""


@dataclass(frozen=True)
class Repository:
    """A repository on which the App is installed."""

    id: int
    installation_id: int
    full_name: str
    default_branch: str
    private: bool = True


@dataclass(frozen=True)
class Wish:
    """That an experiment be cancelled; the first one counts."""

    by: str
    why: str
    at: float


@dataclass(frozen=True)
class Experiment:
    """One experiment of one configuration file at one commit; times are seconds since the epoch."""

    id: int
    repository_id: int
    installation_id: int
    full_name: str
    head_sha: str
    ref: str
    name: str
    rerun: int
    title: str
    """First line of the commit's message."""
    specification: Specification
    configuration_path: str
    configuration_source: str
    progress: Progress
    detail: dict[str, Any]
    """What fills the sentence of the cause: exit_code, signal, used, limit, why, node…"""
    created_at: float
    state_at: float
    queued_at: float | None = None
    """When it first became PENDING: its place in the queue, kept by retries."""
    running_at: float | None = None
    """When the current attempt's command started."""
    ended_at: float | None = None
    trusted: bool = True
    """False for an approved commit of a fork: empty storage, throw-away cache, never without isolation."""
    wish: Wish | None = None
    held: Held = field(default_factory=Held)
    notes: tuple[str, ...] = ()
    """What a reader of the results must know: container not used, submodules not fetched…"""
    pending_reason: str = ""
    version: int = 0
    """Goes up with every change that a reader could see."""

    @property
    def state(self) -> State:
        """Where it stands."""
        return self.progress.state


@dataclass(frozen=True)
class Transition:
    """One line of an experiment's timeline."""

    sequence: int
    attempt: int
    state: State
    at: float
    reason: str = ""
    cause: Cause | None = None


class Annotation(Value):
    """A remark on lines of a file, as the Checks API takes it."""

    path: str
    start_line: int
    end_line: int
    level: str  # notice | warning | failure
    title: str
    message: str
    start_column: int | None = None
    end_column: int | None = None


class Button(Value):
    """A requested action: GitHub takes 20 characters of label and identifier, 40 of description."""

    label: str
    description: str
    identifier: str


class CheckRun(Value):
    """The check run that should be on GitHub; equality decides whether to write."""

    name: str
    head_sha: str
    status: str  # queued | in_progress | completed
    conclusion: str | None = None
    title: str
    summary: str
    text: str = ""
    annotations: tuple[Annotation, ...] = ()
    buttons: tuple[Button, ...] = ()
    details_url: str = ""
    external_id: str = ""
    started_at: float | None = None
    completed_at: float | None = None
