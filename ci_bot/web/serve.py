"""Web, composed and served; it never imports Ray."""

import asyncio
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import lru_cache
from pathlib import Path
from types import FrameType

import uvicorn
from sqlalchemy import Engine
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from ci_bot.nudge import Nudge
from ci_bot.records import Experiment
from ci_bot.settings import Settings
from ci_bot.store import experiments, migrate, open_engine, reading
from ci_bot.store.inbox import Inbox
from ci_bot.web import actions, files, health, login, pages, setup, stream
from ci_bot.web.errors import HANDLERS
from ci_bot.web.guard import Guard, Headers
from ci_bot.web.live import Live
from ci_bot.web.rights import Sessions
from ci_bot.web.room import Room, environment, secrets_of
from ci_bot.web.webhook import Ahead, Webhook
from launcher.guardian.segments import Segments
from launcher.keep import Keep

STATIC = Path(__file__).parent / "static"
KEEP_ALIVE_S = 75
"""Longer than a proxy keeps its connections (60 s is usual), which would else use one that is just being closed."""
SHUTDOWN_S = 5


def create_app(settings: Settings, engine: Engine | None = None, clock: Callable[[], float] = time.time) -> Starlette:
    """All of web for one DATA_DIR; the tables are brought up to date.

    Args:
        settings: the environment.
        engine: the database, which is closed with the app; else it is opened.
        clock: seconds since the epoch.
    """
    settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    engine = engine or open_engine(settings.store_url)
    migrate(engine)
    nudge = Nudge(settings.data_dir / "nudge.sock")
    inbox = Inbox(engine, nudge.send)
    webhook = Webhook(inbox, webhook_secrets(settings))
    keep = Keep(settings.data_dir)

    def experiment(experiment_id: int) -> Experiment | None:
        with reading(engine) as connection:
            return experiments.get(connection, experiment_id)

    def log_of(experiment_id: int, attempt: int, rank: int) -> Segments:
        return keep.log(experiment_id, attempt, rank, settings.log_max_bytes)

    room = Room(
        settings=settings,
        engine=engine,
        keep=keep,
        sessions=Sessions(settings, clock),
        live=Live(experiment, log_of, secrets_of),
        nudge=nudge.send,
        templates=environment(),
        clock=clock,
    )

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        room.live.close()
        await asyncio.to_thread(inbox.close)
        nudge.close()
        await room.close()

    app = Starlette(
        # A delivery never gets as far as its route, which is there to tell other methods that they are not allowed.
        routes=[Route("/webhook", webhook, methods=["POST"]), *_routes()],
        middleware=[Middleware(Ahead, webhook=webhook), Middleware(Headers), Middleware(Guard, room=room)],
        exception_handlers=HANDLERS,
        lifespan=lifespan,
    )
    app.state.room = room
    return app


def webhook_secrets(settings: Settings) -> Callable[[], tuple[bytes, ...]]:
    """Gives the secrets as they are now; `app.json`, which set-up may write at any time, is read when it is another."""
    path = settings.data_dir / "app.json"

    @lru_cache(maxsize=1)
    def read(version: tuple[int, ...]) -> tuple[bytes, ...]:
        credentials = settings.credentials()
        return tuple(secret.encode() for secret in credentials.webhook_secrets) if credentials else ()

    def now() -> tuple[bytes, ...]:
        if settings.environment_credentials:
            return read(())
        try:
            found = path.stat()
        except FileNotFoundError:
            return ()
        return read((found.st_ino, found.st_mtime_ns, found.st_size))

    return now


def _routes() -> list[Route | Mount]:
    one = "/experiments/{id:int}"
    return [
        Route("/", pages.listing),
        Route("/experiments", pages.listing),
        Route("/experiments.json", pages.listing_json),
        Route(f"{one}.json", pages.experiment_json),
        Route(one, pages.experiment_page),
        Route(f"{one}/events", stream.events),
        Route(f"{one}/log", files.whole_log),
        Route(f"{one}/artifacts/{{path:path}}", files.artifact),
        Route(f"{one}/cancel", actions.cancel, methods=["POST"]),
        Route(f"{one}/rerun", actions.rerun, methods=["POST"]),
        Route("/login", login.login),
        Route("/login/callback", login.callback),
        Route("/logout", login.logout, methods=["POST"]),
        Route("/setup", setup.setup),
        Route("/setup/created", setup.created),
        Route("/setup/installed", setup.installed),
        Route("/healthz", health.healthz),
        Route("/readyz", health.Readiness().answer),
        Route("/metrics", health.metrics),
        Route("/favicon.ico", favicon),
        Mount("/static", StaticFiles(directory=STATIC)),
    ]


async def favicon(request: Request) -> Response:
    """`/favicon.ico`, for browsers that do not read the page first."""
    return FileResponse(STATIC / "favicon.svg", media_type="image/svg+xml")


class Server(uvicorn.Server):
    """Says when it listens, and ends open streams first, which else would keep it from ending."""

    def __init__(self, config: uvicorn.Config, announce: Callable[[], None]) -> None:
        super().__init__(config)
        self._announce = announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say so."""
        await super().startup(sockets)
        if self.started:
            self._announce()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let go of everybody."""
        room: Room = self.config.app.state.room  # type: ignore[union-attr]
        room.live.close()
        await super().shutdown(sockets)


def configured(settings: Settings, app: Starlette) -> uvicorn.Config:
    """How an app is served."""
    return uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="on",
        log_level="warning",
        access_log=False,  # addresses may hold the key
        server_header=False,
        proxy_headers=bool(settings.public_url),
        timeout_graceful_shutdown=SHUTDOWN_S,
        timeout_keep_alive=KEEP_ALIVE_S,
    )


def serve(settings: Settings, announce: Callable[[], None]) -> int:
    """Serve until SIGTERM or SIGINT; what was accepted is stored before it returns 0.

    Args:
        settings: the environment.
        announce: is called once it listens.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _ended)  # uvicorn raises the signal again once it is done; that must not kill us
    server = Server(configured(settings, create_app(settings)), announce)
    server.run()
    return 0 if server.started else 1


def _ended(number: int, frame: FrameType | None) -> None:
    pass
