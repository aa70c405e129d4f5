"""Answers to what went wrong: a page for people, a line for programs, never a traceback."""

import structlog
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response

from ci_bot.github.errors import GitHubError
from ci_bot.web.guard import HEADERS
from ci_bot.web.rights import LoginAgain
from ci_bot.web.room import page

TITLES = {
    400: "This can't be done",
    401: "Who are you?",
    403: "This is not yours to do",
    404: "Not found",
    405: "This can't be done here",
    409: "Not now",
    413: "Too large",
    500: "Something broke here",
    503: "Not available right now",
}
BROKEN = "This is a defect of Descent's; its log says more. What was accepted is not lost."
NOTHING = "There is nothing under this address."
log = structlog.get_logger(__name__)


class Refusal(HTTPException):
    """An answer with a title of its own, and where to go from there: words and an address."""

    def __init__(
        self, status: int, words: str, *, title: str, back: str = "/", onward: tuple[str, str] | None = None
    ) -> None:
        super().__init__(status, words)
        self.title, self.back, self.onward = title, back, onward


async def refused(request: Request, error: Exception) -> Response:
    """An answer that a handler chose to be one."""
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for nothing else
    words = NOTHING if error.detail == "Not Found" else error.detail
    if isinstance(error, Refusal) and wants_page(request):
        return page(
            request,
            "message.html",
            error.status_code,
            title=error.title,
            words=words,
            back=error.back,
            onward=error.onward,
        )
    return answer(request, error.status_code, words, dict(error.headers or {}))


async def github_away(request: Request, error: Exception) -> Response:
    """GitHub could not be asked what this person may do."""
    log.warning("github can't be asked", why=str(error))
    return answer(request, 503, "GitHub can't be asked right now what you may see and do. Try again in a minute.", {})


async def login_again(request: Request, error: Exception) -> Response:
    """GitHub no longer takes the person's token."""
    if request.method == "GET" and "HX-Request" not in request.headers:
        return RedirectResponse("/login", 303)
    return answer(request, 401, "Log in again.", {})


async def broken(request: Request, error: Exception) -> Response:
    """A defect of ours."""
    log.error("a request failed", path=request.url.path, why=type(error).__name__)  # uvicorn logs the traceback
    return answer(request, 500, BROKEN, HEADERS)  # it is made outside of what puts them on


def answer(request: Request, status: int, words: str, headers: dict[str, str]) -> Response:
    """In the form that was asked for."""
    made: Response
    if request.url.path.endswith(".json"):
        made = JSONResponse({"error": words}, status)
    elif wants_page(request):
        title = TITLES.get(status, TITLES[500 if status >= 500 else 400])
        made = page(request, "message.html", status, title=title, words=words, back="/")
    else:
        made = PlainTextResponse(f"{words}\n", status)
    made.headers.update(headers)
    return made


def wants_page(request: Request) -> bool:
    """Whether a person asks, with a browser."""
    return "text/html" in request.headers.get("Accept", "")


HANDLERS = {HTTPException: refused, GitHubError: github_away, LoginAgain: login_again, Exception: broken}
