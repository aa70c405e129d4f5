"""The backend as the worker sees it: requests to the driver process, which is started again whenever it ends."""

import asyncio
import contextlib
import hashlib
import itertools
import logging
import os
import socket
import sys
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from launcher.backend import AgentClient, Bundle, Capacity, HeadLost, NodeUnavailable, Reservation, Strategy
from launcher.ray_backend.agent_client import ANSWER_S, RayAgent
from launcher.ray_backend.exits import why_ended
from launcher.ray_backend.order import AgentOrder, identity_of
from launcher.ray_backend.wire import pack, receive, unpack_values
from launcher.ray_environment import for_driver

log = logging.getLogger(__name__)
READY_S = 60.0
LOOK_S = 0.5
GPU_S = 45.0
END_S = 1.0
"""The driver has nothing to put in order."""
PAUSES_S = (0.2, 0.5, 1.0, 2.0)


@dataclass(frozen=True)
class Connection:
    """Where the head is, and the file with the token it wants."""

    address: str
    token_path: Path


@dataclass
class _Session:
    """One life of the driver process."""

    process: asyncio.subprocess.Process
    writer: asyncio.StreamWriter
    cluster_id: str
    waiting: dict[int, asyncio.Future[Any]] = field(default_factory=dict)

    def fail(self, why: str) -> None:
        """Nobody answers any more."""
        for future in self.waiting.values():
            if not future.done():
                future.set_exception(HeadLost(why))


