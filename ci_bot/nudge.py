"""Wakes the worker at once: a datagram on a socket in DATA_DIR. Losing one costs a second, the worker's timer."""

import asyncio
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_LONGEST_ADDRESS = 107  # sun_path has 108 bytes, the last one is 0


class Nudge:
    """Sends nudges; from any thread, and whether or not anybody listens."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)

    def send(self) -> None:
        """Nudge; never blocks and never raises."""
        # Nobody listens, or so many nudges wait that one more says nothing new.
        with suppress(OSError), _address(self._path) as address:
            self._socket.sendto(b"!", address)

    def close(self) -> None:
        """Give the socket back; what is sent later is lost."""
        self._socket.close()


class Listener:
    """Calls back once for any number of nudges that came together."""

    def __init__(self, path: Path, callback: Callable[[], None]) -> None:
        self._path = path
        self._callback = callback
        self._loop = asyncio.get_running_loop()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            self._socket.setblocking(False)
            self._inode = _bind(self._socket, path)
            self._loop.add_reader(self._socket.fileno(), self._drain)
        except BaseException:
            self._socket.close()
            raise

    def _drain(self) -> None:
        with suppress(BlockingIOError):
            while True:
                self._socket.recv(1)
        self._callback()

    def close(self) -> None:
        """Listen no more; the path is removed unless a successor listens there by now."""
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close()
        with suppress(FileNotFoundError):
            if self._path.stat().st_ino == self._inode:
                self._path.unlink()


def listen(path: Path, callback: Callable[[], None]) -> Listener:
    """Call back, on the running loop, when somebody nudges; takes the place of whoever listened there.

    Raises:
        OSError: the socket can't be made in that directory.
    """
    return Listener(path, callback)


def _bind(listening: socket.socket, path: Path) -> int:
    # Bound beside the path and renamed: what a killed listener left is replaced, and senders never find a gap.
    beside = path.with_name(f"{path.name}.{os.getpid()}")
    beside.unlink(missing_ok=True)
    with _address(beside) as address:
        listening.bind(address)
    beside.chmod(0o600)
    inode = beside.stat().st_ino
    beside.rename(path)
    return inode


@contextmanager
def _address(path: Path) -> Iterator[str]:
    """An address for the path that fits into `sun_path`, however long the path is."""
    if len(os.fsencode(path)) <= _LONGEST_ADDRESS:
        yield str(path)
        return
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)
