"""The node agent's socket: one JSON object a line. Standard library only."""

from __future__ import annotations

import json
import os
import socket

from . import SOCKET

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

MAX_LINE_BYTES = 1 << 20
"""A command line can't be longer than a part of this."""


def address(directory_fd: int) -> str:
    """The socket's name by a descriptor of its directory, since the path may be longer than the 107 bytes allowed."""
    return f"/proc/self/fd/{directory_fd}/{SOCKET}"


def connect(directory: str) -> socket.socket:
    """A connection to the node agent.

    Raises:
        OSError: nobody listens.
    """
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect(address(fd))
    except OSError:
        connection.close()
        raise
    finally:
        os.close(fd)
    return connection


def send(connection: socket.socket, message: dict[str, Any]) -> None:
    """Send one message.

    Raises:
        OSError: the other side is gone, or does not read.
    """
    connection.sendall(json.dumps(message).encode() + b"\n")


class Lines:
    """The messages that have come over a connection."""

    def __init__(self) -> None:
        self._pending = bytearray()

    def take(self, data: bytes) -> Iterator[dict[str, Any]]:
        """The messages that a piece of the stream completes.

        Raises:
            ValueError: what came is no message.
        """
        *ends, begun = data.split(b"\n")
        for end in ends:
            line = self._pending + end
            self._pending = bytearray()
            yield _message(line)
        self._pending += begun
        if len(self._pending) > MAX_LINE_BYTES:
            raise ValueError(f"a line of more than {MAX_LINE_BYTES} bytes")


def _message(line: bytearray) -> dict[str, Any]:
    try:
        message = json.loads(line)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(message, dict):
        raise ValueError("not a JSON object")
    return message


def messages(connection: socket.socket) -> Iterator[dict[str, Any]]:
    """All messages of a blocking connection, to its end.

    Raises:
        OSError: it broke.
        ValueError: what came is no message.
    """
    lines = Lines()
    while data := connection.recv(65536):
        yield from lines.take(data)
