"""One attempt's socket: takes in who connects from the sandbox, passes a launch on to a peer, gives out orders.

Whoever connects may be hostile: each has a thread of its own, of which there are only so many, and nothing that can
block on one of them is done while the lock is held.
"""

import os
import select
import signal
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launcher import mpi
from launcher.backend import NodeUnavailable
from launcher.daemons import ID, MAX_COMMAND_BYTES, Daemons
from launcher.mpi import talk
from launcher.node_types import Daemon, Launch, LaunchPeer, NodeError

SPARE_CONNECTIONS = 64
MPIRUNS = 8
"""How many connections one attempt may have at once: the spare ones, and those of so many mpiruns on all its peers."""
BACKLOG = 128
HELLO_S = 10.0
"""Within this time a connection has said all of its first message."""
SEND_S = 10
PIECE_BYTES = 65536
POLL_S = 5.0
PAUSE_S = 0.5
NOTICE_S = 10.0
"""After this long without its daemon, a user is told what is waited for."""
UNREACHED_S = 30.0
REPLY_S = 2.0
REFUSED = 255
"""What ssh gives when it can't do its part."""

AskPeer = Callable[[str, str, tuple[Any, ...]], Any]
"""Calls a method of another node's agent: its node's id, the method, the arguments.

Raises:
    NodeError: the other node can't do it.
    NodeUnavailable: it did not answer.
"""


@dataclass(frozen=True)
class _Request:
    """A command that is to run on a peer."""

    launch_id: str
    host: str
    command: str


