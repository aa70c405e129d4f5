"""What all pages share: the settings, the database, the bytes that are kept, GitHub, and who may see what."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, cast

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from sqlalchemy import Connection, Engine
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse

from ci_bot.github.client import GitHub
from ci_bot.records import Experiment, Repository
from ci_bot.report.nodes import told_by
from ci_bot.settings import AppCredentials, Settings
from ci_bot.store import begin, reading, repositories
from ci_bot.web.live import Live
from ci_bot.web.rights import Sessions, Viewer
from ci_bot.web.view import secrets_of as secrets_of
from launcher.guardian.segments import Segments
from launcher.keep import Keep, StoredFile

T = TypeVar("T")
TEMPLATES = Path(__file__).parent / "templates"
LOGIN_COOKIE = "descent-login"
SETUP_COOKIE = "descent-setup"


@dataclass
class Room:
    """Web's shared things; one for each app."""

    settings: Settings
    engine: Engine
    keep: Keep
    sessions: Sessions
    live: Live
    nudge: Callable[[], None]
    templates: Environment
    clock: Callable[[], float] = time.time
    _github: tuple[AppCredentials | None, GitHub] | None = field(default=None, repr=False)
    _old: list[GitHub] = field(default_factory=list, repr=False)

    @property
    def base_url(self) -> str:
        """Where people find the dashboard."""
        return self.settings.dashboard_url

    @property
    def by_login(self) -> bool:
        """People log in with GitHub: there is an address to come back to, and an App to log in with."""
        return bool(self.settings.public_url) and self.settings.credentials() is not None

    def github(self) -> GitHub:
        """The client, with the App's credentials as they are now."""
        credentials = self.settings.credentials()
        if self._github is None or self._github[0] != credentials:
            if self._github:
                self._old.append(self._github[1])
            client = GitHub(credentials, api_url=self.settings.github_api_url, url=self.settings.github_url)
            self._github = (credentials, client)
        return self._github[1]

    async def close(self) -> None:
        """Close the connections to GitHub and to the database."""
        for client in [*self._old, *([self._github[1]] if self._github else [])]:
            await client.close()
        await asyncio.to_thread(self.engine.dispose)

    async def read(self, work: Callable[[Connection], T]) -> T:
        """The outcome of a reading transaction, in a thread."""

        def within() -> T:
            with reading(self.engine) as connection:
                return work(connection)

        return await asyncio.to_thread(within)

    async def write(self, work: Callable[[Connection], T]) -> T:
        """The outcome of a writing transaction, in a thread."""
        return await asyncio.to_thread(self.write_now, work)

    def write_now(self, work: Callable[[Connection], T]) -> T:
        """The outcome of a writing transaction; blocks."""
        with begin(self.engine) as connection:
            return work(connection)

    async def in_thread(self, work: Callable[[], T]) -> T:
        """The outcome of something that reads the disk."""
        return await asyncio.to_thread(work)

    def log_of(self, experiment_id: int, attempt: int, rank: int) -> Segments:
        """The log of one node of an attempt."""
        return self.keep.log(experiment_id, attempt, rank, self.settings.log_max_bytes)

    def telling_rank(self, experiment: Experiment) -> int:
        """The node whose log is shown unless another is chosen; one that printed nothing tells nothing; blocks."""
        rank = told_by(experiment)
        return rank if rank and self.log_of(experiment.id, experiment.progress.attempt, rank).size else 0

    async def files(self, experiment: Experiment) -> list[StoredFile]:
        """What its newest attempt has left, as far as it has arrived."""
        store = self.keep.artifacts(experiment.id, experiment.progress.attempt)
        return await asyncio.to_thread(store.files)


def place_of(connection: Connection, experiment: Experiment) -> Repository:
    """The repository as it is known now; what the experiment remembers of it, should it be gone."""
    known = repositories.get(connection, experiment.repository_id)
    return known or Repository(experiment.repository_id, experiment.installation_id, experiment.full_name, "")


def room_of(request: Request) -> Room:
    """The app's."""
    return cast("Room", request.app.state.room)


def viewer_of(request: Request) -> Viewer:
    """Who looks; the guard has let nobody else in."""
    viewer = request.scope.get("viewer")
    if viewer is None:
        raise HTTPException(401)
    return cast("Viewer", viewer)


def environment() -> Environment:
    """The templates; everything that is put into one is escaped."""
    return Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip


def page(request: Request, template: str, status: int = 200, **values: Any) -> HTMLResponse:
    """A page of the dashboard."""
    room, viewer = room_of(request), request.scope.get("viewer")
    shared = {
        "viewer": viewer,
        "csrf": room.sessions.csrf_token(viewer) if viewer else "",
        "by_login": room.by_login,
        "github_url": room.settings.github_url,
    }
    return HTMLResponse(room.templates.get_template(template).render(shared | values), status)
