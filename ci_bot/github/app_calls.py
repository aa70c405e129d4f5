"""What the App asks GitHub about itself: installations, the delivery log, its own birth."""

from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any

import structlog

from ci_bot.events.fields import Fields, Unfit
from ci_bot.github import answers
from ci_bot.github.answers import App, Delivery, Installation, NewApp, StoredDelivery
from ci_bot.github.session import AsApp, AsNobody, Session

MAX_DELIVERY_BYTES = 64 * 1024 * 1024  # payloads have up to 25 MB, and grow when escaped anew
log = structlog.get_logger()


class AppCalls:
    """Calls signed with the App's key."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def app(self) -> App:
        """The App itself; Unauthorized when number and key don't belong together."""
        return await self._session.get(AsApp(), "/app", answers.app)

    async def installations(self) -> tuple[Installation, ...]:
        """Where the App is installed, suspended ones included."""
        return await self._session.list(AsApp(), "/app/installations{?per_page}", answers.installation)

    async def deliveries(self, since: float) -> tuple[Delivery, ...]:
        """The log of webhook deliveries from `since` (seconds since the epoch) on, newest first."""
        return tuple([each async for page in self.delivery_pages(since) for each in page])

    async def delivery_pages(self, since: float) -> AsyncIterator[tuple[Delivery, ...]]:
        """The same page by page, of any length; a line that can't be read is left out.

        GitHub keeps three days (Enterprise Server: seven) and never sends again by itself.
        """
        async for page in self._session.pages(AsApp(), "/app/hook/deliveries{?per_page}"):
            found = tuple(_readable(page))
            wanted = tuple(each for each in found if each.delivered_at >= since)
            yield wanted
            if len(wanted) < len(found):
                return

    async def delivery(self, delivery_id: int) -> StoredDelivery | None:
        """What one delivery carried; None where GitHub has not kept that."""
        return await self._session.get(
            AsApp(),
            "/app/hook/deliveries/{delivery_id}",
            answers.stored_delivery,
            max_bytes=MAX_DELIVERY_BYTES,
            delivery_id=delivery_id,
        )

    async def convert_manifest(self, code: str) -> NewApp:
        """Swap the code of the manifest flow for the App's credentials, which GitHub shows this once."""
        return await self._session.post(
            AsNobody(), "/app-manifests/{code}/conversions", b"", answers.new_app, code=code
        )


def _readable(lines: Iterable[Any]) -> Iterator[Delivery]:
    for line in lines:
        try:
            yield answers.delivery(Fields(line if isinstance(line, dict) else {}))
        except Unfit as error:
            log.warning("a line of GitHub's list of deliveries can't be read", why=str(error))
