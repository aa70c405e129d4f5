"""The guardian's socket: agents connect, hold the lease, ask, and are told the end. One JSON object a line."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Callable
from typing import Any

SOCKET = "ctl.sock"
_MAX_LINE_BYTES = 65536
_BACKLOG = 16
_MAX_CLIENTS = 64

Handler = Callable[[dict[str, Any]], dict[str, Any]]


def address(directory_fd: int) -> str:
    """The socket's name by a descriptor of its directory, since the path may be longer than the 107 bytes allowed."""
    return f"/proc/self/fd/{directory_fd}/{SOCKET}"


class Control:
    """Listens in the attempt's directory and keeps the clients; `held` counts those that hold the lease."""

    def __init__(self, directory: str, handler: Handler) -> None:
        self._directory_fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._handler = handler
        self._clients: dict[int, socket.socket] = {}
        self._pending: dict[int, bytes] = {}
        self._holders: set[int] = set()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(SOCKET, dir_fd=self._directory_fd)
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(address(self._directory_fd))
        self.listener.listen(_BACKLOG)
        self.listener.setblocking(False)

    @property
    def held(self) -> int:
        """How many clients hold the lease."""
        return len(self._holders)

    def accept(self) -> int | None:
        """Take a client in; its descriptor."""
        try:
            client, _ = self.listener.accept()
        except OSError:
            return None  # it went away again, or we are out of descriptors
        if len(self._clients) >= _MAX_CLIENTS:
            client.close()
            return None
        client.setblocking(False)
        self._clients[client.fileno()] = client
        self._pending[client.fileno()] = b""
        return client.fileno()

    def serve(self, fd: int) -> bool:
        """Answer what a client has sent; False when it is gone."""
        try:
            data = self._clients[fd].recv(_MAX_LINE_BYTES)
        except BlockingIOError:
            return True
        except OSError:
            data = b""
        *lines, rest = (self._pending[fd] + data).split(b"\n")
        self._pending[fd] = rest
        if not data or len(rest) > _MAX_LINE_BYTES:
            self._drop(fd)
            return False
        for line in lines:
            self._send(fd, self._answer(fd, line))
        return True

    def _answer(self, fd: int, line: bytes) -> dict[str, Any]:
        try:
            request = json.loads(line)
            operation = request["op"]
        except (ValueError, TypeError, KeyError):
            return {"error": 'expected one JSON object a line with "op"'}
        if operation == "hold":
            self._holders.add(fd)
            return {"ok": True}
        return self._handler(request)

    def _send(self, fd: int, answer: dict[str, Any]) -> None:
        # A client that does not read loses its answer, never our time.
        with contextlib.suppress(OSError):
            self._clients[fd].send(json.dumps(answer).encode() + b"\n")

    def _drop(self, fd: int) -> None:
        self._clients.pop(fd).close()
        self._pending.pop(fd)
        self._holders.discard(fd)

    def close(self, farewell: dict[str, Any]) -> None:
        """Tell everyone the end and remove the socket."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(SOCKET, dir_fd=self._directory_fd)
        self.listener.close()
        for fd in list(self._clients):
            self._send(fd, farewell)
            self._drop(fd)
        os.close(self._directory_fd)
