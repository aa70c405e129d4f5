"""Event + configuration + what is known -> decisions. Pure."""

from collections.abc import Callable, Iterator

from ci_bot.config import ConfiguredExperiment
from ci_bot.decide.values import (
    Approve,
    Decision,
    EndClaims,
    Known,
    Nothing,
    RefuseRerun,
    ReportFine,
    ReportMissed,
    ReportNotMatching,
    ReportProblems,
    ReportSkipped,
    ReportWaiting,
    Start,
)
from ci_bot.events import MergeGroup, PullRequest, Push, skip_requested
from ci_bot.records import Claim, ClaimKind, Experiment
from ci_bot.report.check_run import check_run_name
from ci_bot.report.other_checks import configuration_notes

DESCENT = "descent"
"""Who wishes that an experiment be cancelled when its last claim ends."""
SAME_CLICK_S = 5.0
"""One click may arrive as a check_run and as a check_suite event."""


def overtaken(event: Push | PullRequest | MergeGroup, head: str | None) -> str:
    """Why an event is not acted on: GitHub shows otherwise by now what it tells of; empty when it still holds.

    Args:
        event: what was told; webhooks come late and out of order.
        head: what its ref (an annotated tag's is the tag object) or pull request points to now; None: it is gone, or
            closed.
    """
    match event:
        case Push():
            name, told, gone, back = event.name, None if event.deleted else event.after, "is gone", "exists again"
        case PullRequest():
            name, told = f"pull request #{event.number}", None if event.action == "closed" else event.head_sha
            gone, back = "is closed by now", "is open again"
        case MergeGroup():
            name, told, gone, back = f"the merge group {event.head_ref}", event.head_sha, "is gone", ""
    if head == told:
        return ""
    if head is None:
        return f"{name} {gone}"
    return f"{name} {back}" if told is None else f"{name} has moved on to {short(head)}"


def on_push(push: Push, known: Known) -> list[Decision]:
    """What a push to a branch or tag asks for."""
    repository, name, tag, head_sha = push.repository, push.name, push.tag is not None, push.head_sha
    kind = ref_kind(push)
    if push.deleted:
        return [EndClaims(kind, push.ref, why=f"{'tag' if tag else 'branch'} {name} was deleted")]
    lasting = push.branch == repository.default_branch
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
    superseded = EndClaims(ClaimKind.PULL_REQUEST, key, f"superseded by {short(event.head_sha)}", event.head_sha)
    if event.is_fork and known.approver is None:
        return [superseded, *_waiting(event, known)]
    claim = Claim(ClaimKind.PULL_REQUEST, key)
    branches = {event.base_ref} if event.is_fork else {event.base_ref, event.head_ref}

    def matches(experiment: ConfiguredExperiment) -> bool:
        return any(experiment.triggers.matches_merge(branch) for branch in branches)

    wanted = _wanted(known, claim, matches, tested=f"base branch {event.base_ref}", trusted=not event.is_fork)
    return [superseded, *wanted]


def on_merge_group(event: MergeGroup, known: Known) -> list[Decision]:
    """What a merge queue asks for: the group's commit, tested as its base branch would be."""
    if event.action == "destroyed":
        # The next group of the same pull requests may have the same name, and be known already.
        why = "the merge group is gone"
        return [EndClaims(ClaimKind.MERGE_GROUP, event.head_ref, why, only_sha=event.head_sha)]
    base = event.base_ref.removeprefix("refs/heads/")

    def matches(experiment: ConfiguredExperiment) -> bool:
        return experiment.triggers.matches_merge(base)

    claim = Claim(ClaimKind.MERGE_GROUP, event.head_ref)
    return list(_wanted(known, claim, matches, tested=f"base branch {base}")) or [
        Nothing("the commit has no configuration file")
    ]


def on_approval(head_sha: str, number: int, approver: str, known: Known) -> list[Decision]:
    """What an approved fork's commit starts: the base branch's experiments on the fork's code."""
    claim = Claim(ClaimKind.PULL_REQUEST, str(number))
    return [Approve(head_sha, approver), *_wanted(known, claim, lambda _: True, trusted=False)]


def on_rerun(check: str | None, sender: str, known: Known, *, fork: bool, at: float) -> list[Decision]:
    """What "Re-run" starts: each named experiment again once it has ended, whatever the filters say.

    Args:
        check: the check run's name, as GitHub shows it; None for all of the commit.
        sender: the login of the person, who may write.
        known: `existing` holds the newest experiment of each name.
        fork: the commit comes from a fork.
        at: when it was asked for, which may be long ago.
    """
    if fork and known.approver is None:
        return [Nothing("a fork's commit starts only when it is approved")]
    if known.read is None:
        return [Nothing("the commit has no configuration file")]
    if not known.read.configuration.ok:
        return [ReportProblems(known.commit.head_sha, known.read, trusted=not fork)]
    found = [each for each in known.read.configuration.experiments if _shows(check, each.specification.name)]
    if not found:
        return [Nothing(f"the configuration has no experiment for the check run {check}")]
    existing = {each.name: each for each in known.existing}
    decisions: list[Decision] = [ReportFine(known.commit.head_sha, known.read, trusted=not fork)]
    for experiment in found:
        newest = existing.get(experiment.specification.name)
        if newest and (refusal := _refusal(newest, sender, at)):
            decisions.append(refusal)
        else:
            rerun = newest.rerun + 1 if newest else 0
            claim = Claim(ClaimKind.RERUN, sender)
            decisions.append(_start(known, experiment, claim, rerun=rerun, trusted=not fork))
    return decisions


def _shows(check: str | None, name: str) -> bool:
    """Whether a check run is an experiment's; spaces are GitHub's and ours to squeeze."""
    return check is None or check.split() == check_run_name(name).split()


def _refusal(newest: Experiment, sender: str, at: float) -> Decision | None:
    begun = at - newest.created_at < (SAME_CLICK_S if newest.rerun else 0.0)  # by this click, or since
    if newest.ended_at is None and not begun:
        return RefuseRerun(newest.id, newest.name, sender, at)
    if newest.ended_at is None:
        return Nothing(f"{newest.name} has not ended yet: it was started just now")
    return Nothing(f"{newest.name} was re-run just now") if begun else None


def rerun_number(start: Start, newest: Experiment | None) -> int:
    """Which run of its name at its commit this is: one whose claims had all ended is wanted afresh.

    A branch pushed back to an older commit, or a pull request that is reopened, finds its experiment cancelled.
    """
    if newest and start.trusted and not newest.trusted:
        return newest.rerun + 1  # what ran for a fork's pull request says nothing of the same commit in the repository
    if start.claim.kind is not ClaimKind.RERUN and newest and newest.wish and newest.wish.by == DESCENT:
        return newest.rerun + 1
    return start.rerun if start.claim.kind is ClaimKind.RERUN or newest is None else newest.rerun


def ref_kind(push: Push) -> ClaimKind:
    """What a push's claim is of."""
    return ClaimKind.BRANCH if push.tag is None else ClaimKind.TAG


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
