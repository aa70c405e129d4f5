"""`/setup`: makes the GitHub App out of its manifest, once; closed as soon as there is one."""

import asyncio
import hmac
import json
import os
import re
import secrets
from pathlib import Path

import structlog
from starlette.requests import Request
from starlette.responses import Response

from ci_bot.github.answers import NewApp
from ci_bot.github.errors import Gone, Rejected
from ci_bot.web import manifest
from ci_bot.web.errors import Refusal
from ci_bot.web.guard import POLICY
from ci_bot.web.room import SETUP_COOKIE, Room, page, room_of

SETUP_S = 3600
"""GitHub wants all three steps within an hour."""
_ORGANIZATION = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,38}")
CLOSED = "This Descent has a GitHub App"
AGAIN = "Begin the set-up again"
log = structlog.get_logger(__name__)


async def setup(request: Request) -> Response:
    """`GET /setup`: whose App it is to be, and its name; then the form that takes the manifest to GitHub."""
    room, query = room_of(request), request.query_params
    _must_be_open(room)
    organization, name = query.get("organization", "").strip(), query.get("name", "").strip()
    problem = ""
    if organization and not _ORGANIZATION.fullmatch(organization):
        problem = "An organization's name has letters, digits and hyphens, as in its address on GitHub."
    if problem or "name" not in query or "change" in query:
        name = name or manifest.template()["name"]
        status = 400 if problem else 200
        return page(request, "setup.html", status, organization=organization, name=name, problem=problem)
    return _to_github(request, organization, name)


def _to_github(request: Request, organization: str, name: str) -> Response:
    """The page whose button posts the manifest to GitHub."""
    room = room_of(request)
    state = secrets.token_urlsafe(24)
    public = bool(room.settings.public_url)
    wanted = manifest.filled(manifest.template(), room.base_url, reachable=public, name=name)
    answer = page(
        request,
        "manifest.html",
        action=manifest.creation_url(room.settings.github_url, organization, state),
        manifest=json.dumps(wanted),
        wanted=wanted,
        organization=organization,
        name=wanted["name"],
        public=public,
        base_url=room.base_url,
    )
    # The one form of ours that goes elsewhere.
    answer.headers["Content-Security-Policy"] = POLICY.replace(
        "form-action 'self'", f"form-action 'self' {room.settings.github_url}"
    )
    answer.set_cookie(
        SETUP_COOKIE, room.sessions.sealed("setup", {"state": state}), max_age=SETUP_S, path="/setup",
        httponly=True, secure=room.sessions.secure, samesite="lax",
    )  # fmt: skip
    return answer


async def created(request: Request) -> Response:
    """`GET /setup/created`: back from GitHub with the code for the App's credentials.

    The strict session cookie does not come along from GitHub; the sealed state, which only a session was given, does.
    """
    room, query = room_of(request), request.query_params
    _must_be_open(room)
    kept = room.sessions.unsealed("setup", request.cookies.get(SETUP_COOKIE, ""), SETUP_S)
    if kept is None or not hmac.compare_digest(kept["state"].encode(), query.get("state", "").encode()):
        words = "It was not begun in this browser, or took more than an hour."
        raise Refusal(400, words, title=AGAIN, back="/setup")
    try:
        app = await room.github().convert_manifest(query.get("code", ""))
    except (Gone, Rejected) as error:
        raise Refusal(400, "GitHub does not know this code, or no longer.", title=AGAIN, back="/setup") from error
    try:
        await asyncio.to_thread(keep_credentials, room.settings.data_dir / "app.json", app)
    except FileExistsError:
        raise _closed(room) from None
    log.info("the GitHub App was created", app_id=app.id, slug=app.slug)
    room.nudge()
    install = _install_url(room, app.slug)
    answer = page(request, "created.html", app=app, install=install, public=bool(room.settings.public_url))
    answer.delete_cookie(SETUP_COOKIE, path="/setup")
    return answer


async def installed(request: Request) -> Response:
    """`GET /setup/installed`: where GitHub leads after an installation. It proves nothing, and nothing is done here."""
    words = "Push a commit with a configuration file to a repository that you chose, and watch it here."
    return page(request, "message.html", title="The App is installed", words=words, back="/")


def keep_credentials(path: Path, app: NewApp) -> None:
    """Write what GitHub shows this once; only we may read it, and it is there whole or not at all.

    Raises:
        FileExistsError: there are credentials already; they stay.
    """
    kept = {
        "id": app.id,
        "slug": app.slug,
        "pem": app.pem,
        "webhook_secret": app.webhook_secret,
        "client_id": app.client_id,
        "client_secret": app.client_secret,
    }
    part = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump(kept, file, indent=2)
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(part, path)  # unlike a rename it never takes another one's place
    finally:
        part.unlink()


def _must_be_open(room: Room) -> None:
    if room.settings.credentials() is not None:
        raise _closed(room)


def _closed(room: Room) -> Refusal:
    """That set-up is over, and what there is to do instead."""
    credentials = room.settings.credentials()
    slug = credentials.slug if credentials else ""
    which = "GITHUB_APP_ID from the environment" if room.settings.environment_credentials else "app.json from DATA_DIR"
    words = (
        "Set-up is needed once, and is closed now. Install the App on the repositories that shall run experiments. "
        f"To use another App, remove {which}, start Descent again, and come back here."
    )
    install = ("Install the App", _install_url(room, slug)) if slug else None
    return Refusal(404, words, title=CLOSED, onward=install)


def _install_url(room: Room, slug: str) -> str:
    return f"{room.settings.github_url}/apps/{slug}/installations/new"