class Door:
    """Listens in an attempt's launch directory until it is closed."""

    def __init__(
        self,
        directory: Path,
        name: str,
        launch: Launch,
        *,
        daemons: Daemons,
        peer: AskPeer | None,
    ) -> None:
        self.launch, self.daemons = launch, daemons
        self._name, self._peer = name, peer
        self._most = SPARE_CONNECTIONS + MPIRUNS * len(launch.peers)
        self._connections: set[socket.socket] = set()
        self._serving: tuple[socket.socket, int] | None = None  # the main process, and what wakes who attends it
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._listener = _listen(directory)
        self._thread = threading.Thread(target=self._accept, name=f"launch-{directory.parent.name}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Listen no more and let go of everyone; they come again to a successor."""
        self._closed.set()
        with self._lock:
            for connection in self._connections:
                _shut(connection)
        _shut(self._listener)
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def wake(self) -> None:
        """There is something new to run; when the node's main process can't be told now, it is when it connects."""
        with self._lock:
            if self._serving is not None:
                os.eventfd_write(self._serving[1], 1)

    # --- who connects ------------------------------------------------------------------------------------------------

    def _accept(self) -> None:
        with self._listener:
            while not self._closed.is_set():
                try:
                    connection, _ = self._listener.accept()
                except OSError:
                    self._closed.wait(PAUSE_S)  # out of descriptors: some will come back
                else:
                    self._admit(connection)

    def _admit(self, connection: socket.socket) -> None:
        with self._lock:
            full = len(self._connections) >= self._most
            if not full and not self._closed.is_set():
                self._connections.add(connection)
        try:
            if full:
                connection.setblocking(False)
                _refuse(connection, f"{self._most} connections to this node's agent are open, which is the most")
            elif not self._closed.is_set():
                threading.Thread(target=self._attend, args=(connection,), daemon=True).start()
                return
        except (OSError, RuntimeError):
            pass  # it is gone, or there are no threads: it will come again
        self._let_go(connection)

    def _let_go(self, connection: socket.socket) -> None:
        with self._lock:
            self._connections.discard(connection)
            connection.close()

    def _attend(self, connection: socket.socket) -> None:
        lines = talk.Lines()
        try:
            # https://man7.org/linux/man-pages/man7/socket.7.html
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", SEND_S, 0))
            request, more = _hello(connection, lines)
            if request is not None:
                del lines, more  # it may be here for days
                self._pass_on(connection, request)
            elif self.launch.serves:
                self._serve(connection, lines, more)
        except (OSError, ValueError):
            pass  # it is gone, or it isn't one of our programs
        finally:
            self._let_go(connection)

    # --- the node's main process -------------------------------------------------------------------------------------

    def _serve(self, connection: socket.socket, lines: talk.Lines, heard: list[dict[str, Any]]) -> None:
        """Give out orders and hear what became of them, until it goes or comes again."""
        wake = os.eventfd(1)  # something may wait already
        with self._lock:
            former, self._serving = self._serving, (connection, wake)
            if former is not None:
                _shut(former[0])
        try:
            self._hear(connection, heard)
            self._take_turns(connection, lines, wake)
        finally:
            with self._lock:
                if self._serving == (connection, wake):
                    self._serving = None
                os.close(wake)

    def _take_turns(self, connection: socket.socket, lines: talk.Lines, wake: int) -> None:
        given: set[str] = set()
        orders: deque[str] = deque()
        ready = select.poll()
        ready.register(wake, select.POLLIN)
        while True:
            ready.register(connection, select.POLLIN | (select.POLLOUT if orders else 0))
            events = dict(ready.poll())
            if wake in events:
                os.eventfd_read(wake)
                orders.extend(each for each in self.daemons.waiting() if each not in given)
                given.update(orders)
            event = events.get(connection.fileno(), 0)
            if event & ~select.POLLOUT:
                if not (data := connection.recv(PIECE_BYTES)):
                    return
                self._hear(connection, lines.take(data))
            # One at a time, and only if it reads: else each might wait for the other to read.
            if event & select.POLLOUT and (order := self.daemons.told(orders.popleft())) is not None:
                talk.send(connection, {"run": order})

    def _hear(self, connection: socket.socket, messages: Iterable[dict[str, Any]]) -> None:
        for message in messages:
            if (ended := self.daemons.hear(message)) is not None:
                talk.send(connection, {"noted": ended})

    # --- a launch that goes to a peer --------------------------------------------------------------------------------

    def _pass_on(self, connection: socket.socket, request: _Request) -> None:
        talk.send(connection, {})  # heard
        if request.host == self._name:
            talk.send(connection, {"here": True})
            return
        peer = self.launch.peers.get(request.host)
        if self._peer is None or peer is None:
            _refuse(connection, self._unknown(request.host))
            return
        if len(request.command) > MAX_COMMAND_BYTES:
            _refuse(connection, f"a command of at most {MAX_COMMAND_BYTES} bytes is wanted")
            return
        over = threading.Event()
        minding = threading.Thread(target=self._mind, args=(connection, request.launch_id, over), daemon=True)
        minding.start()
        try:
            self._follow(connection, request, peer, over)
        except NodeError as error:
            over.set()
            _refuse(connection, f"node {request.host}: {error.why}")
        finally:
            over.set()
            _shut(connection)  # wakes who minds it
            minding.join()

    def _mind(self, connection: socket.socket, launch_id: str, over: threading.Event) -> None:
        """Note when a launch agent goes before it was told of an end: its mpirun has gone."""
        _readable(connection, None)
        if not over.is_set() and not self._closed.is_set():
            self.daemons.note_mpirun_gone(launch_id, time.time())

    def _unknown(self, host: str) -> str:
        if self.launch.serves:
            return f"{self._name} only serves the mpirun of another node, and can start nothing on {host}"
        return f"no node named {host} in this experiment; nodes are {', '.join([self._name, *self.launch.peers])}"

    def _follow(self, connection: socket.socket, request: _Request, peer: LaunchPeer, over: threading.Event) -> None:
        """Have a peer run a command, and tell its end."""
        began = heard_at = time.monotonic()
        told = begun = False
        while not self._closed.is_set() and not _readable(connection, 0):  # it has no more to say, but may go
            why = "its preparation still runs; if its command only waits, write `sleep infinity`"
            try:
                daemon = self._ask(peer, request, begun=begun)
                heard_at, begun = time.monotonic(), daemon is not None
                if daemon is not None and (code := code_of(daemon)) is not None:
                    over.set()
                    if not _told_mpirun(connection, code):
                        self.daemons.note_mpirun_gone(request.launch_id, daemon.at or time.time())
                    return
            except NodeUnavailable as error:
                why, begun = f"it can't be reached: {error.why}", False
                if time.monotonic() - heard_at > UNREACHED_S:
                    over.set()
                    _refuse(connection, f"node {request.host} can't be reached: {error.why}")
                    return
                self._closed.wait(PAUSE_S)
            if not begun and not told and time.monotonic() - began > NOTICE_S:
                talk.send(connection, {"say": f"descent: waiting for node {request.host}: {why}"})
                told = True

    def _ask(self, peer: LaunchPeer, request: _Request, *, begun: bool) -> Daemon | None:
        assert self._peer is not None  # asked before  # noqa: S101
        if not begun:
            self._peer(peer.node_id, "launch", (peer.key, request.launch_id, request.command))
        found: Daemon | None = self._peer(peer.node_id, "launched", (peer.key, request.launch_id, POLL_S))
        return found


def _told_mpirun(connection: socket.socket, code: int) -> bool:
    """Tell a launch agent of the end of what it launched: whether its mpirun was still there to hear of it."""
    try:
        talk.send(connection, {"code": code})
        if not _readable(connection, REPLY_S):
            return True  # it hangs, and says nothing of its mpirun
        return next(iter(talk.Lines().take(connection.recv(PIECE_BYTES))), {}).get("mpirun") is True
    except (OSError, ValueError):
        return False


def code_of(daemon: Daemon) -> int | None:
    """The code that a shell would give for a daemon's end; None while it runs. Pure."""
    if daemon.signal is None:
        return daemon.exit_code
    known = signal.Signals.__members__.get(daemon.signal)
    return 128 + (known or int(daemon.signal.rpartition(" ")[2]))


def _listen(directory: Path) -> socket.socket:
    path = directory / mpi.SOCKET
    path.unlink(missing_ok=True)  # a predecessor's
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(talk.address(fd))
        path.chmod(0o666)  # the directory is below one that only we can enter, and the sandbox has it read-only
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    finally:
        os.close(fd)
    return listener


def _refuse(connection: socket.socket, why: str) -> None:
    talk.send(connection, {"say": f"descent: {why}", "code": REFUSED})


def _hello(connection: socket.socket, lines: talk.Lines) -> tuple[_Request | None, list[dict[str, Any]]]:
    """Who is there: a request, or none from a node's main process; and what else came with it.

    Raises:
        OSError: it is gone, or too slow.
        ValueError: it isn't one of our programs.
    """
    until = time.monotonic() + HELLO_S
    heard: list[dict[str, Any]] = []
    while not heard:
        data = connection.recv(PIECE_BYTES) if _readable(connection, until - time.monotonic()) else b""
        if not data:
            raise ConnectionError("it said nothing")
        heard = list(lines.take(data))
    hello, *more = heard
    if hello.get("op") == "serve":
        return None, more
    asked = [hello.get(name) for name in ("op", "id", "host", "command")]
    match asked:
        case ["launch", str(launch_id), str(host), str(command)] if ID.fullmatch(launch_id):
            return _Request(launch_id, host, command), more
    raise ValueError("no hello")


def _readable(connection: socket.socket, within_s: float | None) -> bool:
    """Whether the other side says something, or has closed its end; waits for that without a limit of None."""
    waiting = select.poll()
    waiting.register(connection, select.POLLIN)
    return bool(waiting.poll(None if within_s is None else max(0.0, within_s) * 1000))


def _shut(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
