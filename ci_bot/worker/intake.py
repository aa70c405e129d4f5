"""The intake loop: deliveries into decisions, each in the one transaction that also says "processed"."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import structlog
from sqlalchemy import Connection

from ci_bot import config, decide
from ci_bot.decide import Commit, Decision, Known, Nothing, Read
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
    parse,
)
from ci_bot.github.client import GitHub
from ci_bot.github.errors import Forbidden, GitHubError, Gone, RateLimited, Rejected, TooLarge
from ci_bot.records import ClaimKind, Repository, Wish
from ci_bot.store import approvals, check_runs, claims, deliveries, experiments, repositories
from ci_bot.store.deliveries import Delivery
from ci_bot.store.engine import LeaseLost
from ci_bot.worker.apply import TRUSTED, apply
from ci_bot.worker.books import Books
from ci_bot.worker.waiting import any_of

PASS_S = 1.0
MISSED_S = 6 * 3600.0
MAX_WAIT_S = 60.0
MAX_FILE_BYTES = 1 << 20
ZEROS = "0" * 40
LAG_S = 10.0
"""A delivery that is younger is not dropped for what GitHub's API does not know (any more)."""
LAG_PAUSE_S = 2.0
log = structlog.get_logger()


class MovedOn(Exception):
    """The branch or pull request has another head than the event says; why nothing is done then."""


