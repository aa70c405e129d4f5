"""Login with GitHub: the OAuth web flow, with a state bound to the browser and PKCE.

Source: https://docs.github.com/apps/creating-github-apps/authenticating-with-a-github-app
"""

import hmac
import secrets

import structlog
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from ci_bot.github.errors import Rejected
from ci_bot.web.guard import checked_form, set_session
from ci_bot.web.room import LOGIN_COOKIE, page, room_of

LOGIN_S = 600
log = structlog.get_logger(__name__)


async def login(request: Request) -> Response:
    """`/login`: off to GitHub."""
    room = room_of(request)
    credentials = room.settings.credentials()
    if not room.by_login or credentials is None:
        raise HTTPException(404, "Without PUBLIC_URL and a GitHub App the dashboard is opened with its key.")
    if not credentials.client_id:
        raise HTTPException(503, "GITHUB_CLIENT_ID and GITHUB_CLIENT_SECRET are not set; nobody can log in.")
    state, verifier = secrets.token_urlsafe(24), secrets.token_urlsafe(48)
    kept = {"state": state, "verifier": verifier, "next": local_path(request.query_params.get("next", "/"))}
    answer = RedirectResponse(room.github().authorize_url(_callback(request), state, verifier), 303)
    answer.set_cookie(
        LOGIN_COOKIE, room.sessions.sealed("login", kept), max_age=LOGIN_S, path="/login",
        httponly=True, secure=room.sessions.secure, samesite="lax",
    )  # fmt: skip
    return answer


async def callback(request: Request) -> Response:
    """`/login/callback`: back from GitHub with a code."""
    room, query = room_of(request), request.query_params
    kept = room.sessions.unsealed("login", request.cookies.get(LOGIN_COOKIE, ""), LOGIN_S)
    if (
        not room.by_login
        or kept is None
        or not hmac.compare_digest(kept["state"].encode(), query.get("state", "").encode())
    ):
        raise HTTPException(400, "This login was not begun here, or took too long: log in again.")
    if query.get("error"):
        raise HTTPException(403, "GitHub says that you did not agree to log in.")
    github = room.github()
    try:
        token = await github.exchange_code(query.get("code", ""), kept["verifier"], _callback(request))
        user = await github.user(token.value)
    except Rejected as error:
        raise HTTPException(400, f"GitHub does not take this login: {error}") from error
    log.info("logged in", login=user.login)
    answer = RedirectResponse(kept["next"], 303)
    answer.delete_cookie(LOGIN_COOKIE, path="/login")
    set_session(answer, room, room.sessions.log_in(user, token, github))
    return answer


async def logout(request: Request) -> Response:
    """`POST /logout`: forget the session."""
    await checked_form(request)
    room = room_of(request)
    room.sessions.log_out(request.scope["viewer"])
    room.live.wake()  # what this session still streams ends now
    answer = page(request, "message.html", title="You are logged out", words="", back=None)
    answer.delete_cookie(room.sessions.cookie, secure=room.sessions.secure, httponly=True)
    return answer


def local_path(asked: str) -> str:
    """The path to go on to, which must be one of ours: "//host" and "/\\\\host" lead away."""
    plain = asked.isprintable() and asked.startswith("/") and asked[1:2] not in {"/", "\\"}
    return asked if plain else "/"


def _callback(request: Request) -> str:
    return f"{room_of(request).settings.public_url}/login/callback"
