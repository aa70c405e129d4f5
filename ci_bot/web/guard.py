"""The door: Host, Origin and session of every request, and the headers of every answer.

Experiments run on hosts that share web's loopback, and any page in a person's browser can reach it too, so where a
request comes from proves nothing.
"""

from typing import Literal
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.datastructures import URL, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ci_bot.settings import url_host
from ci_bot.web.rights import SESSION_S, Viewer
from ci_bot.web.room import Room, page, room_of, viewer_of

HOSTLESS = frozenset({"/webhook", "/healthz", "/readyz", "/metrics"})
"""Asked by machines, under any name: signed, harmless, or with a token of their own."""
OPEN = HOSTLESS | {"/login", "/login/callback", "/setup/created", "/favicon.ico"}
LOCAL_HOSTS = ("127.0.0.1", "localhost", "[::1]")
POLICY = "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; object-src 'none'; form-action 'self'"
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",  # with no-referrer browsers would send "Origin: null" with our own forms
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Headers:
    """Puts the headers of a strict site on every answer that has none of its own."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        await self._app(scope, receive, send_with_headers)


class Guard:
    """Lets in who has a session, and puts the viewer into the scope."""

    def __init__(self, app: ASGIApp, room: Room) -> None:
        self._app, self._room = app, room
        self._hosts = allowed_hosts(room)
        self._origins = allowed_origins(room)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        refusal = self._refusal(request)
        await (refusal or self._app)(scope, receive, send)

    def _refusal(self, request: Request) -> Response | None:
        path = request.url.path
        if path not in HOSTLESS and request.headers.get("Host", "").lower() not in self._hosts:
            # DNS rebinding: a foreign name that leads here would make a foreign page's requests look like ours.
            where = self._room.base_url
            return PlainTextResponse(
                f"Descent does not answer under this name; open {where}, or set PUBLIC_URL.\n", 400
            )
        origin = request.headers.get("Origin")
        if request.method not in {"GET", "HEAD"} and path != "/webhook" and origin not in self._origins:
            return PlainTextResponse("This form does not come from Descent's own pages.\n", 403)
        key_counts = not self._room.by_login
        if request.method == "GET" and "key" in request.query_params and key_counts:
            return self._enter(request)
        request.scope["viewer"] = session_of(request, self._room)
        if request.scope["viewer"] is not None or path in OPEN or path.startswith("/static/"):
            return None
        return self._stranger(request)

    def _enter(self, request: Request) -> Response:
        if not self._room.sessions.fits(request.query_params["key"]):
            return self._closed(request, "This is not the key", "It may be that of another Descent.")
        rest = [pair for pair in parse_qsl(request.url.query, keep_blank_values=True) if pair[0] != "key"]
        # Only path and query: an address with a host in it could lead away from here.
        target = URL(path="/" + request.url.path.lstrip("/"), query=urlencode(rest))
        answer = RedirectResponse(str(target), 303)
        set_session(answer, self._room, self._room.sessions.open_with_key())
        return answer

    def _stranger(self, request: Request) -> Response:
        wants_page = "text/html" in request.headers.get("Accept", "") and request.method == "GET"
        if not wants_page or "HX-Request" in request.headers:
            return PlainTextResponse("Open the dashboard with its key, or log in, first.\n", 401)
        if self._room.by_login:
            asked = request.url.path + (f"?{request.url.query}" if request.url.query else "")
            return RedirectResponse(f"/login?{urlencode({'next': asked})}", 303)
        if request.headers.get("Sec-Fetch-Site") == "cross-site":
            # A link on GitHub led here, and the browser keeps the strict cookie back; a step from here to here has it.
            return HTMLResponse('<!doctype html><meta http-equiv="refresh" content="0"><title>Descent</title>', 401)
        return self._closed(request, "Open the dashboard with its key", "")

    def _closed(self, request: Request, title: str, words: str) -> Response:
        return page(request, "closed.html", 401, title=title, words=words)


def allowed_hosts(room: Room) -> frozenset[str]:
    """The values of Host that we answer to."""
    public = urlsplit(room.settings.public_url).netloc.lower()
    return frozenset({*_local_hosts(room), *([public] if public else [])})


def allowed_origins(room: Room) -> frozenset[str]:
    """The values of Origin that our own pages send."""
    public = urlsplit(room.settings.public_url.lower())
    local = {f"http://{host}" for host in _local_hosts(room)}
    return frozenset(local | ({f"{public.scheme}://{public.netloc}"} if public.netloc else set()))


def _local_hosts(room: Room) -> set[str]:
    names, port = {*LOCAL_HOSTS, url_host(room.settings.host.lower())}, room.settings.port
    return {f"{name}:{port}" for name in names} | (names if port == 80 else set())


def session_of(request: Request, room: Room | None = None) -> Viewer | None:
    """Who comes with the request's cookie now: they may have logged out since it came."""
    room = room or room_of(request)
    cookie = request.cookies.get(room.sessions.cookie)
    return room.sessions.viewer(cookie, key_is_enough=not room.by_login)


def set_session(answer: Response, room: Room, value: str) -> None:
    """Give a session's cookie to the browser."""
    # GitHub sends people back here after a login, and a strict cookie would not come with them.
    same_site: Literal["lax", "strict"] = "lax" if room.by_login else "strict"
    sessions = room.sessions
    answer.set_cookie(
        sessions.cookie, value, max_age=SESSION_S, httponly=True, secure=sessions.secure, samesite=same_site,
    )  # fmt: skip


async def checked_form(request: Request) -> dict[str, str]:
    """The fields of a form that came from a page of this very session.

    Raises:
        HTTPException: 403, it did not.
    """
    room, viewer = request.app.state.room, viewer_of(request)
    length = request.headers.get("Content-Length", "")
    if not length.isdigit() or int(length) > 65536:
        raise HTTPException(413, "The form is too large.")
    form = await request.form()
    fields = {name: value for name, value in form.items() if isinstance(value, str)}
    given = request.headers.get("X-CSRF-Token") or fields.get("csrf", "")
    if not room.sessions.is_csrf_token(viewer, given):
        raise HTTPException(403, "This form is out of date: go back, reload the page, and try again.")
    return fields