@dataclass
class Intake:
    """Takes up what was received and not processed; in order for each repository, side by side for several."""

    books: Books
    github: GitHub
    app_id: int
    app_slug: str
    """Names our own bot, whose pushes are not fed back in; asked of GitHub where set-up did not write it down."""
    changed: Callable[[], None]
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    processed: int = 0

    async def run(self, stop: asyncio.Event) -> None:
        """Pass after pass until told to stop."""
        while not stop.is_set():
            self.wake.clear()
            await self._learn_slug()
            if not await self.step():
                await any_of(self.wake, stop, limit_s=PASS_S)

    async def _learn_slug(self) -> None:
        if self.app_slug:
            return
        try:
            self.app_slug = (await self.github.app()).slug
        except GitHubError as error:
            log.warning("the App's name could not be asked", why=str(error))

    async def step(self) -> bool:
        """One pass; True if there may be more to do at once."""
        pending = await self.books.read(lambda c: deliveries.pending(c, time.time()))
        lanes: dict[int, list[tuple[Delivery, Event]]] = defaultdict(list)
        for delivery in pending:
            event = parse(delivery.event, delivery.body, app_id=self.app_id, app_slug=self.app_slug)
            repository = getattr(event, "repository", None)
            lanes[repository.id if repository else 0].append((delivery, event))
        done = await asyncio.gather(*(self._lane(lane) for lane in lanes.values()))
        return bool(pending) and all(done)

    async def _lane(self, lane: Iterable[tuple[Delivery, Event]]) -> bool:
        for delivery, event in lane:
            if not await self._process(delivery, event):
                return False  # what came later waits behind it
        return True

    async def _process(self, delivery: Delivery, event: Event) -> bool:
        bound = log.bind(delivery_id=delivery.guid, github_event=delivery.event)
        try:
            decisions = await self._decide(delivery, event)
        except (Gone, MovedOn) as error:
            # GitHub answers from copies that lag behind what its webhooks tell.
            if time.time() - delivery.received_at < LAG_S:
                why, until = f"asked again, GitHub may lag behind: {error}", time.time() + LAG_PAUSE_S
                await self.books.write(lambda c: deliveries.postpone(c, delivery.seq, until, why))
                return False
            decisions = [Nothing(str(error) if isinstance(error, MovedOn) else f"gone: {error}")]
        except GitHubError as error:
            until = (
                error.until
                if isinstance(error, RateLimited)
                else time.time() + min(2.0 ** min(delivery.tries, 6), MAX_WAIT_S)
            )
            why = str(error)
            if isinstance(error, Forbidden | Rejected) and time.time() - delivery.received_at > MISSED_S:
                await self.books.write(lambda c: deliveries.processed(c, delivery.seq, f"given up: {why}", time.time()))
                return True
            bound.warning("put off: github can't be asked", why=why, until=until)
            await self.books.write(lambda c: deliveries.postpone(c, delivery.seq, until, why))
            return False
        except LeaseLost:
            raise
        except Exception as error:
            # A delivery that we can't digest must neither be lost nor stop the ones behind it.
            until = time.time() + min(2.0 ** min(delivery.tries, 12), 3600.0)
            why = f"a defect of Descent's: {error!r}"
            bound.exception("put off: this is a defect of Descent's")
            await self.books.write(lambda c: deliveries.postpone(c, delivery.seq, until, why))
            return True
        outcome = "; ".join(sorted({describe(decision) for decision in decisions}))[:2000]
        repository = getattr(event, "repository", None)

        def commit(connection: Connection) -> None:
            if deliveries.processed(connection, delivery.seq, outcome, time.time()):
                apply(connection, known_repository(repository) if repository else None, decisions, time.time())
                forget(connection, event, time.time())

        await self.books.write(commit)
        if isinstance(event, InstallationChanged | RepositoriesChanged):
            self.github.drop_installation(event.installation_id)
        bound.info("processed", repository=getattr(repository, "full_name", None), outcome=outcome)
        self.processed += 1
        self.changed()
        return True

    async def _decide(self, delivery: Delivery, event: Event) -> list[Decision]:
        missed = delivery.source == "recovered" and time.time() - delivery.received_at > MISSED_S
        match event:
            case Push():
                return await self._push(event, missed, late=delivery.tries > 0 or delivery.source == "recovered")
            case PullRequest():
                return await self._pull_request(event, missed)
            case MergeGroup():
                return await self._merge_group(event, missed)
            case CheckRunAction() | CheckRunRerequested() | CheckSuiteRerequested() if missed:
                return [Nothing("a button that was pressed too long ago: press it again")]
            case CheckRunAction():
                return await self._action(event)
            case CheckRunRerequested():
                return await self._rerun(event, event.name)
            case CheckSuiteRerequested():
                return await self._rerun(event, None)
            case InstallationChanged() | RepositoriesChanged():
                return [Nothing("the installation changed")]
            case Ping():
                return [Nothing(f"ping: {event.zen}")]
            case Ignored():
                return [Nothing(event.reason)]

    # --- what each event needs to know ---

    async def _push(self, event: Push, missed: bool, late: bool) -> list[Decision]:
        if event.deleted:
            return decide.on_push(event, Known(Commit(ZEROS, event.ref, ""), None))
        repository = known_repository(event.repository)
        current = None
        if event.branch and event.branch != repository.default_branch:
            rows = await self.books.read(
                lambda c: claims.open_for(c, repository.id, ClaimKind.BRANCH, event.ref),
            )
            if late or any(sha != event.head_sha for _, sha in rows):
                current = await self.github.branch_head(repository, event.branch)
                if current is None:
                    raise MovedOn(f"{event.branch} is gone")
        if current not in {None, event.head_sha}:
            raise MovedOn(f"{event.branch} has moved on to {decide.short(current or '')}")
        read = await self.read(repository, event.head_sha)
        known = Known(Commit(event.head_sha, event.ref, event.message), read, current, missed)
        return decide.on_push(event, known)

    async def _pull_request(self, event: PullRequest, missed: bool) -> list[Decision]:
        repository = known_repository(event.repository)
        ref = f"refs/pull/{event.number}/head"
        if event.action == "closed":
            return decide.on_pull_request(event, Known(Commit(event.head_sha, ref, ""), None))
        now = await self.github.pull_request(repository, event.number)
        if not now.is_open:
            raise MovedOn(f"pull request #{event.number} is closed by now")
        if now.head_sha != event.head_sha:
            raise MovedOn(f"pull request #{event.number} has moved on to {decide.short(now.head_sha)}")
        commit = await self.github.commit(repository, event.head_sha)
        approval = await self.books.read(lambda c: approvals.approval(c, repository.id, event.head_sha))
        known = Known(
            Commit(event.head_sha, ref, commit.message),
            await self.read(repository, event.base_sha if event.is_fork else event.head_sha),
            current_head=now.head_sha,
            missed=missed,
            approver=approval.approver if approval else None,
        )
        return decide.on_pull_request(event, known)

    async def _merge_group(self, event: MergeGroup, missed: bool) -> list[Decision]:
        repository = known_repository(event.repository)
        if event.action == "destroyed":
            return decide.on_merge_group(event, Known(Commit(event.head_sha, event.head_ref, ""), None))
        commit = await self.github.commit(repository, event.head_sha)
        read = await self.read(repository, event.head_sha)
        known = Known(Commit(event.head_sha, event.head_ref, commit.message), read, missed=missed)
        return decide.on_merge_group(event, known)

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
            return await self._approve(repository, event.head_sha, event.sender.login)
        return [Nothing(f"the button {event.identifier!r} is not one of ours")]

    async def _approve(self, repository: Repository, head_sha: str, approver: str) -> list[Decision]:
        pulls = await self.github.pulls_for_commit(repository, head_sha)
        pull = next((each for each in pulls if each.is_open and each.head_sha == head_sha), None)
        if pull is None:
            return [Nothing("no open pull request has this commit as its head any more")]
        known = await self._fork_commit(repository, pull.number, head_sha, pull.base_sha)
        return decide.on_approval(head_sha, pull.number, approver, known)

    async def _fork_commit(self, repository: Repository, number: int, head_sha: str, base_sha: str) -> Known:
        commit = await self.github.commit(repository, head_sha)
        approval = await self.books.read(lambda c: approvals.approval(c, repository.id, head_sha))
        return Known(
            Commit(head_sha, f"refs/pull/{number}/head", commit.message),
            await self.read(repository, base_sha),
            approver=approval.approver if approval else None,
        )

    async def _rerun(self, event: CheckRunRerequested | CheckSuiteRerequested, check: str | None) -> list[Decision]:
        repository, head_sha = known_repository(event.repository), event.head_sha
        if refusal := await self._refusal(repository, event.sender.login):
            return [refusal]
        return await self.rerun(repository, head_sha, check, event.sender.login)

    async def rerun(self, repository: Repository, head_sha: str, check: str | None, who: str) -> list[Decision]:
        """What a re-run of one check, or of all of a commit, starts; `who` was found to have write permission."""
        existing = await self.books.read(lambda c: experiments.at_commit(c, repository.id, head_sha))
        shown = await self.books.read(lambda c: check_runs.at_commit(c, repository.id, head_sha))
        # Whatever is not known to have been pushed to this repository is taken for a fork's: GitHub serves those alike.
        pushed = any(each.trusted for each in existing) or any(row.wanted.external_id == TRUSTED for row in shown)
        fork = not pushed
        if fork:
            pulls = await self.github.pulls_for_commit(repository, head_sha)
            pull = next((each for each in pulls if each.head_sha == head_sha), None)
            if pull is None:
                return [Nothing("nothing shows that it was pushed here, and no pull request has it as its head")]
            known = await self._fork_commit(repository, pull.number, head_sha, pull.base_sha)
        else:
            commit = await self.github.commit(repository, head_sha)
            ref = existing[0].ref if existing else f"refs/heads/{repository.default_branch}"
            read = await self.read(repository, head_sha)
            known = Known(Commit(head_sha, ref, commit.message), read)
        known = Known(known.commit, known.read, approver=known.approver, existing=existing)
        name = check.removeprefix("descent/") if check and check != "descent/config" else None
        return decide.on_rerun(name, who, known, fork=fork, now=time.time())

    async def _refusal(self, repository: Repository, login: str) -> Nothing | None:
        role = await self.github.permission(repository, login)
        if role.can_write:
            return None
        return Nothing(f"{login} may not: that needs write permission, GitHub says {role}")

    async def _file(self, repository: Repository, path: str, sha: str) -> bytes | None:
        """A file; of one that is too large just enough for the parser to say so."""
        try:
            return await self.github.read_file(repository, path, sha, MAX_FILE_BYTES)
        except TooLarge:
            return b"#" * MAX_FILE_BYTES

    def _reader(self, repository: Repository, sha: str) -> Callable[[str], bytes | None]:
        """Reads a parameters file for the parser, which runs in a thread."""
        loop = asyncio.get_running_loop()

        def read_params(path: str) -> bytes | None:
            reading = self._file(repository, path, sha)
            return asyncio.run_coroutine_threadsafe(reading, loop).result()

        return read_params

    async def read(self, repository: Repository, sha: str) -> Read | None:
        """The configuration file at a commit: one look at the root, then one file."""
        root = await self.github.root_tree(repository, sha)
        for path in config.SEARCH_ORDER:
            if path.split("/", 1)[0] not in root:
                continue
            source = await self._file(repository, path, sha)
            if source is None or (path == config.BARE and not config.is_ours(source)):
                continue
            parsed = await asyncio.to_thread(
                config.parse,
                source,
                path=path,
                repository_name=repository.full_name.split("/", 1)[1],
                read_params=self._reader(repository, sha),
            )
            return Read(path, source.decode("utf-8", "replace"), parsed, sha)
        return None


