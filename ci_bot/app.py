"""The composition root: settings in, running web and worker out."""

import asyncio
import json
import os
import signal
import socket
import time
import uuid
from collections.abc import Mapping
from pathlib import Path

import structlog

from ci_bot.config.mask import is_secret_name, mask
from ci_bot.github.client import GitHub
from ci_bot.nudge import Listener
from ci_bot.records import CheckRun, Experiment, Transition
from ci_bot.report import check_run as report
from ci_bot.settings import AppCredentials, Settings, SettingsError
from ci_bot.store.engine import LeaseLost, migrate, open_engine
from ci_bot.worker.books import Books
from ci_bot.worker.intake import Intake
from ci_bot.worker.launch import Launch
from ci_bot.worker.recovery import Recovery
from ci_bot.worker.reporting import Reporting
from ci_bot.worker.source import GitHubSource
from launcher.backend import BackendError
from launcher.controller import Rules
from launcher.keep import Keep
from launcher.machine_table import read as read_machines
from launcher.machines import Machines
from launcher.placement import Limits
from launcher.ray_backend import Connection, RayBackend
from launcher.ray_head import Head
from launcher.state import Cause

TAIL_BYTES = 128 << 10
LOSES_LOG = frozenset({Cause.NODE_LOST, Cause.HEAD_LOST, Cause.NOT_PROVEN_CLEAN})
"""Ends after which the end of the log may still be on the node."""
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
        fence_s=settings.fence_s,
    )


def cluster(settings: Settings, environ: Mapping[str, str]) -> Connection | None:
    """Where Ray's head is now: RAY_ADDRESS, or the local one that `up` has on record."""
    if settings.ray_address:
        token_path = environ.get("RAY_AUTH_TOKEN_PATH") or str(settings.data_dir / "ray-token")
        return Connection(settings.ray_address, Path(token_path))
    try:
        head = Head.load(json.loads((settings.data_dir / "up.json").read_text())["ray"])
    except (FileNotFoundError, ValueError, KeyError):
        return None
    return Connection(head.address, head.token_path) if head.address else None


class Renderer:
    """Experiments as check runs, with the bytes that are kept of them."""

    def __init__(self, settings: Settings, keep: Keep, known: Machines) -> None:
        self.settings = settings
        self.keep = keep
        self.machines = known

    def __call__(self, experiment: Experiment, history: tuple[Transition, ...]) -> CheckRun:
        """The check run that should be on GitHub."""
        kept = self.keep.log(experiment.id, experiment.progress.attempt, self.settings.log_max_bytes)
        size = kept.size
        ended = experiment.ended_at is not None
        files = self.keep.artifacts(experiment.id, experiment.progress.attempt).files() if ended else []
        view = report.View(
            experiment=experiment,
            transitions=history,
            log_tail=kept.read(max(0, size - TAIL_BYTES), TAIL_BYTES).data if ended else b"",
            log_size=size if ended else 0,
            log_final=ended and experiment.progress.cause not in LOSES_LOG,
            artifacts=tuple((file.path, file.size) for file in files),
            details_url=f"{dashboard_url(self.settings)}/experiments/{experiment.id}",
            now=time.time(),
            machine=machine_text(self.machines, experiment),
            secrets=tuple(value for name, value in experiment.specification.env.items() if is_secret_name(name)),
            configuration="" if experiment.trusted else mask(experiment.configuration_source),
        )
        return report.experiment_check_run(view)


def dashboard_url(settings: Settings) -> str:
    """Where people find the dashboard."""
    return settings.public_url or f"http://{settings.host}:{settings.port}"


def machine_text(known: Machines, experiment: Experiment) -> str:
    """What the first node group runs on, for a person."""
    machine = known.resolve(experiment.specification.groups[0].machine_type)
    parts = [f"{machine.cpus:g} CPU", *([f"{machine.gpus} GPU"] if machine.gpus else [])]
    if machine.memory_bytes:
        parts.append(f"{machine.memory_bytes / (1 << 30):g} GiB of memory")
    return f"{machine.name} ({', '.join(parts)})"


