"""An agent's side of the fork server, which its guardians are forked from."""

import contextlib
import os
import select
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

from launcher.guardian import control

_DOOR = Path(control.__file__).with_name("__main__.py")
_CLEAN_ENV = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
_PIECE_BYTES = 65536


class ForkServer:
    """A process that has everything imported: a guardian that is forked begins in a millisecond, a new Python in 40.

    It ends with whoever started it, guardians don't. When it is lost, the next guardian has another.
    """

    def __init__(self) -> None:
        """Start it, and don't wait until it has everything imported."""
        self._lock = threading.Lock()
        self._process, self._door = _started()

    def __enter__(self) -> "ForkServer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """The process that forks now."""
        return self._process.pid

    def fork(self, order_fd: int, timeout_s: float) -> str:
        """Have a guardian forked; what it says once its command runs, nothing when it ended without a word.

        Args:
            order_fd: a file with the order, which is read from where it stands.
            timeout_s: how long to wait for the word.

        Raises:
            TimeoutError: it said none.
        """
        read, write = os.pipe()
        with open(read, "rb", buffering=0) as answer:
            with open(write, "wb", buffering=0):
                self._send(order_fd, write)
            try:
                return _words(answer.fileno(), timeout_s)
            except TimeoutError:
                self._process.kill()  # it may hang; the next guardian has another
                raise

    def _send(self, *fds: int) -> None:
        with self._lock:
            if self._process.poll() is not None:
                self._end()
                self._process, self._door = _started()
            with contextlib.suppress(ConnectionError):  # it ended just now, and the answer is no word
                socket.send_fds(self._door, [b"+"], fds)

    def close(self) -> None:
        """End it."""
        with self._lock:
            self._end()

    def _end(self) -> None:
        self._door.close()
        self._process.kill()
        self._process.wait()


def _started() -> tuple["subprocess.Popen[bytes]", socket.socket]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        process = subprocess.Popen(
            [os.path.realpath(sys.executable), "-I", "-S", str(_DOOR)],
            stdin=theirs.fileno(),
            stdout=subprocess.DEVNULL,
            cwd="/",
            env=_CLEAN_ENV,
            start_new_session=True,
        )
    return process, ours


def _words(fd: int, timeout_s: float) -> str:
    """All that is written to a pipe before its last writer lets go."""
    until, said, waiting = time.monotonic() + timeout_s, b"", select.poll()
    waiting.register(fd, select.POLLIN)
    while waiting.poll(max(0.0, until - time.monotonic()) * 1000):
        piece = os.read(fd, _PIECE_BYTES)
        if not piece:
            return said.decode(errors="replace").strip()
        said += piece
    raise TimeoutError
