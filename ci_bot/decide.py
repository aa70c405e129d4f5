"""Event + configuration + what is known -> decisions. Pure."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from ci_bot.config import Configuration, ConfiguredExperiment
from ci_bot.events import MergeGroup, PullRequest, Push, skip_requested
from ci_bot.records import Claim, ClaimKind, Experiment
from ci_bot.report.other_checks import configuration_notes
from launcher.experiment import Specification

DESCENT = "descent"
"""Who wishes that an experiment be cancelled when its last claim ends."""
SAME_CLICK_S = 5.0
"""One click may arrive as a check_run and as a check_suite event."""


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
    """End what this branch, tag, pull request or merge group wants, save at one commit."""

    kind: ClaimKind
    key: str
    why: str
    except_sha: str | None = None


@dataclass(frozen=True)
class ReportProblems:
    """The configuration file has errors: say so on its lines, run nothing."""

    head_sha: str
    configuration: "Read"
    trusted: bool


@dataclass(frozen=True)
class ReportFine:
    """The configuration file has no errors now: an older verdict on it must not stand."""

    head_sha: str
    configuration: "Read"
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
    configuration: "Read"
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
class Nothing:
    """Do nothing, because…"""

    why: str


Report = ReportProblems | ReportFine | ReportSkipped | ReportNotMatching | ReportWaiting | ReportMissed
Decision = Start | EndClaims | Report | Approve | Cancel | Nothing


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
    current_head: str | None = None
    """What GitHub says the branch or pull request points to now; None: it was not asked, or is gone."""
    missed: bool = False
    approver: str | None = None
    existing: Sequence[Experiment] = field(default_factory=tuple)
    """The newest experiment of each name at this commit."""


# --- judgements ---


def on_push(push: Push, known: Known) -> list[Decision]:
    """What a push to a branch or tag asks for."""
    repository, tag = push.repository, push.ref.startswith("refs/tags/")
    name = push.ref.split("/", 2)[2]
    kind = ClaimKind.TAG if tag else ClaimKind.BRANCH
    if push.deleted:
        return [EndClaims(kind, push.ref, why=f"{'tag' if tag else 'branch'} {name} was deleted")]
    head_sha = push.head_sha
    if known.current_head not in {None, head_sha} and name != repository.default_branch:
        return [Nothing(f"{name} has moved on to {short(known.current_head or '')}")]
    lasting = not tag and name == repository.default_branch
    ended = [] if lasting else [EndClaims(kind, push.ref, f"superseded by {short(head_sha)}", except_sha=head_sha)]

    def matches(experiment: ConfiguredExperiment) -> bool:
        if tag:
            return experiment.triggers.matches_tag(name)
        return experiment.triggers.matches_branch(name, repository.default_branch)

    wanted = list(_wanted(known, Claim(kind, push.ref, lasting), matches))
    return [*ended, *wanted] or [Nothing("no experiment is triggered by this push")]


def on_pull_request(event: PullRequest, known: Known) -> list[Decision]:
    """What a pull request asks for; a fork's only with an approval of its exact SHA."""
    key = str(event.number)
    if event.action == "closed":
        return [EndClaims(ClaimKind.PULL_REQUEST, key, why=f"pull request #{key} was closed")]
    if known.current_head != event.head_sha:
        return [Nothing(f"pull request #{key} has moved on to {short(known.current_head or 'nothing')}")]
    superseded = EndClaims(ClaimKind.PULL_REQUEST, key, f"superseded by {short(event.head_sha)}", event.head_sha)
    if event.is_fork and known.approver is None:
        return [superseded, *_waiting(event, known)]
    claim = Claim(ClaimKind.PULL_REQUEST, key)
    default_branch = event.repository.default_branch

    branches = {event.base_ref} if event.is_fork else {event.base_ref, event.head_ref}

    def matches(experiment: ConfiguredExperiment) -> bool:
        triggers = experiment.triggers
        return not triggers.branches or any(triggers.matches_branch(each, default_branch) for each in branches)

    wanted = _wanted(known, claim, matches, tested=f"base branch {event.base_ref}", trusted=not event.is_fork)
    return [superseded, *wanted]


def on_merge_group(event: MergeGroup, known: Known) -> list[Decision]:
    """What a merge queue asks for: the group's commit, tested as its base branch would be."""
    if event.action == "destroyed":
        return [EndClaims(ClaimKind.MERGE_GROUP, event.head_ref, why="the merge group is gone")]
    base = event.base_ref.removeprefix("refs/heads/")
    default_branch = event.repository.default_branch

    def matches(experiment: ConfiguredExperiment) -> bool:
        return not experiment.triggers.branches or experiment.triggers.matches_branch(base, default_branch)

    claim = Claim(ClaimKind.MERGE_GROUP, event.head_ref)
    return list(_wanted(known, claim, matches, tested=f"base branch {base}")) or [
        Nothing("the commit has no configuration file")
    ]


