"""What each event needs to know, asked of GitHub and the store; `decide` then says what it leads to."""

import time
from collections.abc import Iterable
from dataclasses import replace

from ci_bot import decide
from ci_bot.decide import Commit, Decision, EndClaims, Forget, Known, Nothing, Start, Welcome
from ci_bot.events import (
    CheckRunAction,
    CheckRunRerequested,
    CheckSuiteRerequested,
    Event,
    Ignored,
    InstallationChanged,
    MergeGroup,
    Ping,
    PullRequest,
    Push,
    RepositoriesChanged,
    RepositoryRef,
)
from ci_bot.github.client import GitHub
from ci_bot.github.errors import Forbidden, Gone
from ci_bot.records import ClaimKind, Repository
from ci_bot.report.other_checks import CONFIGURATION_NAME
from ci_bot.store import approvals, check_runs, claims, experiments, repositories
from ci_bot.store.deliveries import Delivery
from ci_bot.worker.apply import TRUSTED
from ci_bot.worker.books import Books
from ci_bot.worker.configuration import read_configuration

MISSED_S = 6 * 3600.0
LAG_S = 10.0
"""An installation that is told to have a repository that GitHub does not list is asked again for so long."""
MOST_HEARD = 10_000
ZEROS = "0" * 40


class Overtaken(Exception):
    """GitHub shows otherwise by now what the event tells of; why nothing is done then."""


