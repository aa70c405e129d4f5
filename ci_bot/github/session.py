"""A call to GitHub from end to end: may it go out now, as whom, and what its answer means."""

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, assert_never

import gidgethub

from ci_bot.events.fields import Fields, Unfit
from ci_bot.github import answers, limits
from ci_bot.github.app_auth import AppAuth
from ci_bot.github.errors import (
    Forbidden,
    GitHubError,
    Gone,
    RateLimited,
    Rejected,
    Unauthorized,
    Unavailable,
)
from ci_bot.github.pace import Pace
from ci_bot.github.tokens import Access, Token, Tokens
from ci_bot.github.transport import Refusal, Transport

ACCEPT = "application/vnd.github+json"
API_VERSION = "2022-11-28"
PAGE_SIZE = 100
MAX_ITEMS = 10_000
APP = 0  # the App's own calls in the books of Pace

T = TypeVar("T")
Read = Callable[[Fields], T]
Credentials = dict[str, str]


@dataclass(frozen=True)
class AsApp:
    """Signed with the App's key."""


@dataclass(frozen=True)
class AsUser:
    """With the token of a person who logged in."""

    token: str = field(repr=False)


@dataclass(frozen=True)
class AsNobody:
    """Without credentials."""


Who = Access | AsApp | AsUser | AsNobody


