"""Takes GitHub's webhook deliveries: verified over the raw bytes, durable before the answer, parsed by nobody here."""

import asyncio
import hmac
import re
import time
from collections.abc import Callable
from typing import Protocol

import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from ci_bot.store.inbox import NotStored

BODY_LIMIT_BYTES = 25 * 2**20
"""GitHub sends no webhook whose payload is larger."""
BODY_DEADLINE_S = 30.0
"""GitHub itself gives up after 10 s, GitHub Enterprise Server after 30 s."""
RETRY_AFTER_S = 30
_HASH_ON_LOOP_BYTES = 2**20  # a larger body is hashed in a thread: 25 MB take up to a tenth of a second

_SIGNATURE = re.compile(r"sha256=[0-9a-fA-F]{64}")
_HEADER = re.compile(r"[!-~]{1,200}")  # what a GUID or an event's name may consist of

log = structlog.get_logger(__name__)


class Inbox(Protocol):
    """Where deliveries go: `ci_bot.store.inbox.Inbox`."""

    async def put(self, guid: str, event: str, body: bytes, *, at: float) -> bool:
        """True if it is new; returns when it is durable and raises NotStored otherwise."""


class Refused(Exception):
    """A request that is answered with one line and stored nowhere."""

    def __init__(self, status: int, line: str) -> None:
        super().__init__(line)
        self.status = status


def webhook(
    inbox: Inbox,
    secrets: Callable[[], tuple[bytes, ...]],
    nudge: Callable[[], None],
    *,
    clock: Callable[[], float] = time.time,
) -> Route:
    """The route `POST /webhook`.

    Args:
        inbox: stores a delivery.
        secrets: the webhook secrets that are valid now, several while they are rotated; asked at each request.
        nudge: wakes the worker; must neither block nor raise.
        clock: gives the time of receipt.
    """

    async def endpoint(request: Request) -> Response:
        try:
            body = await _verified_body(request, secrets())
            guid, event = _identity(request)
            new = await inbox.put(guid, event, body, at=clock())
        except Refused as refused:
            # The rest of the body is unread: nothing else can follow on this connection.
            close = {"Connection": "close"} if refused.status in (401, 408, 413) else {}
            return PlainTextResponse(f"{refused}\n", refused.status, close)
        except NotStored as failure:
            log.error("delivery not stored", delivery_id=guid, github_event=event, why=str(failure))
            line = "The delivery could not be stored; redeliver it later.\n"
            return PlainTextResponse(line, 503, {"Retry-After": str(RETRY_AFTER_S)})
        if new:
            nudge()
        return PlainTextResponse("stored\n" if new else "duplicate\n", 202)

    return Route("/webhook", endpoint, methods=["POST"])


async def _verified_body(request: Request, secrets: tuple[bytes, ...]) -> bytes:
    """The raw body, if it was signed with one of the secrets."""
    length = request.headers.get("Content-Length", "")
    if length.isascii() and length.isdigit() and int(length[:20]) > BODY_LIMIT_BYTES:
        raise _too_large()
    signature = request.headers.get("X-Hub-Signature-256")
    if signature is None:
        raise Refused(401, _unsigned(sha1="X-Hub-Signature" in request.headers))
    if not _SIGNATURE.fullmatch(signature):
        raise Refused(401, "X-Hub-Signature-256 must be sha256= and 64 hexadecimal digits.")
    usable = [secret for secret in secrets if secret]  # anybody can sign with an empty one
    if not usable:
        raise Refused(401, "No webhook secret is set here; finish the set-up, or set GITHUB_WEBHOOK_SECRET.")
    body = await _body(request)
    if len(body) > _HASH_ON_LOOP_BYTES:
        signed = await asyncio.to_thread(_is_signed, body, signature, usable)
    else:
        signed = _is_signed(body, signature, usable)
    if not signed:
        raise Refused(
            401, "X-Hub-Signature-256 does not match: the webhook secret here and on GitHub must be the same."
        )
    return body


async def _body(request: Request) -> bytes:
    """The raw body, given up as soon as it is too long or too late."""
    chunks: list[bytes] = []
    size_bytes = 0
    try:
        async with asyncio.timeout(BODY_DEADLINE_S):
            async for chunk in request.stream():
                size_bytes += len(chunk)
                if size_bytes > BODY_LIMIT_BYTES:
                    raise _too_large()
                chunks.append(chunk)
    except TimeoutError:
        raise Refused(408, f"The body did not arrive within {BODY_DEADLINE_S:.0f} s.") from None
    except ClientDisconnect:
        raise Refused(400, "The body ended early.") from None
    return b"".join(chunks)


def _is_signed(body: bytes, signature: str, secrets: list[bytes]) -> bool:
    given = bytes.fromhex(signature.removeprefix("sha256="))
    # A list and not a generator: how long it takes must not tell which secret matched.
    matches = [hmac.compare_digest(hmac.digest(secret, body, "sha256"), given) for secret in secrets]
    return any(matches)


def _identity(request: Request) -> tuple[str, str]:
    """The delivery's GUID and event."""
    content_type = request.headers.get("Content-Type", "")
    if content_type.partition(";")[0].strip().lower() != "application/json":
        got = content_type if _HEADER.fullmatch(content_type) else "something else"
        raise Refused(400, f"Set the webhook's content type to application/json on GitHub; this is {got or 'none'}.")
    for name in ("X-GitHub-Delivery", "X-GitHub-Event"):
        if not _HEADER.fullmatch(request.headers.get(name, "")):
            raise Refused(400, f"The header {name} is missing or malformed; GitHub sends it with every webhook.")
    return request.headers["X-GitHub-Delivery"], request.headers["X-GitHub-Event"]


def _unsigned(*, sha1: bool) -> str:
    if sha1:
        return "X-Hub-Signature (SHA-1) is not enough; X-Hub-Signature-256 is needed."
    return "X-Hub-Signature-256 is missing: set the webhook's secret on GitHub."


def _too_large() -> Refused:
    return Refused(413, f"The body is larger than {BODY_LIMIT_BYTES} bytes, GitHub's own limit.")
