"""The intake loop: deliveries into decisions, each in the one transaction that also says "processed"."""

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import structlog
from sqlalchemy import Connection

from ci_bot import decide
from ci_bot.decide import Decision, Nothing
from ci_bot.events import Event, Ignored, InstallationChanged, RepositoriesChanged, parse
from ci_bot.github.client import GitHub
from ci_bot.github.errors import Forbidden, GitHubError, Gone, RateLimited, Rejected
from ci_bot.records import Wish
from ci_bot.store import check_runs, deliveries, experiments, repositories
from ci_bot.store.deliveries import Delivery
from ci_bot.store.engine import LeaseLost
from ci_bot.worker.apply import apply
from ci_bot.worker.books import Books
from ci_bot.worker.inquiry import MISSED_S, Inquiry, Overtaken, known_repository
from ci_bot.worker.waiting import any_of

PASS_S = 1.0
MAX_WAIT_S = 60.0
ASIDE_S = 10.0
"""What a lane waits after a delivery that has held it up long enough, since it may be the repository after all."""
MAX_DEFECT_WAIT_S = 3600.0
MAX_NAME_WAIT_S = 3600.0
GONE_S = 120.0
"""A delivery that is younger is not dropped for what GitHub's API does not know (any more)."""
OVERTAKEN_S = 30.0
"""Nor one that is younger than this for a former head."""
MAX_LAG_PAUSE_S = 15.0
AT_ONCE = 16
"""Deliveries that are acted on at the same time."""
log = structlog.get_logger()


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
    now: Callable[[], float] = time.time
    busy: dict[int, asyncio.Task[None]] = field(default_factory=dict)
    """The lanes in which something is being done; one for each repository."""
    _held: dict[int, float] = field(default_factory=dict)
    """Lanes that wait for their first delivery, and until when."""

    def __post_init__(self) -> None:
        """Nothing is asked yet."""
        self.inquiry = Inquiry(self.books, self.github)
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def run(self, stop: asyncio.Event) -> None:
        """Pass after pass until told to stop; what is not done by then is done by the next worker."""
        learning = asyncio.create_task(self._learn_slug(stop))
        try:
            while not stop.is_set():
                self.wake.clear()
                if not await self.step():
                    await any_of(self.wake, stop, limit_s=PASS_S)
        finally:
            tasks = [learning, *self.busy.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _learn_slug(self, stop: asyncio.Event) -> None:
        pause_s = PASS_S
        while not self.app_slug and not stop.is_set():
            try:
                self.app_slug = (await self.github.app()).slug
            except GitHubError as error:
                log.warning("the App's name could not be asked", why=str(error), wait_s=pause_s)
            if not self.app_slug:
                await any_of(stop, limit_s=pause_s)
                pause_s = min(pause_s * 2, MAX_NAME_WAIT_S)

    async def step(self) -> bool:
        """One pass: what is new into its lane, and every lane that has something to do set off.

        Returns:
            True if there may be more to do at once.
        """
        for lane in [lane for lane, task in self.busy.items() if task.done()]:
            self.busy.pop(lane).result()
        now = self.now()
        fresh, due = await self.books.read(lambda c: (deliveries.unsorted(c, now), deliveries.lanes(c, now)))
        if fresh:
            due = await self._sort(fresh, now)
        self._held = {lane: until for lane, until in self._held.items() if until > now}
        for lane in due:
            if lane not in self.busy and lane not in self._held:
                self.busy[lane] = asyncio.create_task(self._lane(lane))
                self.busy[lane].add_done_callback(lambda _: self.wake.set())
        return bool(fresh)

    async def _sort(self, fresh: list[Delivery], now: float) -> list[int]:
        """Put what is new into its lane, unless it leads nowhere; the lanes that have something to do then."""
        lanes: dict[int, int] = {}
        ignored: list[tuple[Delivery, str]] = []
        for delivery in fresh:
            try:
                event = self._parse(delivery)
                lane = _lane_of(event)
            except Exception as error:
                await self._put_off_as_defect(delivery, error)
            else:
                if isinstance(event, Ignored):
                    ignored.append((delivery, _outcome([Nothing(event.reason)])))
                else:
                    lanes[delivery.seq] = lane

        def sort(connection: Connection) -> list[int]:
            if lanes:
                deliveries.sort(connection, lanes)
            for delivery, outcome in ignored:
                deliveries.processed(connection, delivery.seq, outcome, self.now())
            return deliveries.lanes(connection, now)

        due = await self.books.write(sort)
        for delivery, outcome in ignored:
            self._tell_processed(delivery, None, outcome)
        return due

    def _parse(self, delivery: Delivery) -> Event:
        return parse(delivery.event, delivery.body, app_id=self.app_id, app_slug=self.app_slug)

    async def _lane(self, lane: int) -> None:
        """Act on a lane's deliveries one after the other, as long as none holds up those behind it."""
        while lane not in self._held:
            async with self._turns:  # which come round: a long lane takes no more of them than a short one
                delivery = await self.books.read(lambda c: deliveries.next_in(c, lane, self.now()))
                if delivery is None:
                    return
                if hold_s := await self._process(delivery):
                    self._held[lane] = self.now() + hold_s

    async def _process(self, delivery: Delivery) -> float:
        """Act on a delivery, or put it off; gives for how many seconds what came later should wait behind it."""
        try:
            event = self._parse(delivery)
            await self._settle(delivery, event, await self._decisions(delivery, event))
        except (Gone, Overtaken) as error:
            wait_s = min(_backoff_s(delivery), MAX_LAG_PAUSE_S)
            await self._put_off(delivery, wait_s, f"asked again, GitHub may lag behind: {error}")
        except GitHubError as error:
            limited = isinstance(error, RateLimited)
            wait_s = max(error.until - self.now(), 1.0) if isinstance(error, RateLimited) else _backoff_s(delivery)
            bound = log.bind(delivery_id=delivery.guid, github_event=delivery.event)
            bound.warning("put off: github can't be asked", why=str(error), wait_s=wait_s)
            await self._put_off(delivery, wait_s, str(error))
            return wait_s if limited or delivery.tries < deliveries.PATIENT_TRIES else ASIDE_S
        except LeaseLost:
            raise
        except Exception as error:  # where the database itself is away, putting it off fails too
            await self._put_off_as_defect(delivery, error)
        return 0.0

    async def _decisions(self, delivery: Delivery, event: Event) -> list[Decision]:
        """What a delivery leads to; nothing where GitHub has said for long enough that it leads nowhere."""
        age_s = self.now() - delivery.received_at
        try:
            return await self.inquiry.decide(delivery, event)
        except Gone as error:
            # GitHub answers from copies that lag behind what its webhooks tell.
            if age_s < GONE_S:
                raise
            return [Nothing(f"gone: {error}")]
        except Overtaken as error:
            if age_s < OVERTAKEN_S:
                raise
            return [Nothing(f"overtaken: {error}")]
        except (Forbidden, Rejected) as error:
            if age_s <= MISSED_S:
                raise
            return [Nothing(f"given up: {error}")]

    async def _put_off_as_defect(self, delivery: Delivery, error: Exception) -> None:
        """A delivery that we can't digest must neither be lost nor stop the ones behind it."""
        log.error("put off: this is a defect of Descent's", delivery_id=delivery.guid, exc_info=error)
        wait_s = min(2.0 ** min(delivery.tries, 12), MAX_DEFECT_WAIT_S)
        await self._put_off(delivery, wait_s, f"a defect of Descent's: {error!r}")

    async def _put_off(self, delivery: Delivery, wait_s: float, why: str) -> None:
        until = self.now() + wait_s
        await self.books.write(lambda c: deliveries.postpone(c, delivery.seq, until, why))

    async def _settle(self, delivery: Delivery, event: Event, decisions: list[Decision]) -> None:
        """Write the decisions and that the delivery is done, in one transaction."""
        outcome = _outcome(decisions)
        repository = getattr(event, "repository", None)

        def commit(connection: Connection) -> None:
            at = self.now()
            if deliveries.processed(connection, delivery.seq, outcome, at):
                apply(connection, known_repository(repository) if repository else None, decisions, at)
                forget(connection, decisions, at)
                welcome(connection, decisions)

        await self.books.write(commit)
        if repository:
            self.inquiry.remember(repository, decisions)
        if isinstance(event, InstallationChanged | RepositoriesChanged):
            self.github.drop_installation(event.installation_id)
        self._tell_processed(delivery, getattr(repository, "full_name", None), outcome)
        if not all(isinstance(decision, Nothing) for decision in decisions):
            self.changed()

    def _tell_processed(self, delivery: Delivery, repository: str | None, outcome: str) -> None:
        log.info(
            "processed",
            delivery_id=delivery.guid,
            github_event=delivery.event,
            repository=repository,
            outcome=outcome,
        )
        self.processed += 1


def _outcome(decisions: Iterable[Decision]) -> str:
    """What came of a delivery, as its row and the log say it."""
    return "; ".join(sorted({describe(decision) for decision in decisions}))[:2000]


def _lane_of(event: Event) -> int:
    """Repositories wait for themselves alone, and so do installations."""
    if repository := getattr(event, "repository", None):
        return int(repository.id)
    return -int(getattr(event, "installation_id", 0))


def _backoff_s(delivery: Delivery) -> float:
    return min(2.0 ** min(delivery.tries, 6), MAX_WAIT_S)


def forget(connection: Connection, decisions: Iterable[Decision], at: float) -> None:
    """A removed installation or repository is a wish to cancel what it wanted."""
    forgotten = (each.repository_ids for each in decisions if isinstance(each, decide.Forget))
    gone = {each for repository_ids in forgotten for each in repository_ids}
    for repository_id in gone:
        repositories.removed(connection, repository_id, at)
    for experiment in experiments.unfinished(connection) if gone else ():
        if experiment.repository_id in gone:
            why = "the App was removed from the repository, or suspended"
            experiments.wish(connection, experiment.id, Wish(decide.DESCENT, why, at))


def welcome(connection: Connection, decisions: Iterable[Decision]) -> None:
    """A repository that is back gets what could not be delivered meanwhile."""
    for decision in decisions:
        for repository in decision.repositories if isinstance(decision, decide.Welcome) else ():
            repositories.remember(connection, repository)
            check_runs.revive(connection, repository.id)


def describe(decision: Decision) -> str:
    """A decision in a few words, for the log and the delivery's row."""
    match decision:
        case Nothing(why=why):
            return why
        case decide.RefuseRerun(why=why, by=by):
            return f"re-run refused to {by}: {why}"
        case decide.Start(specification=specification, head_sha=head_sha):
            return f"start {specification.name} at {decide.short(head_sha)}"
        case decide.EndClaims(kind=kind, key=key, why=why):
            return f"end claims of {kind} {key}: {why}"
        case decide.Forget(repository_ids=repository_ids):
            return f"forget {len(repository_ids)} repositories"
        case decide.Welcome(repositories=there):
            return f"{len(there)} repositories are there again"
        case decide.Cancel(experiment_id=experiment_id):
            return f"cancel experiment {experiment_id}"
        case _:
            return type(decision).__name__
