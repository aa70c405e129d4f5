"""The processes of one command as a whole: asked to end, ended, counted; enclosed in a sandbox or plain below us."""

from __future__ import annotations

import contextlib
import os
import signal

from . import tree
from .start import Started
from .watch import Members


class Enclosed:
    """A sandbox: when its PID 1 ends, the kernel ends all of it, and bwrap ends after that."""

    def __init__(self, started: Started) -> None:
        self._started = started
        self._first = tree.process(started.first) if started.first else None

    def members(self) -> Members:
        """Everyone in the sandbox, by its own /proc."""
        proc = f"/proc/{self._started.first}/root/proc"
        return Members(tree.numbers(proc), proc)

    def memory_elsewhere(self) -> int:
        """Bytes in its file systems in memory, which no process's memory shows."""
        first, total, kinds = f"/proc/{self._started.first}", 0, dict[str, str]()
        try:
            with open(f"{first}/mounts", encoding="utf-8", errors="replace") as mounts:
                for line in mounts:
                    _, place, kind, *_ = line.split(" ")
                    kinds[place] = kind  # of several at one place the last one counts: a disk may lie over it
            for place in ("/tmp", "/dev/shm", "/run"):  # noqa: S108 - its own, inside
                if kinds.get(place) == "tmpfs":
                    state = os.statvfs(f"{first}/root{place}")
                    total += (state.f_blocks - state.f_bfree) * state.f_frsize
        except OSError:
            pass  # the sandbox ended while we looked
        return total

    def ask(self) -> None:
        """Send SIGTERM to everyone, by PID 1: from outside it would reach only those of our own uid."""
        with contextlib.suppress(BrokenPipeError):  # PID 1 is gone, and so is the sandbox
            os.write(self._started.control, b"T")

    def kill(self) -> None:
        """Send SIGKILL to PID 1; to bwrap where it has started none yet."""
        if self._first is not None:
            if tree.same(self._first.pid, self._first.start):
                tree.send(self._first.pid, signal.SIGKILL)
        elif (bwrap := tree.process(self._started.pid)) is not None and bwrap.parent == os.getpid():
            tree.send(bwrap.pid, signal.SIGKILL)

    def ended(self, _status: int) -> tuple[int, int] | None:
        """bwrap ended, which says nothing of the command; killed alone, it left PID 1 to us."""
        self.kill()
        return None


class Plain:
    """A shell and all below it; orphans come to us."""

    def __init__(self) -> None:
        self._guardian = os.getpid()

    def members(self) -> Members:
        """Everyone below us."""
        return Members([found.pid for found in tree.descendants(self._guardian)])

    def memory_elsewhere(self) -> int:
        """Nothing: it has no file system of its own."""
        return 0

    def ask(self) -> None:
        """Send SIGTERM to everyone."""
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL to everyone; stopped first, since a process may start another while we look."""
        self._send(signal.SIGSTOP)
        self._send(signal.SIGKILL)

    def ended(self, status: int) -> tuple[int, int] | None:
        """The shell's status, and how many it left behind."""
        return status, len(tree.descendants(self._guardian))

    def _send(self, number: signal.Signals) -> None:
        for found in tree.descendants(self._guardian):
            tree.send(found.pid, number)