class RayBackend:
    """A Ray cluster.

    Args:
        where: the head's place as it is known now, None while there is none; asked before every try.
        environment: what the driver process may see; only what may reach Ray's processes is passed on.
        fence_s: how long a node may miss the head before it ends what it runs.
        storage_dir: where every repository's storage is, on a file system that all nodes share.
        guest: a worker may serve the cluster: its agents are used if they are made as ours would be, never replaced.
    """

    def __init__(
        self,
        where: Callable[[], Connection | None],
        *,
        environment: Mapping[str, str],
        fence_s: float,
        storage_dir: Path | None = None,
        guest: bool = False,
    ) -> None:
        self._where = where
        self._environment = environment
        self._order = AgentOrder(identity_of(_code_digest(), fence_s, storage_dir), fence_s, storage_dir)
        self._guest = guest
        self._ids = itertools.count()
        self._session: _Session | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()
        """Set while there is a session."""
        self._failures = 0
        """How often in a row no session came about."""
        self._why = "not connected"

    async def connect(self, timeout_s: float = READY_S) -> None:
        """Reach the cluster, and keep reaching for it until `close`.

        Raises:
            HeadLost: not within the timeout; it is tried on all the same.
        """
        if self._keeper is None:
            self._keeper = asyncio.create_task(self._keep(), name="ray driver")
        try:
            async with asyncio.timeout(timeout_s):
                while self._session is None:  # it may end again before we get to see it
                    await self._ready.wait()
        except TimeoutError:
            raise HeadLost(f"Ray could not be reached within {timeout_s:.0f} s: {self._why}") from None

    async def close(self) -> None:
        """End the driver process."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
            self._keeper = None

    async def capacity(self) -> Capacity:
        """The nodes and what they have in total."""
        return cast("Capacity", await self._ask("capacity"))

    async def reserve(self, name: str, bundles: tuple[Bundle, ...], strategy: Strategy) -> None:
        """Ask for a gang; it is placed whole or not at all, and outlives us if its name is the App's."""
        await self._ask("reserve", name, bundles, strategy)

    async def reservation(self, name: str) -> Reservation:
        """Where a gang's reservation stands."""
        return cast("Reservation", await self._ask("reservation", name))

    async def reservations(self) -> list[str]:
        """The names of the App's reservations; those that go with their owner are left out."""
        return cast("list[str]", await self._ask("reservations"))

    async def gpu_ids(self, name: str, bundle_index: int, count: int) -> tuple[str, ...]:
        """The ids of a placed bundle's GPUs, `count` being all that it has; before anything uses them."""
        return cast("tuple[str, ...]", await self._ask("gpu_ids", name, bundle_index, count, timeout_s=GPU_S))

    async def release(self, name: str) -> None:
        """Give a gang's machines back."""
        await self._ask("release", name)

    def agent(self, node_id: str) -> AgentClient:
        """The agent of a node."""
        return RayAgent(node_id, self._ask)

    # --- asking ---

    async def _ask(self, method: str, *arguments: Any, timeout_s: float = ANSWER_S) -> Any:
        session = self._session
        if session is None:
            raise HeadLost(self._why)
        request_id = next(self._ids)
        future = session.waiting[request_id] = asyncio.get_running_loop().create_future()
        try:
            session.writer.write(pack((request_id, method, arguments)))
            async with asyncio.timeout(timeout_s):
                await session.writer.drain()
                return await future
        except ConnectionError as error:
            raise HeadLost("the connection to Ray is ending") from error
        except TimeoutError:
            what = f"no answer to {method} within {timeout_s:.0f} s"
            raise (NodeUnavailable(what) if method == "agent" else HeadLost(what)) from None
        finally:
            del session.waiting[request_id]

    # --- the driver process ---

    async def _keep(self) -> None:
        """One driver process after another."""
        while True:
            self._failures += 1
            try:
                await self._live()
            except Exception as error:  # whatever it is, it is tried again, and told to who asks
                why = f"{type(error).__name__}: {error}"
                if why != self._why:
                    log.warning("no connection to Ray: %s", why, exc_info=error)
                self._why = why
            await asyncio.sleep(PAUSES_S[min(self._failures, len(PAUSES_S) - 1)])

    async def _live(self) -> None:
        """Start a driver process and pass its answers on until it ends; `_why` then says what happened."""
        connection = self._where()
        if connection is None:
            self._why = "there is no Ray head yet"
            return
        ours, theirs = socket.socketpair()
        words: deque[str] = deque(maxlen=1)
        with ours:  # a stream closes it too, but there may be an end before there is a stream
            with theirs:
                process = await _spawn(theirs, for_driver(self._environment, connection.token_path))
            exit_code = await self._serve(process, ours, connection, words)
        self._why = why_ended(exit_code, words[0] if words else "")

    async def _serve(
        self,
        process: asyncio.subprocess.Process,
        channel: socket.socket,
        connection: Connection,
        words: deque[str],
    ) -> int | None:
        """Pass a driver's answers on until it ends; its exit code, and in `words` the last that it said."""
        listening = asyncio.create_task(_listen(process, words))
        reader, writer = await asyncio.open_connection(sock=channel)
        try:
            await self._converse(process, reader, writer, connection)
        except EOFError:
            pass
        finally:
            if self._session:
                session, self._session = self._session, None
                self._ready.clear()  # at once: the process may take its time to end
                session.fail("the connection to Ray has ended")
            writer.close()
            exit_code = await asyncio.shield(_end(process))
            await listening
        return exit_code

    async def _converse(
        self,
        process: asyncio.subprocess.Process,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        connection: Connection,
    ) -> None:
        writer.write(pack((connection.address, self._order, self._guest)))
        async with asyncio.timeout(READY_S):
            cluster_id = unpack_values(await self._unless_moved(receive(reader), connection))
        session = self._session = _Session(process, writer, cluster_id)
        self._failures = 0
        self._ready.set()
        while True:
            request_id, error, result = unpack_values(await receive(reader))
            future = session.waiting.get(request_id)
            if future is None or future.done():
                continue
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)

    async def _unless_moved(self, answer: Coroutine[Any, Any, bytes], connection: Connection) -> bytes:
        """The answer of a driver that is connecting, which a head that died meanwhile keeps waiting for a minute."""
        task = asyncio.create_task(answer)
        try:
            while not (await asyncio.wait({task}, timeout=LOOK_S))[0]:
                if self._where() != connection:
                    raise ConnectionAbortedError("Ray's head has moved")
            return task.result()
        finally:
            task.cancel()


async def _spawn(channel: socket.socket, environment: Mapping[str, str]) -> asyncio.subprocess.Process:
    fd = channel.fileno()
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",  # what lies in the current directory is nobody's business
        "-m",
        "launcher.ray_backend.driver",
        str(fd),
        pass_fds=(fd,),
        env=dict(environment),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,  # a Ctrl-C in the terminal is for us to act on, in our order
    )


async def _listen(process: asyncio.subprocess.Process, words: deque[str]) -> None:
    """Keep the last line that the driver said."""
    if process.stderr is None:
        return
    while chunk := await process.stderr.read(65536):
        lines = [line for line in chunk.decode(errors="replace").splitlines() if line.strip()]
        words.extend(line.strip()[:300] for line in lines[-1:])


async def _end(process: asyncio.subprocess.Process) -> int | None:
    """The driver's exit code; one that does not end with its channel is killed."""
    try:
        async with asyncio.timeout(END_S):
            return await process.wait()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        return await process.wait()


def _code_digest() -> str:
    """Changes with any of the files that an agent is made of."""
    package = Path(__file__).parent.parent
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(os.fsencode(path.relative_to(package)) + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]
