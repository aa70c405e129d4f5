"""Takes GitHub's webhook deliveries: verified over the raw bytes, durable before the answer, parsed by nobody here."""

import asyncio
import hmac
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

import structlog
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from ci_bot.store.inbox import NotStored
from ci_bot.web.guard import HEADERS

BODY_LIMIT_BYTES = 25 * 2**20
"""GitHub sends no webhook whose payload is larger."""
BODY_DEADLINE_S = 30.0
"""GitHub itself gives up after 10 s, GitHub Enterprise Server after 30 s."""
UNVERIFIED_BYTES = 128 * 2**20
"""What all bodies may take while it is not known who sends them: nobody fills our memory without the secret."""
RETRY_AFTER_S = 30
_HASH_ON_LOOP_BYTES = 2**20  # a larger body is hashed in a thread: 25 MB take up to a tenth of a second

_SIGNATURE = re.compile(rb"sha256=[0-9a-fA-F]{64}")
_HEADER = re.compile(r"[!-~]{1,200}")  # what a GUID or an event's name may consist of

_ALWAYS = {**HEADERS, "Cache-Control": "no-store"}
_STORED = PlainTextResponse("stored\n", 202, _ALWAYS)
_DUPLICATE = PlainTextResponse("duplicate\n", 202, _ALWAYS)

log = structlog.get_logger(__name__)


RawHeaders = dict[bytes, bytes]
"""By their names in lower case."""


class Inbox(Protocol):
    """Where deliveries go: `ci_bot.store.inbox.Inbox`."""

    async def put(self, guid: str, event: str, body: bytes, *, at: float) -> bool:
        """True if it is new; returns when it is durable and raises NotStored otherwise."""


class Refused(Exception):
    """A request that is answered with one line and stored nowhere."""

    def __init__(self, status: int, line: str) -> None:
        super().__init__(line)
        self.status = status


class Unverified:
    """The bodies of senders yet unknown."""

    size_bytes = 0

    @contextmanager
    def counting(self) -> Iterator[Callable[[int], None]]:
        """Count what comes of one body, as long as it is one of them."""
        own_bytes = 0

        def count(size_bytes: int) -> None:
            nonlocal own_bytes
            own_bytes += size_bytes
            self.size_bytes += size_bytes
            if self.size_bytes > UNVERIFIED_BYTES:
                raise Refused(503, "Too much is on its way already; redeliver it later.")

        try:
            yield count
        finally:
            self.size_bytes -= own_bytes


class Webhook:
    """The ASGI application that answers `POST /webhook`.

    Args:
        inbox: stores a delivery.
        secrets: the webhook secrets that are valid now, several while they are rotated; asked at each request.
        clock: gives the time of receipt.
    """

    def __init__(
        self, inbox: Inbox, secrets: Callable[[], tuple[bytes, ...]], *, clock: Callable[[], float] = time.time
    ) -> None:
        self._inbox, self._secrets, self._clock = inbox, secrets, clock
        self._unverified = Unverified()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        answer = await self._answer(scope, receive)
        await answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive) -> Response:
        # Of a header that comes twice the first one counts, as it does for the rest of web.
        headers = dict(reversed(scope["headers"]))
        try:
            with self._unverified.counting() as count:
                body = await _verified_body(headers, receive, self._secrets(), count)
            guid, event = _identity(headers)
            new = await self._inbox.put(guid, event, body, at=self._clock())
        except Refused as refused:
            # The rest of the body is unread: nothing else can follow on this connection.
            close = {"Connection": "close"} if refused.status in (401, 408, 413, 503) else {}
            later = {"Retry-After": str(RETRY_AFTER_S)} if refused.status == 503 else {}
            return PlainTextResponse(f"{refused}\n", refused.status, _ALWAYS | close | later)
        except NotStored as failure:
            log.error("delivery not stored", delivery_id=guid, github_event=event, why=str(failure))
            line = "The delivery could not be stored; redeliver it later.\n"
            return PlainTextResponse(line, 503, _ALWAYS | {"Retry-After": str(RETRY_AFTER_S)})
        return _STORED if new else _DUPLICATE


