"""An agent's side of the fork server, which its guardians are forked from."""

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


class _Silent(TimeoutError):
    """Nobody was forked."""


class ForkServer:
    """A process that has everything imported: a guardian that is forked begins in a millisecond, a new Python in 40.

    It ends with whoever started it, guardians don't. One that is lost, or hangs, is replaced when that is noticed.
    """

    def __init__(self) -> None:
        """Start it, and don't wait until it has everything imported."""
        self._lock = threading.Lock()
        self._closed = False
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
            OSError: this was closed, or no process can be started.
        """
        read, write = os.pipe()
        with open(read, "rb", buffering=0) as answer:
            with open(write, "wb", buffering=0):
                server = self._send(order_fd, write)
            try:
                said = _words(answer.fileno(), timeout_s)
            except _Silent:
                self._replace(server)  # it has not even taken the order
                raise
        if not said:
            self._replace(server)  # it was killed, and may still be dying
        return said

    def _send(self, *fds: int) -> "subprocess.Popen[bytes]":
        """Give the descriptors to the server; which one that is."""
        with self._lock:
            if self._closed:
                raise OSError("the fork server was closed")
            try:
                socket.send_fds(self._door, [b"+"], fds, socket.MSG_DONTWAIT)
            except (ConnectionError, BlockingIOError):  # it is gone, or takes nothing
                self._renew()
                socket.send_fds(self._door, [b"+"], fds, socket.MSG_DONTWAIT)
            return self._process

    def _replace(self, lost: "subprocess.Popen[bytes]") -> None:
        with self._lock:
            if self._process is lost and not self._closed:
                self._renew()

    def _renew(self) -> None:
        self._end()
        self._process, self._door = _started()

    def close(self) -> None:
        """End it; nothing is forked any more."""
        with self._lock:
            self._closed = True
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
    """All that is written to a pipe before its last writer lets go; an empty line says that it was forked.

    Raises:
        _Silent: nothing was written in time.
        TimeoutError: its last writer did not let go in time.
    """
    until, said, waiting = time.monotonic() + timeout_s, b"", select.poll()
    waiting.register(fd, select.POLLIN)
    while waiting.poll(max(0.0, until - time.monotonic()) * 1000):
        piece = os.read(fd, _PIECE_BYTES)
        if not piece:
            return said.decode(errors="replace").strip()
        said += piece
    raise TimeoutError if said else _Silent