def known_repository(ref: RepositoryRef) -> Repository:
    """The repository of an event, as we remember it."""
    return Repository(ref.id, ref.installation_id, ref.full_name, ref.default_branch, ref.private)


def forget(connection: Connection, event: Event, at: float) -> None:
    """A removed installation or repository is a wish to cancel what it wanted."""
    gone: list[int] = []
    if isinstance(event, InstallationChanged) and event.gone:
        gone = [each.id for each in repositories.by_installation(connection, event.installation_id)]
    elif isinstance(event, RepositoriesChanged):
        gone = [each.id for each in event.removed]
    for repository_id in gone:
        repositories.removed(connection, repository_id, at)
    for experiment in experiments.unfinished(connection) if gone else ():
        if experiment.repository_id in gone:
            why = "the App was removed from the repository"
            experiments.wish(connection, experiment.id, Wish(decide.DESCENT, why, at))


def describe(decision: Decision) -> str:
    """A decision in a few words, for the log and the delivery's row."""
    match decision:
        case Nothing(why=why):
            return why
        case decide.Start(specification=specification, head_sha=head_sha):
            return f"start {specification.name} at {decide.short(head_sha)}"
        case decide.EndClaims(kind=kind, key=key, why=why):
            return f"end claims of {kind} {key}: {why}"
        case decide.Cancel(experiment_id=experiment_id):
            return f"cancel experiment {experiment_id}"
        case _:
            return type(decision).__name__
