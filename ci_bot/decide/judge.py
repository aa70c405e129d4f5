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
from ci_bot.records import DESCENT, Claim, ClaimKind, Experiment
from ci_bot.report.check_run import check_run_name
from ci_bot.report.other_checks import configuration_notes
from launcher.state import TERMINAL, State

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
    claim, tested = Claim(ClaimKind.PULL_REQUEST, key), f"base branch {event.base_ref}"
    branches = {event.base_ref} if event.is_fork else {event.base_ref, event.head_ref}

    def matches(experiment: ConfiguredExperiment) -> bool:
        return any(experiment.triggers.matches_merge(branch) for branch in branches)

    waits = event.number if event.is_fork and known.approver is None else None
    return [superseded, *_wanted(known, claim, matches, tested=tested, trusted=not event.is_fork, waits=waits)]


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
    return list(_wanted(known, claim, matches, tested=f"base branch {base}", asked=True)) or [
        Nothing("the commit has no configuration file")
    ]


def on_approval(check: str, number: int, approver: str, known: Known, *, base_ref: str) -> list[Decision]:
    """What an approved fork's commit starts: the base branch's experiments on the fork's code.

    Args:
        check: the name of the check run whose button was pressed; its experiment starts in any case.
        number: of the pull request.
        approver: the login of the person, who may write.
        known: the commit, which is the pull request's head.
        base_ref: the branch that the filters are tested against for the other experiments.
    """

    def matches(experiment: ConfiguredExperiment) -> bool:
        return _shows(check, experiment.specification.name) or experiment.triggers.matches_merge(base_ref)

    claim, tested = Claim(ClaimKind.PULL_REQUEST, str(number)), f"base branch {base_ref}"
    wanted = _wanted(known, claim, matches, tested=tested, trusted=False, asked=True)
    return [Approve(known.commit.head_sha, approver), *wanted]


def on_rerun(check: str | None, sender: str, known: Known, *, fork: bool, at: float) -> list[Decision]:
    """What "Re-run" starts: each named experiment again once it has ended, whatever the filters say.

    Of a fork's commit that nobody has approved it starts nothing: it shows the button that approves.

    Args:
        check: the check run's name, as GitHub shows it; None for all of the commit.
        sender: the login of the person, who may write.
        known: `existing` holds the newest experiment of each name.
        fork: the commit comes from a fork; its ref is the pull request's.
        at: when it was asked for, which may be long ago.
    """
    claim = Claim(ClaimKind.RERUN, sender)
    if fork and known.approver is None:
        number = int(known.commit.ref.split("/")[2])
        shown = _wanted(
            known, claim, lambda each: _shows(check, each.specification.name), trusted=False, asked=True, waits=number
        )
        return [Nothing("a fork's commit starts only when it is approved"), *shown]
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
    """Which run of its name at its commit this is: one that was cancelled when its claims had ended is wanted afresh.

    A branch pushed back to an older commit, or a pull request that is reopened, finds its experiment so.
    """
    if newest and start.trusted and not newest.trusted:
        return newest.rerun + 1  # what ran for a fork's pull request says nothing of the same commit in the repository
    if newest is None or start.claim.kind is ClaimKind.RERUN:
        return start.rerun
    return newest.rerun + 1 if _was_dropped(newest) else newest.rerun


def _was_dropped(newest: Experiment) -> bool:
    """Whether the end of its claims is what cancels it; by then it may have come to an end of its own."""
    if newest.wish is None or newest.wish.by != DESCENT:
        return False
    end = newest.state if newest.state in TERMINAL else newest.progress.intended
    return end in {State.CANCELLED, State.PENDING, None}


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
    asked: bool = False,
    waits: int | None = None,
) -> Iterator[Decision]:
    """Starts, or what is said in their place.

    Args:
        known: the commit.
        claim: what wants them.
        matches: which are wanted.
        tested: against what; given where a check must be concluded in any case.
        trusted: the commit was pushed to the repository itself.
        asked: this very commit is asked for, by a person or by a merge queue, which takes a neutral check for a test
            that was passed: neither its message nor its age counts.
        waits: the fork's pull request whose commit nobody has approved yet.
    """
    read, head_sha = known.read, known.commit.head_sha
    if read is None:
        return
    if not read.configuration.ok:
        yield ReportProblems(head_sha, read, trusted)
        return
    yield ReportFine(head_sha, read, trusted)
    skip = None if asked else skip_requested(known.commit.message)
    for experiment in read.configuration.experiments:
        name = experiment.specification.name
        if not matches(experiment):
            if tested:
                yield ReportNotMatching(head_sha, name, tested, trusted)
        elif skip:
            yield ReportSkipped(head_sha, name, skip, trusted)
        elif waits is not None:
            yield ReportWaiting(head_sha, name, waits, read)
        elif known.missed and not asked:
            yield ReportMissed(head_sha, name, trusted)
        else:
            yield _start(known, experiment, claim, trusted=trusted)


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
