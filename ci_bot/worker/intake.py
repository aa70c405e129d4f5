"""The intake loop: deliveries into decisions, each in the one transaction that also says "processed"."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import structlog
from sqlalchemy import Connection

from ci_bot import decide
from ci_bot.decide import Decision, Nothing
from ci_bot.events import Event, InstallationChanged, RepositoriesChanged, parse
from ci_bot.github.client import GitHub
from ci_bot.github.errors import Forbidden, GitHubError, Gone, RateLimited, Rejected
from ci_bot.records import Wish
from ci_bot.store import deliveries, experiments, repositories
from ci_bot.store.deliveries import Delivery
from ci_bot.store.engine import LeaseLost
from ci_bot.worker.apply import apply
from ci_bot.worker.books import Books
from ci_bot.worker.inquiry import MISSED_S, Inquiry, Overtaken, known_repository
from ci_bot.worker.waiting import any_of

PASS_S = 1.0
MAX_WAIT_S = 60.0
MAX_DEFECT_WAIT_S = 3600.0
LAG_S = 10.0
"""A delivery that is younger is not dropped for what GitHub's API does not know (any more)."""
LAG_PAUSE_S = 2.0
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

    def __post_init__(self) -> None:
        """Nothing is asked yet."""
        self.inquiry = Inquiry(self.books, self.github)

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
            try:
                event = parse(delivery.event, delivery.body, app_id=self.app_id, app_slug=self.app_slug)
            except Exception as error:
                await self._put_off_as_defect(delivery, error)
                continue
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
        """Act on a delivery, or put it off; False if what came later should wait behind it."""
        bound = log.bind(delivery_id=delivery.guid, github_event=delivery.event)
        try:
            decisions = await self.inquiry.decide(delivery, event)
        except (Gone, Overtaken) as error:
            # GitHub answers from copies that lag behind what its webhooks tell.
            if time.time() - delivery.received_at < LAG_S:
                await self._put_off(delivery, LAG_PAUSE_S, f"asked again, GitHub may lag behind: {error}")
                return False
            decisions = [Nothing(f"overtaken: {error}" if isinstance(error, Overtaken) else f"gone: {error}")]
        except GitHubError as error:
            if isinstance(error, Forbidden | Rejected) and time.time() - delivery.received_at > MISSED_S:
                decisions = [Nothing(f"given up: {error}")]
            else:
                wait_s = min(2.0 ** min(delivery.tries, 6), MAX_WAIT_S)
                if isinstance(error, RateLimited):
                    wait_s = error.until - time.time()
                bound.warning("put off: github can't be asked", why=str(error), wait_s=wait_s)
                await self._put_off(delivery, wait_s, str(error))
                return False
        except LeaseLost:
            raise
        except Exception as error:
            await self._put_off_as_defect(delivery, error)
            return True
        try:
            await self._settle(delivery, event, decisions)
        except LeaseLost:
            raise
        except Exception as error:  # where the database itself is away, putting it off fails too
            await self._put_off_as_defect(delivery, error)
        return True

    async def _put_off_as_defect(self, delivery: Delivery, error: Exception) -> None:
        """A delivery that we can't digest must neither be lost nor stop the ones behind it."""
        log.error("put off: this is a defect of Descent's", delivery_id=delivery.guid, exc_info=error)
        wait_s = min(2.0 ** min(delivery.tries, 12), MAX_DEFECT_WAIT_S)
        await self._put_off(delivery, wait_s, f"a defect of Descent's: {error!r}")

    async def _put_off(self, delivery: Delivery, wait_s: float, why: str) -> None:
        until = time.time() + wait_s
        await self.books.write(lambda c: deliveries.postpone(c, delivery.seq, until, why))

    async def _settle(self, delivery: Delivery, event: Event, decisions: list[Decision]) -> None:
        """Write the decisions and that the delivery is done, in one transaction."""
        outcome = "; ".join(sorted({describe(decision) for decision in decisions}))[:2000]
        repository = getattr(event, "repository", None)

        def commit(connection: Connection) -> None:
            if deliveries.processed(connection, delivery.seq, outcome, time.time()):
                apply(connection, known_repository(repository) if repository else None, decisions, time.time())
                forget(connection, event, time.time())

        await self.books.write(commit)
        if repository:
            self.inquiry.remember(repository, decisions)
        if isinstance(event, InstallationChanged | RepositoriesChanged):
            self.github.drop_installation(event.installation_id)
        log.info(
            "processed",
            delivery_id=delivery.guid,
            github_event=delivery.event,
            repository=getattr(repository, "full_name", None),
            outcome=outcome,
        )
        self.processed += 1
        self.changed()


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
        case decide.RefuseRerun(why=why, by=by):
            return f"re-run refused to {by}: {why}"
        case decide.Start(specification=specification, head_sha=head_sha):
            return f"start {specification.name} at {decide.short(head_sha)}"
        case decide.EndClaims(kind=kind, key=key, why=why):
            return f"end claims of {kind} {key}: {why}"
        case decide.Cancel(experiment_id=experiment_id):
            return f"cancel experiment {experiment_id}"
        case _:
            return type(decision).__name__
