"""Where `descent run` works: a directory that goes away with it, and its own Ray head unless RAY_ADDRESS is set."""

import asyncio
import os
import secrets
import shutil
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from ci_bot.app import cluster, rules
from ci_bot.run.local import Commit, LocalSource
from ci_bot.settings import Settings
from ci_bot.store.engine import migrate, open_engine
from ci_bot.up import write_secret
from ci_bot.worker.books import Books
from ci_bot.worker.launch import Launch
from launcher import ray_head
from launcher.backend import BackendError
from launcher.keep import Keep
from launcher.machines import Machines
from launcher.placement import Limits
from launcher.ray_backend import Connection, RayBackend
from launcher.ray_head import Head, HeadError, HeadOptions


class NoPlace(Exception):
    """There is no Ray to run on; the text says why."""


class OnlyOurs(Launch):
    """The launch loop on a cluster that others may use: what it does not know is left alone."""

    async def _sweep(self) -> None:
        """Nothing: with a head of its own there is nothing to clear, and on RAY_ADDRESS it may be somebody's."""


@dataclass(frozen=True)
class Place:
    """What a run works with."""

    books: Books
    launch: Launch
    keep: Keep
    changed: asyncio.Event


@asynccontextmanager
async def temporary(
    settings: Settings, environ: Mapping[str, str], commit: Commit, known: Machines
) -> AsyncIterator[Place]:
    """A place, gone at the end with everything in it.

    Raises:
        NoPlace: Ray did not start, does not answer, or is somebody else's.
    """
    root = Path(tempfile.mkdtemp(prefix="descent-run-"))
    head: Head | None = None
    try:
        if settings.ray_address:
            connection = cluster(settings, environ)
        else:
            head = await asyncio.to_thread(_head, root, environ)
            connection = Connection(head.address, head.token_path)
        backend = RayBackend(
            lambda: connection, environment=environ, fence_s=settings.fence_s, storage_dir=settings.storage_dir
        )
        try:
            await _reach(backend, shared=head is None)
            async with _working(settings, backend, commit, known, root) as place:
                yield place
        finally:
            await backend.close()
    finally:
        if head:
            await asyncio.to_thread(ray_head.stop, head)
        await asyncio.to_thread(shutil.rmtree, root, ignore_errors=True)


@asynccontextmanager
async def _working(
    settings: Settings, backend: RayBackend, commit: Commit, known: Machines, root: Path
) -> AsyncIterator[Place]:
    engine = open_engine(f"sqlite:///{root / 'descent.db'}")
    books = Books(engine, f"run-{os.getpid()}")
    keep, changed = Keep(root), asyncio.Event()
    launch = OnlyOurs(
        books=books,
        backend=backend,
        keep=keep,
        source=LocalSource(commit),
        machines=known,
        rules=rules(settings),
        limits=Limits(),
        queue_s=settings.queue_s,
        require_container=settings.require_container,
        changed=changed.set,
    )
    try:
        await asyncio.to_thread(migrate, engine)
        await books.open()
        yield Place(books, launch, keep, changed)
    finally:
        await launch.leave()
        await asyncio.to_thread(books.close)
        engine.dispose()


def _head(root: Path, environ: Mapping[str, str]) -> Head:
    token_path = root / "ray-token"
    write_secret(token_path, secrets.token_hex(32))
    try:
        return ray_head.start({**environ, "NODE_DIR": str(root / "node")}, token_path, HeadOptions())
    except HeadError as error:
        raise NoPlace(str(error)) from error


async def _reach(backend: RayBackend, *, shared: bool) -> None:
    try:
        await backend.connect()
        if not shared:
            return
        found = await backend.reservations()
        for node in (await backend.capacity()).alive:
            found += await backend.agent(node.node_id).inventory()
    except BackendError as error:
        raise NoPlace(f"Ray does not answer: {error}") from error
    if found:
        text = (
            f"experiments of a Descent worker are on this cluster ({', '.join(sorted(found)[:3])}); a cluster has one"
        )
        raise NoPlace(f"{text}: push the commit instead, or unset RAY_ADDRESS to run on this host")
