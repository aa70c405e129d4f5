"""Deliveries that never reached us, taken from GitHub's own list: on start, then on a timer."""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from ci_bot.github.answers import Delivery
from ci_bot.github.client import GitHub
from ci_bot.github.errors import GitHubError, Gone, RateLimited, Rejected, TooLarge, Unauthorized
from ci_bot.store import deliveries, marks
from ci_bot.store.inbox import Inbox, NotStored
from ci_bot.worker.books import Books
from ci_bot.worker.waiting import any_of

POLL_S = 15.0
SWEEP_S = 300.0
LOOK_BACK_S = 7 * 86400.0
"""What GitHub Enterprise Server keeps; github.com's list ends after three days by itself."""
OVERLAP_S = 600.0
"""GitHub lists a delivery some time after it happened."""
PATIENCE_S = 3600.0
"""For how long a delivery that GitHub fails to give is asked for."""
MAX_FAILING = 20
"""Where there are more, it is no matter of single deliveries."""
MAX_MISSING = 10_000
"""How many are taken up in one sweep, the oldest; the next sweep goes on behind them."""
MAX_PAGES = 2000
"""Of 100 lines. GitHub allows 5000 calls an hour: a longer list would never be read to its end."""
MARK = "deliveries swept until"
log = structlog.get_logger()


@dataclass
class Recovery:
    """Asks GitHub what it sent, and stores what we don't know."""

    books: Books
    github: GitHub
    polling: bool
    """GitHub can't reach us: the list is the only way in."""
    changed: Callable[[], None]
    recovered: int = 0
    lost: int = 0
    """Deliveries that GitHub did not give, and lists that were too long."""
    now: Callable[[], float] = time.time
    _swept_until: float | None = None
    _failing: dict[str, tuple[Delivery, float]] = field(default_factory=dict)
    """What GitHub fails to give, by GUID, and since when. The mark in the store stays before the oldest of them."""
    _settled: dict[str, float] = field(default_factory=dict)
    """What there is nothing to recover of, by GUID, and its time: the overlap shows it again."""

    async def run(self, stop: asyncio.Event) -> None:
        """Sweep after sweep until told to stop."""
        inbox = Inbox(self.books.engine)
        try:
            while not stop.is_set():
                more = False
                try:
                    more = await self.sweep(inbox)
                except (GitHubError, NotStored) as error:
                    log.warning("deliveries could not be swept", why=str(error))
                if not more:
                    await any_of(stop, limit_s=POLL_S if self.polling else SWEEP_S)
        finally:
            await asyncio.to_thread(inbox.close)

    async def sweep(self, inbox: Inbox) -> bool:
        """Store what GitHub has sent, or tried to, and we have never received.

        Returns:
            True if there are more than one sweep takes up.
        """
        began = self.now()
        missing = await self._missing(began)
        more = len(missing) == MAX_MISSING
        # In the list a redelivery comes before the first try, whose time counts.
        wanted = {each.guid: each for each in (*missing, *(each for each, _ in self._failing.values()))}
        for each in sorted(wanted.values(), key=lambda delivery: (delivery.delivered_at, delivery.id)):
            await self._recover(each, inbox)
        self._swept_until = missing[0].delivered_at if more else began
        mark = min([self._swept_until, *(each.delivered_at for each, _ in self._failing.values())])
        await self.books.write(lambda c: marks.put(c, MARK, str(mark)))
        await self.books.write(lambda c: deliveries.prune(c, began - deliveries.KEEP_S))
        return more

    async def _missing(self, began: float) -> deque[Delivery]:
        """The oldest of those that we don't know, the newest of them first."""
        if self._swept_until is None:
            mark = await self.books.read(lambda c: marks.get(c, MARK))
            self._swept_until = float(mark) if mark else 0.0
        since = max(self._swept_until - OVERLAP_S, began - LOOK_BACK_S)
        self._settled = {guid: at for guid, at in self._settled.items() if at >= since}
        missing: deque[Delivery] = deque(maxlen=MAX_MISSING)
        pages = 0
        async for page in self.github.delivery_pages(since):
            known = await self._known([each.guid for each in page])
            missing.extend(each for each in page if each.guid not in known and each.guid not in self._settled)
            pages += 1
            if pages == MAX_PAGES:
                self.lost += 1
                log.error("GitHub's list of deliveries is too long: what is older is not looked for", lost=self.lost)
                break
        return missing

    async def _known(self, guids: list[str]) -> set[str]:
        return await self.books.read(lambda c: deliveries.known(c, guids))

    async def _recover(self, wanted: Delivery, inbox: Inbox) -> None:
        """Take one delivery; that GitHub does not give it is no reason to go without the others."""
        bound = log.bind(delivery_id=wanted.guid, github_event=wanted.event)
        _, since = self._failing.get(wanted.guid, (wanted, self.now()))
        try:
            stored = await self.github.delivery(wanted.id)
        except (RateLimited, Unauthorized):
            raise
        except Gone:
            stored = None  # its log entry was pruned between the two calls
        except GitHubError as error:
            if not isinstance(error, Rejected | TooLarge) and self.now() - since <= PATIENCE_S:
                self._fails(wanted, since, error)
                return
            self.lost += 1
            bound.error("a delivery can't be recovered", why=str(error), lost=self.lost)
            stored = None
        if stored is None:
            bound.info("there is nothing to recover")
            self._settled[wanted.guid] = wanted.delivered_at
        elif await inbox.put(stored.guid, stored.event, stored.body, at=wanted.delivered_at, source="recovered"):
            self.recovered += 1
            bound.info("recovered a delivery")
            self.changed()
        self._failing.pop(wanted.guid, None)

    def _fails(self, wanted: Delivery, since: float, error: GitHubError) -> None:
        if wanted.guid not in self._failing and len(self._failing) >= MAX_FAILING:
            raise error
        self._failing[wanted.guid] = wanted, since
        log.warning("a delivery can't be recovered yet", delivery_id=wanted.guid, why=str(error))
