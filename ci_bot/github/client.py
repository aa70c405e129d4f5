"""GitHub, as the App sees it: every call we make, each giving our own values or one error of the tree in errors."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import Protocol, Self

import httpx2 as httpx

from ci_bot.github.app_auth import AppAuth
from ci_bot.github.app_calls import AppCalls
from ci_bot.github.checks import CheckCalls
from ci_bot.github.login import LoginCalls
from ci_bot.github.repositories import RepositoryCalls
from ci_bot.github.session import Session
from ci_bot.github.transport import Transport, open_http

MAX_ANSWER_BYTES = 8 * 1024 * 1024


class Credentials(Protocol):
    """What GitHub gave us when the App was created: settings.AppCredentials."""

    @property
    def app_id(self) -> int: ...

    @property
    def private_key(self) -> str: ...

    @property
    def client_id(self) -> str: ...

    @property
    def client_secret(self) -> str: ...


class GitHub(RepositoryCalls, CheckCalls, AppCalls, LoginCalls):
    """All calls of the App; safe to share between tasks of one event loop.

    Nothing is repeated in secret, but for one 401 with a fresh token: who wants to try again reads `until` of
    RateLimited or takes `backoff_s`. While an installation is limited, its calls raise RateLimited without being sent.
    """

    def __init__(
        self,
        credentials: Credentials | None,
        *,
        api_url: str = "https://api.github.com",
        url: str = "https://github.com",
        http: httpx.AsyncClient | None = None,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """Parse the key; nothing is sent yet.

        Args:
            credentials: the App, or None before it exists (only `convert_manifest` works then).
            api_url: the REST API.
            url: the pages that people see.
            http: an HTTP client to use; else one of our own.
            clock: seconds since the epoch.
            sleep: how to wait for one's turn to write.
            jitter: 0 to 1, for pauses.

        Raises:
            BadKey: the private key can't be used.
        """
        self._transport = Transport(http or open_http(), api_url, max_bytes=MAX_ANSWER_BYTES)
        app = AppAuth(credentials.app_id, credentials.private_key) if credentials else None
        session = Session(self._transport, app, clock=clock, sleep=sleep, jitter=jitter)
        RepositoryCalls.__init__(self, session)
        CheckCalls.__init__(self, session, credentials.app_id if credentials else None)
        AppCalls.__init__(self, session)
        client = (credentials.client_id, credentials.client_secret) if credentials else ("", "")
        LoginCalls.__init__(self, session, url, *client)

    def __repr__(self) -> str:
        return f"GitHub({self._transport.base_url})"

    def drop_installation(self, installation_id: int) -> None:
        """Forget an installation's tokens: it was removed, suspended, or its repositories or permissions changed."""
        self._session.drop(installation_id)

    async def close(self) -> None:
        """Close all connections."""
        await self._transport.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
