"""One attempt's socket: takes in who connects from the sandbox, passes a launch on to a peer, pushes orders."""

import os
import select
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from launcher import mpi
from launcher.backend import NodeUnavailable
from launcher.daemons import ID, Daemons
from launcher.mpi import talk
from launcher.node_types import Daemon, Launch, LaunchPeer, NodeError

MOST_CONNECTIONS = 1024
BACKLOG = 128
HELLO_S = 10.0
SEND_S = 10.0
POLL_S = 5.0
PAUSE_S = 0.5
NOTICE_S = 10.0
"""After this long without its daemon, a user is told what is waited for."""
UNREACHED_S = 30.0
REFUSED = 255
"""What ssh gives when it can't do its part."""

AskPeer = Callable[[str, str, tuple[Any, ...]], Any]
"""Calls a method of another node's agent: its node's id, the method, the arguments.

Raises:
    NodeError: the other node can't do it.
    NodeUnavailable: it did not answer.
"""


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
        self._connections: set[socket.socket] = set()
        self._serving: socket.socket | None = None
        self._lock = threading.Lock()
        self._closed = False
        self._listener = _listen(directory)
        self._thread = threading.Thread(target=self._accept, name=f"launch-{directory.parent.name}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Listen no more and let go of everyone; they come again to a successor."""
        self._closed = True
        with self._lock:
            for connection in self._connections:
                _shut(connection)
        _shut(self._listener)
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def push(self, order: dict[str, str]) -> None:
        """Tell the node's main process what to run; when it can't be told now, it is when it connects again."""
        with self._lock:
            if self._serving is not None:
                self._send(self._serving, {"run": order})

    # --- who connects ------------------------------------------------------------------------------------------------

    def _accept(self) -> None:
        with self._listener:
            while not self._closed:
                try:
                    connection, _ = self._listener.accept()
                except OSError:
                    if not self._closed:
                        time.sleep(PAUSE_S)  # out of descriptors: some will come back
                    continue
                with self._lock:
                    full = self._closed or len(self._connections) >= MOST_CONNECTIONS
                    if not full:
                        self._connections.add(connection)
                if full:
                    connection.close()
                else:
                    threading.Thread(target=self._attend, args=(connection,), daemon=True).start()

    def _attend(self, connection: socket.socket) -> None:
        try:
            _limit(connection, socket.SO_RCVTIMEO, HELLO_S)
            _limit(connection, socket.SO_SNDTIMEO, SEND_S)
            said = talk.messages(connection)
            hello = next(said, {})
            _limit(connection, socket.SO_RCVTIMEO, 0)
            if hello.get("op") == "launch":
                self._pass_on(connection, hello)
            elif hello.get("op") == "serve" and self.launch.serves:
                self._serve(connection)
                for message in said:
                    if (ended := self.daemons.hear(message)) is not None:
                        with self._lock:
                            self._send(connection, {"noted": ended})
        except (OSError, ValueError):
            pass  # it is gone, or it isn't one of our programs
        finally:
            with self._lock:
                self._connections.discard(connection)
                if self._serving is connection:
                    self._serving = None
                connection.close()

    def _serve(self, connection: socket.socket) -> None:
        with self._lock:
            self._serving = connection
            for order in self.daemons.waiting():
                self._send(connection, {"run": order})

    def _send(self, connection: socket.socket, message: dict[str, Any]) -> None:
        try:
            talk.send(connection, message)
        except OSError:
            _shut(connection)  # what it has half of, it will be told again

    # --- a launch that goes to a peer --------------------------------------------------------------------------------

    def _pass_on(self, connection: socket.socket, hello: dict[str, Any]) -> None:
        launch_id, host, command = (str(hello.get(name, "")) for name in ("id", "host", "command"))
        talk.send(connection, {})  # heard
        if host == self._name:
            talk.send(connection, {"here": True})
            return
        peer = self.launch.peers.get(host)
        if self._peer is None or peer is None or not ID.fullmatch(launch_id):
            _refuse(connection, self._unknown(host))
            return
        try:
            self._follow(connection, host, peer, (launch_id, command))
        except NodeError as error:
            _refuse(connection, f"node {host}: {error.why}")

    def _unknown(self, host: str) -> str:
        if self.launch.serves:
            return f"{self._name} only serves the mpirun of another node, and can start nothing on {host}"
        return f"no node named {host} in this experiment; nodes are {', '.join([self._name, *self.launch.peers])}"

    def _follow(self, connection: socket.socket, host: str, peer: LaunchPeer, order: tuple[str, str]) -> None:
        """Have a peer run a command, and tell its end."""
        began = heard_at = time.monotonic()
        told = begun = False
        while not self._closed and not _gone(connection):
            why = "its preparation still runs"
            try:
                daemon = self._ask(peer, order, begun=begun)
                heard_at, begun = time.monotonic(), daemon is not None
                if daemon is not None and (code := code_of(daemon)) is not None:
                    talk.send(connection, {"code": code})
                    return
            except NodeUnavailable as error:
                why, begun = f"it can't be reached: {error.why}", False
                if time.monotonic() - heard_at > UNREACHED_S:
                    _refuse(connection, f"node {host} can't be reached: {error.why}")
                    return
                time.sleep(PAUSE_S)
            if not begun and not told and time.monotonic() - began > NOTICE_S:
                talk.send(connection, {"say": f"descent: waiting for node {host}: {why}"})
                told = True

    def _ask(self, peer: LaunchPeer, order: tuple[str, str], *, begun: bool) -> Daemon | None:
        assert self._peer is not None  # asked before  # noqa: S101
        launch_id, command = order
        if not begun:
            self._peer(peer.node_id, "launch", (peer.key, launch_id, command))
        found: Daemon | None = self._peer(peer.node_id, "launched", (peer.key, launch_id, POLL_S))
        return found


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


def _limit(connection: socket.socket, what: int, seconds: float) -> None:
    """How long one side of a blocking connection may block; 0 is for ever."""
    connection.setsockopt(socket.SOL_SOCKET, what, struct.pack("ll", int(seconds), 0))


def _gone(connection: socket.socket) -> bool:
    """Whether the other side has closed its end; it has nothing more to say."""
    waiting = select.poll()
    waiting.register(connection, select.POLLIN)
    return bool(waiting.poll(0))


def _shut(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