class Session:
    """Authorization, pauses and judgement around the transport."""

    def __init__(
        self,
        transport: Transport,
        app: AppAuth | None,
        *,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._transport = transport
        self._app = app
        self._clock = clock
        self._sleep = sleep
        self._jitter = jitter
        self._pace = Pace()
        self._tokens = Tokens(self._create_token, clock)
        self._headers = {"accept": ACCEPT, "x-github-api-version": API_VERSION}

    def drop(self, installation_id: int) -> None:
        """Forget the tokens of an installation that was removed, suspended or changed."""
        self._tokens.drop(installation_id)
        self._pace.forget(installation_id)

    async def get(self, who: Who, url: str, read: Read[T], *, max_bytes: int | None = None, **variables: Any) -> T:
        """One object."""
        answer = await self.get_json(who, url, max_bytes=max_bytes, **variables)
        return _understood(read, answer, self._where(url, variables))

    async def get_json(self, who: Who, url: str, *, max_bytes: int | None = None, **variables: Any) -> Any:
        """Whatever JSON is there."""
        api = self._transport if max_bytes is None else self._transport.wider(max_bytes)
        where = self._where(url, variables)
        return await self._call(who, where, lambda c: api.getitem(url, variables, extra_headers=self._headers, **c))

    async def list(
        self,
        who: Who,
        url: str,
        read: Read[T],
        *,
        key: str | None = None,
        **variables: Any,
    ) -> tuple[T, ...]:
        """The objects of a paged list (under `key` of each page)."""
        variables = {"per_page": PAGE_SIZE} | variables
        where = self._where(url, variables)

        async def pages(credentials: Credentials) -> tuple[T, ...]:
            found: list[T] = []
            api = self._transport.getiter(url, variables, extra_headers=self._headers, iterable_key=key, **credentials)
            async with contextlib.aclosing(api) as items:
                async for item in items:
                    if len(found) >= MAX_ITEMS:
                        break
                    found.append(_understood(read, item, where))
            return tuple(found)

        return await self._call(who, where, pages)

    async def pages(self, who: Who, url: str, **variables: Any) -> AsyncIterator[Sequence[Any]]:
        """The pages of a list of any length, each a call of its own, made when the page is wanted."""
        variables = {"per_page": PAGE_SIZE} | variables
        where = self._where(url, variables)
        more: str | None = self._transport.address(url, variables)
        while more:
            page, more = await self._page(who, where, more)
            if not isinstance(page, list):
                raise Unavailable(f"{where}: GitHub's answer is incomplete: it is no list")
            yield page

    async def _page(self, who: Who, where: str, address: str) -> tuple[Any, str | None]:
        return await self._call(who, where, lambda c: self._transport.page(address, self._headers, **c))

    async def post(self, who: Who, url: str, body: Any, read: Read[T], *, paced: bool = False, **variables: Any) -> T:
        """Create something; `body` b"" sends none. `paced` for what GitHub counts as creating content."""
        api, headers, where = self._transport, self._headers, self._where(url, variables)
        answer = await self._call(
            who, where, lambda c: api.post(url, variables, data=body, extra_headers=headers, **c), paced=paced
        )
        return _understood(read, answer, where)

    async def patch(self, who: Who, url: str, body: Any, read: Read[T], *, paced: bool = False, **variables: Any) -> T:
        """Change something."""
        api, headers, where = self._transport, self._headers, self._where(url, variables)
        answer = await self._call(
            who, where, lambda c: api.patch(url, variables, data=body, extra_headers=headers, **c), paced=paced
        )
        return _understood(read, answer, where)

    async def download(
        self, access: Access, url: str, destination: Path, *, max_bytes: int, timeout_s: float, **variables: Any
    ) -> int:
        """Stream a file to `destination`, which appears only when complete; gives its size in bytes."""
        address = self._transport.address(url, variables)
        return await self._call(
            access,
            address,
            lambda c: self._transport.download(
                address,
                c["oauth_token"],
                destination,
                max_bytes=max_bytes,
                timeout_s=timeout_s,
                headers=self._headers,
            ),
        )

    async def form(self, url: str, fields: dict[str, str], read: Read[T]) -> T:
        """POST a form to GitHub's OAuth pages and read the JSON answer."""
        answer = await self._call(AsNobody(), url, lambda _: self._transport.form(url, fields))
        return _understood(read, answer, url)

    def _where(self, url: str, variables: dict[str, Any]) -> str:
        return self._transport.address(url, variables).partition("?")[0]

    async def _call(
        self, who: Who, where: str, send: Callable[[Credentials], Awaitable[T]], *, paced: bool = False
    ) -> T:
        """Send once; with fresh credentials once more if the first were refused."""
        books = _books(who)
        if paced and books is not None and (wait_s := self._pace.reserve_write_s(books, self._clock())):
            await self._sleep(wait_s)
        renewed = False
        while True:
            self._hold_still(books, where)
            credentials, forget = await self._credentials(who)
            try:
                result = await send(credentials)
            except Refusal as refusal:
                if refusal.answer.status == 401 and forget is not None and not renewed:
                    forget()
                    renewed = True
                    continue
                raise self._error(refusal, who, books) from None
            except (gidgethub.GitHubException, ValueError, TypeError, LookupError) as error:
                # gidgethub could not decode a success: a proxy's page, half an answer, an unknown charset.
                raise Unavailable(f"{where}: GitHub's answer can't be read ({type(error).__name__})") from None
            if books is not None:
                self._pace.succeeded(books)
            return result

    def _hold_still(self, books: int | None, where: str) -> None:
        # Going on calling while limited gets an App banned.
        if books is not None and (until := self._pace.silent_until(books, self._clock())):
            raise RateLimited(f"{where}: GitHub asked for a pause", until)

    async def _credentials(self, who: Who) -> tuple[Credentials, Callable[[], None] | None]:
        """Credentials, and how to forget them if GitHub refuses them."""
        match who:
            case Access():
                token = await self._tokens.get(who)
                return {"oauth_token": token.value}, lambda: self._tokens.refused(who, token)
            case AsApp():
                if self._app is None:
                    raise Unauthorized("no GitHub App is set up: open /setup, or set GITHUB_APP_ID and its private key")
                return {"jwt": self._app.jwt(self._clock())}, self._app.forget
            case AsUser():
                return {"oauth_token": who.token}, None
            case AsNobody():
                return {}, None
            case _:
                assert_never(who)

    async def _create_token(self, access: Access) -> Token:
        url = "/app/installations/{installation_id}/access_tokens"
        installation_id = access.installation_id
        try:
            return await self.post(AsApp(), url, access.request(), answers.token, installation_id=installation_id)
        except Gone as error:
            raise Gone(f"the App is not installed any more (installation {installation_id}): {error}") from None
        except Rejected as error:
            # 422 for both: a repository that left the installation, and a permission that was never granted.
            if "permission" in str(error).lower():
                raise Forbidden(
                    f"installation {installation_id} does not grant {_listed(access)}; its owner must accept the App's "
                    f"permissions: {error}"
                ) from None
            raise Gone(
                f"repository {access.repository_id} is not in installation {installation_id} (any more): {error}"
            ) from None

    def _error(self, refusal: Refusal, who: Who, books: int | None) -> GitHubError:
        now = self._clock()
        attempt = 1 if books is None else self._pace.attempt(books)
        where = refusal.where
        match limits.judge(refusal.answer, attempt=attempt, now=now, jitter=self._jitter()):
            case limits.Wait(seconds, why):
                if books is not None:
                    self._pace.limited(books, now + seconds)
                return RateLimited(f"{where}: {why}", now + seconds)
            case limits.Absent(said):
                return Gone(f"{where}: {said or 'not found'}; it does not exist, or the App may not see it")
            case limits.SignInAgain(said):
                return Unauthorized(f"{where}: {said or 'not authorized'}; {_sign_in_hint(who)}")
            case limits.Transient(_, why):
                return Unavailable(f"{where}: {why}")
            case limits.Refused(403, said):
                return Forbidden(f"{where}: {said or 'forbidden'}; check the permissions of the App's installation")
            case limits.Refused(status, said):
                return Rejected(f"{where}: GitHub refuses with {status}: {said or 'no reason given'}", status)
            case other:
                assert_never(other)


def _understood(read: Read[T], answer: Any, where: str) -> T:
    try:
        if not isinstance(answer, dict):
            raise Unfit("it is no object")
        return read(Fields(answer))
    except Unfit as error:
        raise Unavailable(f"{where}: GitHub's answer is incomplete: {error}") from None


def _books(who: Who) -> int | None:
    """Under which number the limits are kept: one person's limit is nobody else's."""
    match who:
        case Access():
            return who.installation_id
        case AsApp():
            return APP
        case _:
            return None


def _listed(access: Access) -> str:
    return ", ".join(f"{name}: {level}" for name, level in sorted(access.permissions))


def _sign_in_hint(who: Who) -> str:
    match who:
        case AsApp():
            return "check GITHUB_APP_ID, the private key and this machine's clock"
        case AsUser():
            return "log in again"
        case _:
            return "a fresh token was refused as well"
