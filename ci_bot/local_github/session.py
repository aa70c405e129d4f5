"""Who looks at a page: a signed cookie, the token in forms that proves them ours, and how pages are drawn."""

import hashlib
import hmac
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from ci_bot.local_github.calls import Refusal
from ci_bot.local_github.hub import Hub
from ci_bot.local_github.markdown import render as render_markdown
from ci_bot.local_github.page_key import page_key
from ci_bot.local_github.state import World

KEY_HINT = (
    "Open the address with ?key=… that the terminal showed when this server was started; "
    "“make demo” shows it behind the word “commit”."
)
COOKIE = "local_github_user"
KEY_COOKIE = "local_github_key"
TEMPLATES = Path(__file__).with_name("templates")
_POLICY = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'"


def when(at: float | None) -> str:
    """A time for people."""
    return "" if at is None else datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _environment() -> Environment:
    made = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined)
    made.filters |= {"markdown": render_markdown, "when": when}
    return made


_PAGES = _environment()


def _mark(world: World, purpose: str, login: str) -> str:
    return hmac.new(world.signing_key, f"{purpose} {login}".encode(), hashlib.sha256).hexdigest()


def signed_in(hub: Hub, request: Request) -> str | None:
    """The login of whoever looks at the page, or None."""
    login, _, mark = request.cookies.get(COOKIE, "").rpartition(".")
    known = login.lower() in hub.world.accounts
    return login if known and hmac.compare_digest(_mark(hub.world, "session", login), mark) else None


def sign_in(hub: Hub, response: Response, login: str) -> Response:
    """Let a browser be a person from now on."""
    value = f"{login}.{_mark(hub.world, 'session', login)}"
    response.set_cookie(COOKIE, value, httponly=True, samesite="lax")
    return response


def take_key(hub: Hub, request: Request) -> Response | None:
    """Where an address has the key, it goes into a cookie and out of the address; with it one may be somebody at once.

    Raises:
        Refusal: 403 where it is another key.
    """
    given = request.query_params.get("key")
    if given is None or request.method != "GET":
        return None
    if not hmac.compare_digest(given.encode(), page_key(hub.control_token).encode()):
        raise Refusal(403, f"This is not the key of this server. {KEY_HINT}")
    kept = [(name, value) for name, value in request.query_params.multi_items() if name not in ("key", "as")]
    rest = urlencode(kept)
    answer = RedirectResponse(local_path(request.url.path + (f"?{rest}" if rest else "")), 303)
    answer.set_cookie(KEY_COOKIE, given, httponly=True, samesite="lax")
    account = hub.world.accounts.get(request.query_params.get("as", "").lower())
    return sign_in(hub, answer, account.login) if account and account.type == "User" else answer


def has_key(hub: Hub, request: Request) -> bool:
    """Whether this browser was opened with the key."""
    given = request.cookies.get(KEY_COOKIE, "")
    return hmac.compare_digest(given.encode(), page_key(hub.control_token).encode())


def must_sign_in(request: Request) -> Response:
    """To the page where one chooses who to be, and back."""
    back = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    return RedirectResponse(f"/login?{urlencode({'return_to': back})}", 303)


async def form_of(hub: Hub, request: Request) -> FormData:
    """The form that one of our own pages sent.

    Raises:
        Refusal: 403 where it is not from a page that this person was given.
    """
    form = await request.form()
    login = signed_in(hub, request) or ""
    if not hmac.compare_digest(str(form.get("authenticity_token", "")), _mark(hub.world, "form", login)):
        raise Refusal(403, "This form was not given to you by this server. Load the page again.")
    return form


def page(
    hub: Hub, request: Request, template: str, values: Mapping[str, Any] | None = None, *, status: int = 200
) -> Response:
    """A page."""
    login = signed_in(hub, request)
    people = [each for each in list(hub.world.accounts.values()) if each.type == "User"]
    html = _PAGES.get_template(template).render(
        viewer=login,
        people=people,
        authenticity_token=_mark(hub.world, "form", login or ""),
        here=request.url.path,
        **(values or {}),
    )
    headers = {"Content-Security-Policy": _POLICY, "X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer"}
    return HTMLResponse(html, status, headers)


def local_path(text: object) -> str:
    """A path of this server, to which one may be sent back; anything else becomes the first page."""
    path = str(text or "/")
    return quote(path, safe="/?&=%#:+,-._~") if path.startswith("/") and not path.startswith(("//", "/\\")) else "/"


def with_query(address: str, query: Mapping[str, str | None]) -> str:
    """An address with more in its query."""
    given = {key: value for key, value in query.items() if value is not None}
    return f"{address}{'&' if '?' in address else '?'}{urlencode(given)}" if given else address