async def work(settings: Settings, environ: Mapping[str, str]) -> int:
    """Run the worker until a signal: SIGTERM lets go of what runs, SIGINT puts it back into the queue."""
    engine = open_engine(settings.store_url)
    await asyncio.to_thread(migrate, engine)
    stop, drain = _signals()
    credentials = await _credentials(settings, stop)
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
    opening = asyncio.ensure_future(books.open())
    await asyncio.wait({opening, asyncio.ensure_future(stop.wait())}, return_when=asyncio.FIRST_COMPLETED)
    if not opening.done():
        opening.cancel()
        return 0
    keep, known = Keep(settings.data_dir), machines(settings)
    loops = _loops(settings, books, github, backend, keep, known, credentials)
    try:
        return await _run(settings, books, backend, loops, stop, drain)
    except LeaseLost as error:
        log.error("another worker took over", why=str(error))
        return 1
    finally:
        await backend.close()
        await github.close()
        await asyncio.to_thread(books.close)


class Loops:
    """The worker's loops, and how they wake one another."""

    def __init__(self, intake: Intake, launch: Launch, reporting: Reporting, recovery: Recovery) -> None:
        self.intake, self.launch, self.reporting, self.recovery = intake, launch, reporting, recovery

    def wake(self) -> None:
        """Something came in or was wished."""
        self.intake.wake.set()
        self.launch.wake.set()
        self.reporting.wake.set()


def _loops(
    settings: Settings,
    books: Books,
    github: GitHub,
    backend: RayBackend,
    keep: Keep,
    known: Machines,
    credentials: AppCredentials,
) -> Loops:
    reporting = Reporting(books, github, Renderer(settings, keep, known))
    launch = Launch(
        books=books,
        backend=backend,
        keep=keep,
        source=GitHubSource(github, settings.github_url),
        machines=known,
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


async def _run(
    settings: Settings,
    books: Books,
    backend: RayBackend,
    loops: Loops,
    stop: asyncio.Event,
    drain: asyncio.Event,
) -> int:
    """Run the loops until a signal or until the lease is lost."""
    listener = Listener(settings.data_dir / "nudge.sock", loops.wake)
    launching = asyncio.create_task(_launch(loops.launch, backend, stop), name="launch")
    tasks = [
        launching,
        asyncio.create_task(loops.intake.run(stop), name="intake"),
        asyncio.create_task(loops.recovery.run(stop), name="recovery"),
        asyncio.create_task(_watch_lease(books, stop), name="lease"),
    ]
    report_stop = asyncio.Event()
    reporting = asyncio.create_task(loops.reporting.run(report_stop), name="report")
    try:
        done, _ = await asyncio.wait({*tasks, reporting}, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
        await launching  # the others may be waiting for GitHub, and what runs must not wait for that
        if drain.is_set():
            log.info("putting what runs back into the queue")
            await loops.launch.drain(settings.grace_s + 15)
        else:
            await loops.launch.leave()
        return 0
    finally:
        listener.close()
        report_stop.set()
        for task in tasks:
            task.cancel()
        await asyncio.wait({reporting}, timeout=5)
        reporting.cancel()
        await asyncio.gather(*tasks, reporting, return_exceptions=True)
        await loops.launch.leave()


async def _launch(launch: Launch, backend: RayBackend, stop: asyncio.Event) -> None:
    connecting = asyncio.create_task(_connect(backend))
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait({connecting, stopped}, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if stop.is_set():
        connecting.cancel()
        return
    connecting.result()
    await launch.run(stop)


async def _connect(backend: RayBackend) -> None:
    while True:
        try:
            await backend.connect()
            return
        except BackendError as error:
            log.warning("ray can't be reached", why=str(error))


async def _watch_lease(books: Books, stop: asyncio.Event) -> None:
    while not stop.is_set():
        if books.lost.is_set():
            raise LeaseLost("the lease was not renewed in time")
        await asyncio.wait({asyncio.ensure_future(stop.wait())}, timeout=0.5)


def _signals() -> tuple[asyncio.Event, asyncio.Event]:
    """Set by SIGTERM and SIGINT; the second one only by SIGINT."""
    stop, drain = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def drained() -> None:
        drain.set()
        stop.set()

    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_signal_handler(signal.SIGINT, drained)
    return stop, drain


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
        await asyncio.wait({asyncio.ensure_future(stop.wait())}, timeout=0.5)
    return None
