"""Where `descent run` works: a directory that goes away with it, and its own Ray head unless RAY_ADDRESS is set."""

import asyncio
import os
import secrets
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from ci_bot.app import cluster, rules
from ci_bot.run.local import Commit, LocalSource
from ci_bot.settings import Settings
from ci_bot.store.engine import migrate, open_engine
from ci_bot.up import write_secret
from ci_bot.worker.books import Books
from ci_bot.worker.launch import Launch
from launcher import ray_head, trees
from launcher.backend import BackendError
from launcher.group_names import passing_prefix
from launcher.keep import Keep
from launcher.machines import Machines
from launcher.node_types import NodeError
from launcher.placement import Limits
from launcher.ray_backend import Connection, RayBackend
from launcher.ray_head import Head, HeadError, HeadOptions


class NoPlace(Exception):
    """There is no Ray to run on; the text says why."""


class OnlyOurs(Launch):
    """The launch loop on a cluster that others may use: what it does not know is left alone."""

    async def _sweep(self) -> None:
        """Nothing: with a head of its own there is nothing to clear, and on RAY_ADDRESS it is the worker's."""


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
        NoPlace: Ray did not start or does not answer, or its agents can't be used.
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
            lambda: connection,
            environment=environ,
            fence_s=settings.fence_s,
            storage_dir=settings.storage_dir,
            guest=head is None,
        )
        try:
            await _reach(backend)
            async with _working(settings, backend, commit, known, root) as place:
                yield place
        finally:
            await backend.close()
    finally:
        if head:
            await asyncio.to_thread(ray_head.stop, head)
        with suppress(NodeError):  # what can't be removed is the system's to clear away
            await asyncio.to_thread(trees.remove, root)  # the node's copies of the code are read-only


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
        rules=replace(rules(settings), group_prefix=passing_prefix(secrets.token_hex(4))),
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


async def _reach(backend: RayBackend) -> None:
    try:
        await backend.connect()
        nodes = (await backend.capacity()).alive
        for answer in await asyncio.gather(*(_met(backend, node.node_id) for node in nodes), return_exceptions=True):
            if answer is not None:
                raise answer
    except BackendError as error:
        raise NoPlace(f"Ray does not answer: {error}") from error
    except NodeError as error:
        raise NoPlace(f"a worker of Descent serves this cluster, and {error.why}") from error


async def _met(backend: RayBackend, node_id: str) -> None:
    with suppress(BackendError):  # it is lost, or has yet to start: what lands there will tell
        await backend.agent(node_id).facts()