class Inquiry:
    """Turns a delivery into decisions; writes nothing.

    What a push, or the end of anything, tells is asked of GitHub again before it ends or starts what it should not if
    it came late or out of order. A push to the default branch, each of whose commits runs, stays at two reads; so does
    one that starts nothing, or that makes a branch or tag of which nothing was heard.
    """

    def __init__(self, books: Books, github: GitHub) -> None:
        self.books = books
        self.github = github
        self._heard: dict[tuple[int, ClaimKind, str], None] = {}
        """The branches and tags that were pushed to or ended lately, and the merge groups that ended, the oldest first:
        what comes now may have come before, since webhooks may change places. A hint, which a restart loses; what is
        late by our own doing is known from its row."""

    async def decide(self, delivery: Delivery, event: Event) -> list[Decision]:
        """What a delivery leads to.

        Raises:
            Overtaken: nothing, unless GitHub's API is behind its webhooks.
            GitHubError: GitHub could not be asked.
        """
        recovered = delivery.source == "recovered"
        missed = recovered and time.time() - delivery.received_at > MISSED_S
        late = recovered or delivery.tries > 0
        match event:
            case Push():
                return await self._push(event, missed, late)
            case PullRequest():
                return await self._pull_request(event, missed)
            case MergeGroup():
                return await self._merge_group(event, missed, late)
            case CheckRunAction() | CheckRunRerequested() | CheckSuiteRerequested() if missed:
                return [Nothing("a button that was pressed too long ago: press it again")]
            case CheckRunAction():
                return await self._action(event)
            case CheckRunRerequested() | CheckSuiteRerequested():
                return await self._rerun(event, delivery.received_at)
            case InstallationChanged() | RepositoriesChanged():
                if returned := await self._returned(event, delivery.received_at):
                    return [Welcome(returned)]
                return await self._installation(event)
            case Ping():
                return [Nothing(f"ping: {event.zen}")]
            case Ignored():
                return [Nothing(event.reason)]

    def remember(self, repository: RepositoryRef, decisions: Iterable[Decision]) -> None:
        """What was done about a repository: of which branches, tags and merge groups something was heard."""
        for decision in decisions:
            if isinstance(decision, EndClaims) and decision.kind is not ClaimKind.PULL_REQUEST:
                self._heard[repository.id, decision.kind, decision.key] = None
                if len(self._heard) > MOST_HEARD:
                    del self._heard[next(iter(self._heard))]

    async def _installation(self, event: InstallationChanged | RepositoriesChanged) -> list[Decision]:
        """Which repositories are gone: those that were told so, and that GitHub does not show now either."""
        told = await self.books.read(lambda c: repositories.by_installation(c, event.installation_id))
        if isinstance(event, RepositoriesChanged):
            removed = {each.id for each in event.removed}
            told = [each for each in told if each.id in removed]
        elif not event.gone:
            told = []
        if not told:
            return [Nothing("the installation changed")]
        try:
            there = {each.id for each in await self.github.installation_repositories(event.installation_id)}
        except (Gone, Forbidden):  # it was removed, or is suspended
            there = set()
        if gone := tuple(each.id for each in told if each.id not in there):
            return [Forget(gone)]
        raise Overtaken(f"the App is on {told[0].full_name} again")

    async def _returned(
        self, event: InstallationChanged | RepositoriesChanged, received_at: float
    ) -> tuple[Repository, ...]:
        """Which of the repositories that we know an installation brings back, as GitHub lists them now."""
        if isinstance(event, InstallationChanged) and event.gone:
            return ()
        known = await self.books.read(repositories.installations)
        added = event.added if isinstance(event, RepositoriesChanged) else event.repositories
        told = {each.id for each in added} & known.keys()
        its_own = {each for each, through in known.items() if through == event.installation_id}
        looked_for = told | its_own if isinstance(event, InstallationChanged) else told
        if not looked_for:
            return ()
        listed = await self.github.installation_repositories(event.installation_id)
        there = tuple(each for each in listed if each.id in looked_for)
        if told - {each.id for each in there} and time.time() - received_at < LAG_S:
            raise Overtaken("GitHub does not list them all yet")
        return there

    # --- branches, tags, pull requests and merge groups ---

    async def _push(self, event: Push, missed: bool, late: bool) -> list[Decision]:
        repository, kind = known_repository(event.repository), decide.ref_kind(event)
        lasting = event.branch == repository.default_branch  # each of its commits runs, and none ends another
        wanted = set() if lasting else await self._wanted(repository, kind, event.ref)
        asked = bool(wanted - {event.head_sha}) or (late and not event.deleted and not lasting)
        if asked:
            await self._confirm(event, repository, event.ref)
        if event.deleted:
            return decide.on_push(event, Known(Commit(ZEROS, event.ref, ""), None))
        read = await read_configuration(self.github, repository, event.head_sha)
        decisions = decide.on_push(event, Known(Commit(event.head_sha, event.ref, event.message), read, missed))
        is_first = event.before == ZEROS and (repository.id, kind, event.ref) not in self._heard
        if any(isinstance(decision, Start) for decision in decisions) and not (asked or lasting or is_first):
            await self._confirm(event, repository, event.ref)
        return decisions

    async def _wanted(self, repository: Repository, kind: ClaimKind, key: str) -> set[str]:
        """The commits whose experiments a branch, tag or pull request claims."""
        return {sha for _, sha in await self.books.read(lambda c: claims.open_for(c, repository.id, kind, key))}

    async def _confirm(self, event: Push | MergeGroup, repository: Repository, ref: str) -> None:
        if why := decide.overtaken(event, await self.github.ref_head(repository, ref)):
            raise Overtaken(why)

    async def _pull_request(self, event: PullRequest, missed: bool) -> list[Decision]:
        repository = known_repository(event.repository)
        ref, closed = f"refs/pull/{event.number}/head", event.action == "closed"
        if not closed or await self._wanted(repository, ClaimKind.PULL_REQUEST, str(event.number)):
            now = await self.github.pull_request(repository, event.number)
            if why := decide.overtaken(event, now.head_sha if now.is_open else None):
                raise Overtaken(why)
        if closed:
            return decide.on_pull_request(event, Known(Commit(event.head_sha, ref, ""), None))
        configured_at = event.base_sha if event.is_fork else event.head_sha
        known = await self._commit(repository, Commit(event.head_sha, ref, ""), configured_at, missed)
        return decide.on_pull_request(event, known)

    async def _merge_group(self, event: MergeGroup, missed: bool, late: bool) -> list[Decision]:
        repository, commit = known_repository(event.repository), Commit(event.head_sha, event.head_ref, "")
        if event.action == "destroyed":  # of that very commit, which is not queued again: nothing alive can be meant
            return decide.on_merge_group(event, Known(commit, None))
        if late or (repository.id, ClaimKind.MERGE_GROUP, event.head_ref) in self._heard:
            await self._confirm(event, repository, event.head_ref)
        return decide.on_merge_group(event, await self._commit(repository, commit, event.head_sha, missed))

    async def _commit(self, repository: Repository, commit: Commit, configured_at: str, missed: bool = False) -> Known:
        """A commit whose message has to be asked for, with the configuration of the commit that decides."""
        message = (await self.github.commit(repository, commit.head_sha)).message
        approval = await self.books.read(lambda c: approvals.approval(c, repository.id, commit.head_sha))
        read = await read_configuration(self.github, repository, configured_at)
        approver = approval.approver if approval else None
        return Known(replace(commit, message=message), read, missed, approver)

    # --- buttons ---

    async def _action(self, event: CheckRunAction) -> list[Decision]:
        repository = known_repository(event.repository)
        if refusal := await self._refusal(repository, event.sender.login):
            return [refusal]
        if event.identifier == "cancel":
            # By our own id: GitHub's may not have reached us, whose answer to the check run's creation may be lost.
            own_id = int(event.external_id) if event.external_id.isdecimal() else 0
            experiment = await self.books.read(lambda c: experiments.get(c, own_id))
            if experiment is None or experiment.repository_id != repository.id:
                return [Nothing("the check run belongs to no experiment")]
            who = event.sender.login
            return [decide.Cancel(experiment.id, by=who, why=f"cancelled by {who}")]
        if event.identifier == "approve":
            return await self._approve(repository, event)
        return [Nothing(f"the button {event.identifier!r} is not one of ours")]

    async def _approve(self, repository: Repository, event: CheckRunAction) -> list[Decision]:
        pulls = await self.github.pulls_for_commit(repository, event.head_sha)
        pull = next((each for each in pulls if each.is_open and each.head_sha == event.head_sha), None)
        if pull is None:
            return [Nothing("no open pull request has this commit as its head any more")]
        commit = Commit(event.head_sha, f"refs/pull/{pull.number}/head", "")
        known = await self._commit(repository, commit, pull.base_sha)
        return decide.on_approval(event.name, pull.number, event.sender.login, known, base_ref=pull.base_ref)

    async def _rerun(self, event: CheckRunRerequested | CheckSuiteRerequested, at: float) -> list[Decision]:
        repository = known_repository(event.repository)
        if refusal := await self._refusal(repository, event.sender.login):
            return [refusal]
        check = event.name if isinstance(event, CheckRunRerequested) else None
        return await self._start_again(repository, event.head_sha, check, who=event.sender.login, at=at)

    async def _start_again(
        self, repository: Repository, head_sha: str, check: str | None, *, who: str, at: float
    ) -> list[Decision]:
        """What a re-run of one check, or of all of a commit, starts; `who` was found to have write permission."""
        existing = await self.books.read(lambda c: experiments.at_commit(c, repository.id, head_sha))
        shown = await self.books.read(lambda c: check_runs.at_commit(c, repository.id, head_sha))
        # Whatever is not known to have been pushed to this repository is taken for a fork's: GitHub serves those alike.
        pushed = any(each.trusted for each in existing) or any(row.wanted.external_id == TRUSTED for row in shown)
        ref, configured_at = existing[0].ref if existing else f"refs/heads/{repository.default_branch}", head_sha
        if not pushed:
            pulls = await self.github.pulls_for_commit(repository, head_sha)
            pull = next((each for each in pulls if each.head_sha == head_sha), None)
            if pull is None:
                return [Nothing("nothing shows that it was pushed here, and no pull request has it as its head")]
            ref, configured_at = f"refs/pull/{pull.number}/head", pull.base_sha
        known = await self._commit(repository, Commit(head_sha, ref, ""), configured_at)
        check = None if check == CONFIGURATION_NAME else check
        return decide.on_rerun(check, who, replace(known, existing=existing), fork=not pushed, at=at)

    async def _refusal(self, repository: Repository, login: str) -> Nothing | None:
        role = await self.github.permission(repository, login)
        if role.can_write:
            return None
        return Nothing(f"{login} may not: that needs write permission, GitHub says {role}")


def known_repository(ref: RepositoryRef) -> Repository:
    """The repository of an event, as we remember it."""
    return Repository(ref.id, ref.installation_id, ref.full_name, ref.default_branch, ref.private)
