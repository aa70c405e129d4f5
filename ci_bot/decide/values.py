"""What is known about a commit, and what may be decided about it, as values. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from ci_bot.config import Configuration
from ci_bot.records import Claim, ClaimKind, Experiment, Repository
from launcher.experiment import Specification

# --- what is known ---


@dataclass(frozen=True)
class Read:
    """A configuration file as read at a commit."""

    path: str
    source: str
    configuration: Configuration
    commit: str
    """Where it was read: the pushed SHA, or the base branch's commit for a fork."""


@dataclass(frozen=True)
class Commit:
    """The commit an event is about."""

    head_sha: str
    ref: str
    message: str

    @property
    def title(self) -> str:
        """The message's first line."""
        return self.message.split("\n", 1)[0][:200]


@dataclass(frozen=True)
class Known:
    """What was asked of GitHub and the store about one commit."""

    commit: Commit
    read: Read | None
    missed: bool = False
    approver: str | None = None
    existing: Sequence[Experiment] = field(default_factory=tuple)
    """The newest experiment of each name at this commit."""


# --- decisions, in the imperative ---
# A report's `trusted` says that the commit was pushed to the repository itself. A re-run asks for nothing less.


@dataclass(frozen=True)
class Start:
    """Make this experiment exist, or add the claim to the one that does."""

    head_sha: str
    ref: str
    title: str
    specification: Specification
    configuration_path: str
    configuration_source: str
    claim: Claim
    rerun: int = 0
    trusted: bool = True
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class EndClaims:
    """End what this branch, tag, pull request or merge group wants: all of it, save at one commit, or only there."""

    kind: ClaimKind
    key: str
    why: str
    except_sha: str | None = None
    only_sha: str | None = None


@dataclass(frozen=True)
class ReportProblems:
    """The configuration file has errors: say so on its lines, run nothing."""

    head_sha: str
    configuration: Read
    trusted: bool


@dataclass(frozen=True)
class ReportFine:
    """The configuration file has no errors now: an older verdict on it must not stand."""

    head_sha: str
    configuration: Read
    trusted: bool


@dataclass(frozen=True)
class ReportSkipped:
    """The commit's author asked for no experiment."""

    head_sha: str
    name: str
    why: str
    trusted: bool


@dataclass(frozen=True)
class ReportNotMatching:
    """A pull request or merge group that the filters leave out still gets its check concluded."""

    head_sha: str
    name: str
    tested: str
    trusted: bool


@dataclass(frozen=True)
class ReportWaiting:
    """A fork's commit waits for a person's approval of this exact SHA."""

    head_sha: str
    name: str
    number: int
    configuration: Read
    trusted: bool = False


@dataclass(frozen=True)
class ReportMissed:
    """The event came too long ago to act on without being asked."""

    head_sha: str
    name: str
    trusted: bool


@dataclass(frozen=True)
class Approve:
    """Remember who approved a fork's commit."""

    head_sha: str
    approver: str


@dataclass(frozen=True)
class Cancel:
    """Write a wish."""

    experiment_id: int
    by: str
    why: str


@dataclass(frozen=True)
class RefuseRerun:
    """Start nothing, and say so on the check run of the experiment that has not ended yet."""

    experiment_id: int
    name: str
    by: str
    at: float
    """When it was asked for."""

    @property
    def why(self) -> str:
        """The reason."""
        return f"{self.name} has not ended yet: cancel it first"


@dataclass(frozen=True)
class Forget:
    """The App can't reach these repositories any more: cancel what runs for them."""

    repository_ids: tuple[int, ...]


@dataclass(frozen=True)
class Welcome:
    """The App can reach these repositories again: deliver what GitHub lacks of them."""

    repositories: tuple[Repository, ...]


@dataclass(frozen=True)
class Nothing:
    """Do nothing, because…"""

    why: str


Report = ReportProblems | ReportFine | ReportSkipped | ReportNotMatching | ReportWaiting | ReportMissed
Decision = Start | EndClaims | Report | Approve | Cancel | RefuseRerun | Forget | Welcome | Nothing
