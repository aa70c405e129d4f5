"""One HTTP exchange with GitHub: bounded, on its own host only, without hidden repetitions. No policy."""

import asyncio
import contextlib
import http.cookiejar
import json
import os
import uuid
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import gidgethub.abc
import gidgethub.sansio
import httpx2 as httpx

from ci_bot.github.errors import TooLarge, Unavailable, scrubbed
from ci_bot.github.limits import Answer, message

AGENT = "descent"
MAX_REDIRECTS = 4
MAX_CONCURRENT = 20  # of the 100 that GitHub bears
MAX_REFUSAL_BYTES = 64 * 1024
DEADLINE_S = 60.0
CHUNK_BYTES = 256 * 1024
SUCCESSES = frozenset({200, 201, 202, 204})


class Refusal(Exception):
    """An answer that is no success, for the session to judge."""

    def __init__(self, answer: Answer, where: str) -> None:
        super().__init__(where, answer.status)
        self.answer = answer
        self.where = where


def open_http() -> httpx.AsyncClient:
    """An HTTP client that keeps connections but no cookies: people's logins must not meet in it."""
    no_cookies = http.cookiejar.CookieJar(policy=http.cookiejar.DefaultCookiePolicy(allowed_domains=[]))
    return httpx.AsyncClient(timeout=httpx.Timeout(30.0, connect=10.0), cookies=no_cookies, follow_redirects=False)


class Transport(gidgethub.abc.GitHubAPI):
    """gidgethub's words over httpx, with our limits; credentials come with each call and are not kept."""

    def __init__(
        self, client: httpx.AsyncClient, base_url: str, *, max_bytes: int, slots: asyncio.Semaphore | None = None
    ) -> None:
        super().__init__(AGENT, base_url=base_url)
        self._client = client
        self._origin = _origin(httpx.URL(base_url))
        self._max_bytes = max_bytes
        self._slots = slots or asyncio.Semaphore(MAX_CONCURRENT)

    def wider(self, max_bytes: int) -> "Transport":
        """The same connections and limits, for answers of up to `max_bytes`."""
        return Transport(self._client, self.base_url, max_bytes=max_bytes, slots=self._slots)

    def address(self, url: str, variables: Mapping[str, Any]) -> str:
        """The full address of a template of GitHub's documentation."""
        return gidgethub.sansio.format_url(url, variables, base_url=self.base_url)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def sleep(self, seconds: float) -> None:
        """gidgethub's port for pauses, of which it makes none of its own."""
        await asyncio.sleep(seconds)

    async def _request(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes = b""
    ) -> tuple[int, Mapping[str, str], bytes]:
        target = httpx.URL(url)
        where = place(method, target)
        for _ in range(MAX_REDIRECTS):
            if _origin(target) != self._origin:
                raise Unavailable(
                    f"{where}: the answer leads to another host, {target.host}, which gets no token of ours"
                )
            status, answered, content = await self._exchange(method, target, headers, body)
            # A renamed repository: 301 for reading, 307 for writing, to its address by number.
            if status in {307, 308} or (status in {301, 302} and method == "GET"):
                target = target.join(answered.get("location", ""))
                continue
            if status not in SUCCESSES:
                raise Refusal(Answer(status, answered, content.decode("utf-8", "replace")), where)
            return status, answered, content
        raise Unavailable(f"{where}: more than {MAX_REDIRECTS} redirections")

    async def _exchange(
        self, method: str, url: httpx.URL, headers: Mapping[str, str], body: bytes
    ) -> tuple[int, Mapping[str, str], bytes]:
        where = place(method, url)
        async with self._slots, _transport_errors(where, DEADLINE_S):
            stream = self._client.stream(method, url, headers=dict(headers), content=body, follow_redirects=False)
            async with stream as response:
                return response.status_code, response.headers, await _bounded(response, self._max_bytes, where)

    async def page(self, address: str, headers: dict[str, str], **credentials: str) -> tuple[Any, str | None]:
        """One page of a list, and the address of the next."""
        page, more, _ = await self._make_request(
            "GET", address, {}, b"", headers["accept"], extra_headers=headers, **credentials
        )
        return page, more

    async def form(self, url: str, fields: Mapping[str, str]) -> Any:
        """POST a form without any credentials but its own, and read the JSON answer (GitHub's OAuth pages)."""
        where = place("POST", httpx.URL(url))
        async with self._slots, _transport_errors(where, DEADLINE_S):
            headers = {"accept": "application/json", "user-agent": AGENT}
            stream = self._client.stream("POST", url, headers=headers, data=dict(fields), follow_redirects=False)
            async with stream as response:
                content = await _bounded(response, self._max_bytes, where)
                if response.status_code != 200:
                    raise Refusal(
                        Answer(response.status_code, response.headers, content.decode("utf-8", "replace")), where
                    )
                return json.loads(content)

    async def download(
        self, url: str, token: str, destination: Path, *, max_bytes: int, timeout_s: float, headers: Mapping[str, str]
    ) -> int:
        """Stream `url` into `destination`, which appears only when complete; gives the number of bytes.

        Redirections are followed; the token goes to GitHub's API host only.
        """
        target = httpx.URL(url)
        where = place("GET", target)
        # identity: the archive is compressed already, and a decoder would hide how much arrives.
        sent = {**headers, "user-agent": AGENT, "accept-encoding": "identity", "authorization": f"token {token}"}
        async with self._slots, _transport_errors(where, timeout_s):
            for _ in range(MAX_REDIRECTS):
                if _origin(target) != self._origin:
                    sent.pop("authorization", None)
                async with self._client.stream("GET", target, headers=sent, follow_redirects=False) as response:
                    if response.is_redirect:
                        target = _next(target, response, where)
                        continue
                    if response.status_code != 200:
                        content = await _bounded(response, MAX_REFUSAL_BYTES, where)
                        answer = Answer(response.status_code, response.headers, content.decode("utf-8", "replace"))
                        raise Refusal(answer, where)
                    return await _save(response, destination, max_bytes, where)
            raise Unavailable(f"{where}: more than {MAX_REDIRECTS} redirections")