def on_approval(head_sha: str, number: int, approver: str, known: Known) -> list[Decision]:
    """What an approved fork's commit starts: the base branch's experiments on the fork's code."""
    claim = Claim(ClaimKind.PULL_REQUEST, str(number))
    return [Approve(head_sha, approver), *_wanted(known, claim, lambda _: True, trusted=False)]


def on_rerun(name: str | None, sender: str, known: Known, *, fork: bool, now: float) -> list[Decision]:
    """What "Re-run" starts: each named experiment again once it has ended, whatever the filters say.

    Args:
        name: the experiment's name; None for all of the commit.
        sender: the login of the person, who may write.
        known: `existing` holds the newest experiment of each name.
        fork: the commit comes from a fork.
        now: seconds since the epoch.
    """
    if fork and known.approver is None:
        return [Nothing("a fork's commit starts only when it is approved")]
    if known.read is None:
        return [Nothing("the commit has no configuration file")]
    if not known.read.configuration.ok:
        return [ReportProblems(known.commit.head_sha, known.read, trusted=not fork)]
    existing = {each.name: each for each in known.existing}
    decisions: list[Decision] = [ReportFine(known.commit.head_sha, known.read, trusted=not fork)]
    for experiment in known.read.configuration.experiments:
        specification = experiment.specification
        if name not in {None, specification.name}:
            continue
        newest = existing.get(specification.name)
        if newest and newest.ended_at is None:
            decisions.append(Nothing(f"{specification.name} has not ended yet: cancel it first"))
        elif newest and newest.rerun and now - newest.created_at < SAME_CLICK_S:
            decisions.append(Nothing(f"{specification.name} was re-run just now"))
        else:
            rerun = newest.rerun + 1 if newest else 0
            claim = Claim(ClaimKind.RERUN, sender)
            decisions.append(_start(known, experiment, claim, rerun=rerun, trusted=not fork))
    return decisions


def rerun_number(start: Start, newest: Experiment | None) -> int:
    """Which run of its name at its commit this is: one whose claims had all ended is wanted afresh.

    A branch pushed back to an older commit, or a pull request that is reopened, finds its experiment cancelled.
    """
    if newest and start.trusted and not newest.trusted:
        return newest.rerun + 1  # what ran for a fork's pull request says nothing of the same commit in the repository
    if start.claim.kind is not ClaimKind.RERUN and newest and newest.wish and newest.wish.by == DESCENT:
        return newest.rerun + 1
    return start.rerun if start.claim.kind is ClaimKind.RERUN or newest is None else newest.rerun


def short(sha: str) -> str:
    """A commit as people write it: its first seven digits."""
    return sha[:7]


def _wanted(
    known: Known,
    claim: Claim,
    matches: Callable[[ConfiguredExperiment], bool],
    *,
    tested: str | None = None,
    trusted: bool = True,
) -> Iterator[Decision]:
    """Starts, or what is said in their place. `tested` is given where a check must be concluded in any case."""
    read, head_sha = known.read, known.commit.head_sha
    if read is None:
        return
    if not read.configuration.ok:
        yield ReportProblems(head_sha, read, trusted)
        return
    yield ReportFine(head_sha, read, trusted)
    skip = skip_requested(known.commit.message)
    for experiment in read.configuration.experiments:
        name = experiment.specification.name
        if not matches(experiment):
            if tested:
                yield ReportNotMatching(head_sha, name, tested, trusted)
        elif known.missed:
            yield ReportMissed(head_sha, name, trusted)
        elif skip:
            yield ReportSkipped(head_sha, name, skip, trusted)
        else:
            yield _start(known, experiment, claim, trusted=trusted)


def _waiting(event: PullRequest, known: Known) -> Iterator[Decision]:
    read = known.read
    if read is None:
        yield Nothing("the base branch has no configuration file")
    elif not read.configuration.ok:
        yield ReportProblems(event.head_sha, read, trusted=False)
    else:
        for experiment in read.configuration.experiments:
            yield ReportWaiting(event.head_sha, experiment.specification.name, event.number, read)


def _start(
    known: Known, experiment: ConfiguredExperiment, claim: Claim, *, rerun: int = 0, trusted: bool = True
) -> Start:
    read = known.read
    assert read is not None  # noqa: S101 - callers have looked
    return Start(
        head_sha=known.commit.head_sha,
        ref=known.commit.ref,
        title=known.commit.title,
        specification=experiment.specification,
        configuration_path=read.path,
        configuration_source=read.source,
        claim=claim,
        rerun=rerun,
        trusted=trusted,
        notes=configuration_notes(read.configuration.problems),
    )
