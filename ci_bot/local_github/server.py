"""The local GitHub as an ASGI application, and the doorkeeper before it: loopback only."""

import asyncio
import contextlib
import functools
import ipaddress
import secrets
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from ci_bot.local_github import contents, control_api, git, hooks, pages
from ci_bot.local_github.api import Arrival, as_json, operation_id
from ci_bot.local_github.calls import Refusal
from ci_bot.local_github.faults import Rule
from ci_bot.local_github.hub import Hub
from ci_bot.local_github.state import Json

ABORT = "local_github.abort"
_NAMES = ("127.0.0.1", "localhost", "[::1]")


class Doorkeeper:
    """Turns away whoever is not on this machine, and browsers that another site's name led here."""

    def __init__(self, app: ASGIApp) -> None:
        """Stand before an application."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] == "http" and not _local(scope):
            await PlainTextResponse("The local GitHub answers only this machine.\n", 403)(scope, receive, send)
            return
        await self._app(scope, receive, send)


def _local(scope: Scope) -> bool:
    client, host = scope.get("client"), dict(scope["headers"]).get(b"host", b"").decode(errors="replace")
    name = host if host.endswith("]") else host.rpartition(":")[0] or host
    return client is not None and ipaddress.ip_address(client[0]).is_loopback and name in _NAMES


def create_app(
    root: Path, *, url: str, control_token: str | None = None, clock: Callable[[], float] = time.time
) -> Starlette:
    """The application; its parts are in `app.state.hub`.

    Args:
        root: directory for the bare repositories, made where it is missing.
        url: the address under which it will be reached, as `http://127.0.0.1:3000`.
        control_token: what the control API asks for; random by default (`app.state.hub.control_token`).
        clock: gives the present time in seconds.
    """
    root.mkdir(parents=True, exist_ok=True)
    hub = Hub(root, url, control_token or secrets.token_hex(20), clock)
    hooks.write_address(root, url, hub.hook_token)

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        await hub.courier.start()
        try:
            yield
        finally:
            await hub.courier.stop()

    methods = ["GET", "POST", "PATCH", "PUT", "DELETE"]
    routes = [
        Route("/api/v3/{path:path}", functools.partial(_rest, hub), methods=methods),
        Route("/_codeload/{path:path}", functools.partial(_codeload, hub), methods=["GET"]),
        *control_api.routes(hub),
        *pages.routes(hub),
    ]
    app = Starlette(routes=routes, lifespan=lifespan, middleware=[Middleware(Doorkeeper)])
    app.state.hub = hub
    return app


async def _broken(request: Request) -> Response:
    """End the connection without an answer."""
    abort = request.scope.get("extensions", {}).get(ABORT)
    if abort is not None:
        abort()
        await asyncio.sleep(0)
    return Response(status_code=500)


def _entry(hub: Hub, request: Request, path: str, body: bytes) -> Json:
    authorization = request.headers.get("authorization")
    return {
        "at": hub.world.clock(),
        "method": request.method,
        "path": path,
        "query": dict(request.query_params),
        "host": request.headers.get("host"),
        "accept": request.headers.get("accept"),
        "user_agent": request.headers.get("user-agent"),
        "api_version": request.headers.get("x-github-api-version"),
        "if_none_match": request.headers.get("if-none-match"),
        "authorization": authorization.partition(" ")[0] if authorization else None,
        "request_body": as_json(body, "json") if body else None,
    }


async def _rest(hub: Hub, request: Request) -> Response:
    path = "/" + request.path_params["path"].rstrip("/")
    body, operation = await request.body(), operation_id(request.method, path)
    entry = _entry(hub, request, path, body) | {"operation": operation}
    if hub.faults.down is not None:
        hub.journal.add(entry | {"status": 503 if hub.faults.down == "503" else None, "fault": "down"})
        if hub.faults.down == "reset":
            return await _broken(request)
        return JSONResponse(Refusal(503, "Service unavailable").body(), 503)
    key = request.headers.get("authorization", "")
    try:
        hub.limits.enter(key)
    except Refusal as refusal:
        hub.journal.add(entry | {"status": refusal.status, "fault": None, "response_body": refusal.body()})
        return JSONResponse(refusal.body(), refusal.status, dict(refusal.headers))
    try:
        return await _answered(hub, request, path, body, entry)
    finally:
        hub.limits.leave(key)


async def _answered(hub: Hub, request: Request, path: str, body: bytes, entry: Json) -> Response:
    """The answer of a request that was let in, with its faults."""
    rules = hub.faults.for_call(request.method, path, entry["operation"])
    kinds = [rule.kind for rule in rules]
    entry |= {"fault": ",".join(kinds) or None}
    await _delayed(rules)
    if "drop" in kinds:
        hub.journal.add(entry | {"status": None})
        return await _broken(request)
    arrival = Arrival(
        request.method, path, dict(request.query_params), request.headers, body, request.headers.get("host", "")
    )
    outcome = await run_in_threadpool(hub.api.respond, arrival, rules)
    media_type = outcome.headers.get("Content-Type", "")
    answered = {"status": outcome.status, "caller": outcome.caller, "content_type": media_type}
    hub.journal.add(entry | answered | {"response_body": as_json(outcome.body, media_type)})
    if "drop_after" in kinds:
        return await _broken(request)
    return Response(outcome.body, outcome.status, dict(outcome.headers))


async def _delayed(rules: list[Rule]) -> None:
    wait_s = sum(rule.seconds for rule in rules if rule.kind == "delay")
    if wait_s:
        await asyncio.sleep(wait_s)


async def _codeload(hub: Hub, request: Request) -> Response:
    entry = _entry(hub, request, request.url.path, b"") | {"operation": "codeload", "fault": None, "caller": "link"}
    rules = hub.faults.for_call(request.method, request.url.path, "codeload")
    await _delayed(rules)
    kinds = [rule.kind for rule in rules]
    if "drop" in kinds or hub.faults.down == "reset":
        hub.journal.add(entry | {"status": None})
        return await _broken(request)
    failing = next((rule.status or 500 for rule in rules if rule.kind == "status"), 503 if hub.faults.down else None)
    try:
        if failing is not None:
            raise Refusal(failing, "Server Error")
        found, sha = hub.archives.open(request.url.path, dict(request.query_params))
    except Refusal as refusal:
        hub.journal.add(entry | {"status": refusal.status})
        return PlainTextResponse(f"{refusal.status}: {refusal.message}", refusal.status)
    hub.journal.add(entry | {"status": 200})
    name = f"{contents.folder(found, sha)}.tar.gz"
    headers = {"Content-Disposition": f"attachment; filename={name}"}
    pieces = git.archive(found.path, sha, contents.folder(found, sha))
    return StreamingResponse(pieces, media_type="application/x-gzip", headers=headers)