def place(method: str, url: httpx.URL) -> str:
    """What is called, for messages: without the query, which may carry a signature."""
    return scrubbed(f"{method} {url.copy_with(query=None, fragment=None, username=None, password=None)}")


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


def _next(url: httpx.URL, response: httpx.Response, where: str) -> httpx.URL:
    target = url.join(response.headers.get("location", ""))
    if target.scheme not in {"http", "https"} or (url.scheme == "https" and target.scheme != "https"):
        raise Unavailable(f"{where}: redirected to {target.scheme}:, which is not followed")
    return target


@contextlib.asynccontextmanager
async def _transport_errors(where: str, timeout_s: float) -> AsyncIterator[None]:
    """Turn what the way to GitHub can do into Unavailable.

    `from None`: an httpx error holds the request, and with it the Authorization header.
    """
    try:
        async with asyncio.timeout(timeout_s):
            yield
    except TimeoutError:
        raise Unavailable(f"{where}: no complete answer within {timeout_s:.0f} s") from None
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        said = message(str(error)) or "no details"
        raise Unavailable(f"{where}: {type(error).__name__}: {said}") from None


async def _bounded(response: httpx.Response, max_bytes: int, where: str) -> bytes:
    content = bytearray()
    async for chunk in response.aiter_bytes():
        content += chunk
        if len(content) > max_bytes:
            raise TooLarge(f"{where}: the answer is larger than {max_bytes} bytes")
    return bytes(content)


async def _save(response: httpx.Response, destination: Path, max_bytes: int, where: str) -> int:
    part = destination.with_name(f".{destination.name}.{uuid.uuid4().hex}.part")
    written = 0
    try:
        # Threads: a slow disk must not hold up the event loop.
        file = await asyncio.to_thread(part.open, "xb")
        try:
            async for chunk in response.aiter_bytes(CHUNK_BYTES):
                written += len(chunk)
                if written > max_bytes:
                    raise TooLarge(f"{where}: larger than {max_bytes} bytes")
                await asyncio.to_thread(file.write, chunk)
            await asyncio.to_thread(_finish, file)
        finally:
            file.close()
        os.replace(part, destination)
    finally:
        part.unlink(missing_ok=True)
    return written


def _finish(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
