"""What the App asks GitHub about itself: installations, the delivery log, its own birth."""

from ci_bot.github import answers
from ci_bot.github.answers import App, Delivery, Installation, NewApp, StoredDelivery
from ci_bot.github.session import AsApp, AsNobody, Session

MAX_DELIVERY_BYTES = 64 * 1024 * 1024  # payloads have up to 25 MB, and grow when escaped anew


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
        """The log of webhook deliveries from `since` (seconds since the epoch) on, newest first.

        GitHub keeps three days (Enterprise Server: seven) and never sends again by itself.
        """
        return await self._session.list(
            AsApp(),
            "/app/hook/deliveries{?per_page}",
            answers.delivery,
            until=lambda delivery: delivery.delivered_at < since,
        )

    async def delivery(self, delivery_id: int) -> StoredDelivery:
        """What one delivery carried."""
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
