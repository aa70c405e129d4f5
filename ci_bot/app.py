"""The composition root: settings in, running web and worker out."""

import asyncio
import json
import os
import socket
import time
import uuid
from collections.abc import Mapping
from pathlib import Path

import structlog

from ci_bot.exposed import require_hidden
from ci_bot.github.client import GitHub
from ci_bot.settings import AppCredentials, Settings, SettingsError
from ci_bot.store.engine import migrate, open_engine
from ci_bot.worker.books import Books
from ci_bot.worker.intake import Intake
from ci_bot.worker.launch import Launch
from ci_bot.worker.process import Loops, Signals, Worker
from ci_bot.worker.recovery import Recovery
from ci_bot.worker.render import Renderer
from ci_bot.worker.reporting import Reporting
from ci_bot.worker.source import GitHubSource
from ci_bot.worker.waiting import any_of
from launcher.attempt import Rules
from launcher.keep import Keep
from launcher.machine_table import read as read_machines
from launcher.machines import Machines
from launcher.placement import Limits
from launcher.ray_backend import Connection, RayBackend
from launcher.ray_head import Head

log = structlog.get_logger()


def machines(settings: Settings) -> Machines:
    """What machine types mean here.

    Raises:
        SettingsError: MACHINES can't be used; names every problem with its line.
    """
    if settings.machines is None:
        return Machines()
    try:
        table = read_machines(settings.machines.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"MACHINES: {settings.machines} can't be read: {error}") from error
    if isinstance(table, tuple):
        raise SettingsError("\n".join(problem.at(str(settings.machines)) for problem in table))
    return Machines(table)


def rules(settings: Settings) -> Rules:
    """The operator's word on how attempts run."""
    return Rules(
        isolation=settings.isolation,
        time_limit_s=settings.time_limit_s,
        grace_s=settings.grace_s,
        log_max_bytes=settings.log_max_bytes,
        allow_shared_hosts=settings.allow_shared_hosts,
        shared_storage=settings.storage_dir is not None,
        fence_s=settings.fence_s,
    )


def cluster(settings: Settings, environ: Mapping[str, str]) -> Connection | None:
    """Where Ray's head is now: RAY_ADDRESS, or the local one that `up` has on record."""
    if settings.ray_address:
        token_path = environ.get("RAY_AUTH_TOKEN_PATH") or str(settings.data_dir / "ray-token")
        return Connection(settings.ray_address, Path(token_path))
    try:
        head = Head.load(json.loads((settings.data_dir / "up.json").read_text())["ray"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):  # not there, half written, or of another version
        return None
    return Connection(head.address, head.token_path) if head.address else None


async def work(settings: Settings, environ: Mapping[str, str]) -> int:
    """Run the worker until a signal: SIGTERM lets go of what runs, SIGINT puts it back into the queue.

    Raises:
        SettingsError: commands could read what is ours, or MACHINES can't be used.
    """
    require_hidden(settings, environ)
    signals = Signals.of_this_process()
    engine = open_engine(settings.store_url)
    await asyncio.to_thread(migrate, engine)
    credentials = await _credentials(settings, signals.stop)
    if credentials is None:
        return 0
    books = Books(engine, f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}")
    github = GitHub(credentials, api_url=settings.github_api_url, url=settings.github_url)
    backend = RayBackend(
        lambda: cluster(settings, environ),
        environment=environ,
        fence_s=settings.fence_s,
        storage_dir=settings.storage_dir,
    )
    worker = Worker(books, backend, loops(settings, books, github, backend, credentials), signals)
    try:
        return await worker.run(settings.data_dir / "nudge.sock", drain_s=settings.grace_s + 15)
    finally:
        await backend.close()
        await github.close()
        await asyncio.to_thread(books.close)


def loops(settings: Settings, books: Books, github: GitHub, backend: RayBackend, credentials: AppCredentials) -> Loops:
    """The worker's loops, each waking those that its changes concern."""
    keep = Keep(settings.data_dir)
    render = Renderer(keep, settings.dashboard_url, settings.log_max_bytes, lambda: launch.queue.machines)
    reporting = Reporting(books, github, render)
    launch = Launch(
        books=books,
        backend=backend,
        keep=keep,
        source=GitHubSource(github, settings.github_url),
        machines=machines(settings),
        rules=rules(settings),
        limits=Limits(settings.max_running or None, settings.max_running_per_repository or None),
        queue_s=settings.queue_s,
        require_container=settings.require_container,
        changed=reporting.wake.set,
    )

    def changed() -> None:
        launch.wake.set()
        reporting.wake.set()

    intake = Intake(books, github, credentials.app_id, credentials.slug, changed)
    recovery = Recovery(books, github, polling=not settings.public_url, changed=intake.wake.set)
    return Loops(intake, launch, reporting, recovery)


async def _credentials(settings: Settings, stop: asyncio.Event) -> AppCredentials | None:
    """The App's credentials; before set-up has written them there is nothing to do."""
    waiting_since = time.monotonic()
    told = False
    while not stop.is_set():
        if credentials := settings.credentials():
            return credentials
        if not told and time.monotonic() - waiting_since > 1:
            told = True
            log.info("no GitHub App yet: open /setup on the dashboard")
        await any_of(stop, limit_s=0.5)
    return None