class Ahead:
    """Takes deliveries ahead of the app and of what it asks of people: no session, no page and no route is theirs."""

    def __init__(self, app: ASGIApp, webhook: Webhook) -> None:
        self._app, self._webhook = app, webhook

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on to one of the two."""
        is_delivery = scope["type"] == "http" and scope["path"] == "/webhook" and scope["method"] == "POST"
        await (self._webhook if is_delivery else self._app)(scope, receive, send)


async def _verified_body(
    headers: RawHeaders, receive: Receive, secrets: tuple[bytes, ...], count: Callable[[int], None]
) -> bytes:
    """The raw body, if it was signed with one of the secrets."""
    length = headers.get(b"content-length", b"")
    if length.isdigit() and int(length[:20]) > BODY_LIMIT_BYTES:
        raise _too_large()
    signature = headers.get(b"x-hub-signature-256")
    if signature is None:
        raise Refused(401, _unsigned(sha1=b"x-hub-signature" in headers))
    if not _SIGNATURE.fullmatch(signature):
        raise Refused(401, "X-Hub-Signature-256 must be sha256= and 64 hexadecimal digits.")
    usable = [secret for secret in secrets if secret]  # anybody can sign with an empty one
    if not usable:
        raise Refused(401, "No webhook secret is set here; finish the set-up, or set GITHUB_WEBHOOK_SECRET.")
    body = await _body(receive, count)
    if len(body) > _HASH_ON_LOOP_BYTES:
        signed = await asyncio.to_thread(_is_signed, body, signature, usable)
    else:
        signed = _is_signed(body, signature, usable)
    if not signed:
        raise Refused(
            401, "X-Hub-Signature-256 does not match: the webhook secret here and on GitHub must be the same."
        )
    return body


async def _body(receive: Receive, count: Callable[[int], None]) -> bytes:
    """The raw body, given up as soon as it is too long or too late."""
    chunks: list[bytes] = []
    size_bytes, more = 0, True
    try:
        async with asyncio.timeout(BODY_DEADLINE_S):
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Refused(400, "The body ended early.")
                chunks.append(message.get("body", b""))
                size_bytes += len(chunks[-1])
                count(len(chunks[-1]))
                if size_bytes > BODY_LIMIT_BYTES:
                    raise _too_large()
                more = message.get("more_body", False)
    except TimeoutError:
        raise Refused(408, f"The body did not arrive within {BODY_DEADLINE_S:.0f} s.") from None
    return b"".join(chunks)


def _is_signed(body: bytes, signature: bytes, secrets: list[bytes]) -> bool:
    given = bytes.fromhex(signature.removeprefix(b"sha256=").decode())
    # A list and not a generator: how long it takes must not tell which secret matched.
    matches = [hmac.compare_digest(hmac.digest(secret, body, "sha256"), given) for secret in secrets]
    return any(matches)


def _identity(headers: RawHeaders) -> tuple[str, str]:
    """The delivery's GUID and event."""
    content_type = headers.get(b"content-type", b"").decode("latin-1")
    if content_type.partition(";")[0].strip().lower() != "application/json":
        got = content_type if _HEADER.fullmatch(content_type) else "something else"
        raise Refused(400, f"Set the webhook's content type to application/json on GitHub; this is {got or 'none'}.")
    return _word(headers, "X-GitHub-Delivery"), _word(headers, "X-GitHub-Event")


def _word(headers: RawHeaders, name: str) -> str:
    word = headers.get(name.lower().encode(), b"").decode("latin-1")
    if not _HEADER.fullmatch(word):
        raise Refused(400, f"The header {name} is missing or malformed; GitHub sends it with every webhook.")
    return word


def _unsigned(*, sha1: bool) -> str:
    if sha1:
        return "X-Hub-Signature (SHA-1) is not enough; X-Hub-Signature-256 is needed."
    return "X-Hub-Signature-256 is missing: set the webhook's secret on GitHub."


def _too_large() -> Refused:
    return Refused(413, f"The body is larger than {BODY_LIMIT_BYTES} bytes, GitHub's own limit.")
