"""The events that move us, as frozen values in GitHub's words. Pure.

A payload is a hint of what happened: deliveries come late, twice and out of order. Commits and numeric ids in it are
what to hold on to; everything else is asked of the API when it matters.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class RepositoryRef:
    """The repository an event is about, with the installation that let us hear of it."""

    id: int
    full_name: str
    default_branch: str
    private: bool
    installation_id: int


@dataclass(frozen=True)
class InstalledRepository:
    """What installation events tell of a repository: no default branch, so the rest is asked of the API."""

    id: int
    full_name: str
    private: bool


@dataclass(frozen=True)
class Sender:
    """Who caused the event; `type` is GitHub's: User, Bot, Organization…"""

    login: str
    type: str
    id: int

    @property
    def is_bot(self) -> bool:
        """A program, which presses no buttons of ours."""
        return self.type == "Bot"


@dataclass(frozen=True)
class Push:
    """A branch or tag was created, moved or deleted."""

    repository: RepositoryRef
    ref: str
    """In full: refs/heads/… or refs/tags/…"""
    before: str
    after: str
    """What the ref points to now: 40 zeros when deleted, and for an annotated tag the tag object, no commit."""
    head_sha: str
    """The commit; 40 zeros when deleted."""
    deleted: bool
    created: bool
    forced: bool
    message: str
    """The head commit's message, empty when deleted."""
    sender: Sender

    @property
    def name(self) -> str:
        """The branch's or tag's name."""
        return self.ref.split("/", 2)[2]

    @property
    def branch(self) -> str | None:
        """The branch's name, or None for a tag."""
        return self.ref.removeprefix("refs/heads/") if self.ref.startswith("refs/heads/") else None

    @property
    def tag(self) -> str | None:
        """The tag's name, or None for a branch."""
        return self.ref.removeprefix("refs/tags/") if self.ref.startswith("refs/tags/") else None


@dataclass(frozen=True)
class PullRequest:
    """A pull request got another head, or began or ceased to want one tested."""

    repository: RepositoryRef
    """The base's repository."""
    action: str  # opened | synchronize | reopened | closed
    number: int
    head_sha: str
    head_ref: str
    """A branch's name, without refs/heads/; so is base_ref."""
    head_repository_id: int | None
    """None when the fork was deleted."""
    base_ref: str
    base_sha: str
    is_fork: bool
    """The head is not in the base's repository; a deleted head repository was a fork."""
    title: str
    merged: bool
    sender: Sender


@dataclass(frozen=True)
class CheckRunRerequested:
    """A person pressed "Re-run" on one of our check runs."""

    repository: RepositoryRef
    check_run_id: int
    name: str
    head_sha: str
    external_id: str
    sender: Sender


@dataclass(frozen=True)
class CheckRunAction:
    """A person pressed one of the buttons that we put on a check run."""

    repository: RepositoryRef
    identifier: str
    check_run_id: int
    name: str
    head_sha: str
    external_id: str
    sender: Sender


@dataclass(frozen=True)
class CheckSuiteRerequested:
    """A person pressed "Re-run all checks"; it may come beside a CheckRunRerequested for the same click."""

    repository: RepositoryRef
    check_suite_id: int
    head_sha: str
    sender: Sender


@dataclass(frozen=True)
class MergeGroup:
    """A merge queue wants a commit tested, or no more."""

    repository: RepositoryRef
    action: str  # checks_requested | destroyed
    head_sha: str
    head_ref: str
    """In full, as base_ref is."""
    base_ref: str
    base_sha: str
    reason: str
    """Of `destroyed`: merged, invalidated or dequeued; else empty."""
    sender: Sender


@dataclass(frozen=True)
class InstallationChanged:
    """The App was installed, removed, suspended, woken up, or granted other permissions."""

    action: str  # created | deleted | suspend | unsuspend | new_permissions_accepted
    installation_id: int
    account: str
    suspended: bool
    repositories: tuple[InstalledRepository, ...]
    """Those that it covers; GitHub lists them on `created` and `deleted` only."""
    sender: Sender

    @property
    def gone(self) -> bool:
        """No call can be made through it any more (for now, when suspended)."""
        return self.action in {"deleted", "suspend"}


@dataclass(frozen=True)
class RepositoriesChanged:
    """An installation gained or lost repositories."""

    installation_id: int
    added: tuple[InstalledRepository, ...]
    removed: tuple[InstalledRepository, ...]
    sender: Sender


@dataclass(frozen=True)
class Ping:
    """GitHub greets a new webhook."""

    zen: str
    hook_id: int | None


@dataclass(frozen=True)
class Ignored:
    """Nothing to do, and why, in words for a person."""

    reason: str


Event = (
    Push
    | PullRequest
    | CheckRunRerequested
    | CheckRunAction
    | CheckSuiteRerequested
    | MergeGroup
    | InstallationChanged
    | RepositoriesChanged
    | Ping
    | Ignored
)
