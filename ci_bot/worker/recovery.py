"""Deliveries that never reached us, taken from GitHub's own list: on start, then on a timer."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from ci_bot.github.client import GitHub
from ci_bot.github.errors import GitHubError, Gone
from ci_bot.store import deliveries, marks
from ci_bot.store.inbox import Inbox, NotStored
from ci_bot.worker.books import Books
from ci_bot.worker.waiting import any_of

POLL_S = 15.0
SWEEP_S = 300.0
LOOK_BACK_S = 3 * 86400.0
OVERLAP_S = 600.0
"""GitHub lists a delivery some time after it happened."""
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

    async def run(self, stop: asyncio.Event) -> None:
        """Sweep after sweep until told to stop."""
        inbox = Inbox(self.books.engine)
        try:
            while not stop.is_set():
                try:
                    await self.sweep(inbox)
                except (GitHubError, NotStored) as error:
                    log.warning("deliveries could not be swept", why=str(error))
                await any_of(stop, limit_s=POLL_S if self.polling else SWEEP_S)
        finally:
            await asyncio.to_thread(inbox.close)

    async def sweep(self, inbox: Inbox) -> None:
        """Store what GitHub has sent, or tried to, and we have never received."""
        began = time.time()
        mark = await self.books.read(lambda c: marks.get(c, MARK))
        since = max(float(mark) - OVERLAP_S if mark else began - LOOK_BACK_S, began - LOOK_BACK_S)
        listed = await self.github.deliveries(since)
        known = await self.books.read(lambda c: deliveries.known(c, (each.guid for each in listed)))
        missing = {each.guid: each for each in listed if each.guid not in known}
        for each in sorted(missing.values(), key=lambda delivery: (delivery.delivered_at, delivery.id)):
            try:
                stored = await self.github.delivery(each.id)
            except Gone:
                continue  # too old by now: its log entry was pruned between the two calls
            if await inbox.put(stored.guid, stored.event, stored.body, at=each.delivered_at, source="recovered"):
                self.recovered += 1
                log.info("recovered a delivery", delivery_id=stored.guid, github_event=stored.event)
                self.changed()
        await self.books.write(lambda c: marks.put(c, MARK, str(began)))
        await self.books.write(lambda c: deliveries.prune(c, began - deliveries.KEEP_S))
