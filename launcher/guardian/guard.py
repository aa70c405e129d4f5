"""The watch over a running command to its exit record: output, limits, lease, stop, and the proof of its end."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from . import outcome, record
from .control import Control
from .family import Enclosed, Plain
from .segments import Segments
from .watch import DiskWatch, TreeWatch
from .wire import Wire

if TYPE_CHECKING:
    from .begin import Begun

_READ_BYTES = 1 << 20
_REPORT_BYTES = 4096
_LOOK_S = 0.25
_KILL_PAUSE_S = 0.01


class Guard:
    """One attempt on one node. `run` returns when nothing of the tree is left and the exit record is on disk."""

    def __init__(self, order: Wire, begun: Begun) -> None:
        self._order, self._limits, self._begun = order, order["limits"], begun
        self._cgroup, self._error = begun.cgroup, begun.error
        self._directory = order["directory"]
        self._log = Segments(os.path.join(self._directory, "log"), self._limits["log_max_bytes"])
        self._produced = self._left = 0
        self._status: int | None = None
        self._breach: outcome.Breach | None = None
        self._ran = self._stopped = self._put_down = self._killed = False
        self._empty = begun.started is None
        self._kill_at: float | None = None
        self._look_at = time.monotonic()
        self._lease_at = self._look_at + order["lease_s"]
        self._said = self._reports = b""
        self._poll = select.poll()
        self._readers: dict[int, Callable[[], object]] = {}
        enclosed = begun.started is not None and begun.started.enclosed
        self._family = Enclosed(begun.started) if enclosed and begun.started else Plain()
        self._tree = TreeWatch(
            self._family.members,
            self._family.memory_elsewhere,
            memory_limit=None if self._cgroup.limits_memory else self._limits["memory_bytes"],
            pids_limit=None if self._cgroup.limits_pids else self._limits["pids"],
        )
        self._disk = DiskWatch(order["watched"], self._limits["disk_bytes"], self._limits["disk_floor_bytes"])
        self._control = Control(self._directory, self._request)

    def run(self) -> None:
        """Guard the command to its end."""
        try:
            self._watch()
            while not self._empty:
                self._turn()
            self._drain()
        except Exception as defect:  # whatever is wrong with us, the tree must not outlive us
            self._breach = outcome.Breach(
                "guardian lost", {"why": f"the guardian failed: {defect!r}", **_traced(defect)}
            )
            self._finish()
        self._close()

    def _watch(self) -> None:
        self._listen(self._control.listener.fileno(), self._accept)
        self._watch_signals()
        started = self._begun.started
        if started is None:
            return
        for fd, reader in (
            (started.log, self._read_log),
            (started.report, self._read_report),
            (started.errors, self._read_said),
        ):
            if fd >= 0:
                os.set_blocking(fd, False)
                self._listen(fd, reader)
        self._understand(self._begun.reports)
        self._reap()  # it may have ended before we watched for that

    def _watch_signals(self) -> None:
        wake, woken = os.pipe()
        for fd in (wake, woken):
            os.set_blocking(fd, False)
        signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
        for number in (signal.SIGHUP, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, lambda *_: self._stop(self._order["grace_s"]))
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        self._wake = wake
        self._listen(wake, self._woken)

    def _woken(self) -> None:
        self._take(self._wake)
        self._reap()

    # -- one turn

    def _listen(self, fd: int, reader: Callable[[], object]) -> None:
        self._readers[fd] = reader
        self._poll.register(fd, select.POLLIN)

    def _forget(self, fd: int) -> None:
        self._poll.unregister(fd)
        del self._readers[fd]

    def _turn(self) -> None:
        for fd, _ in self._poll.poll(self._pause_s() * 1000):
            if (reader := self._readers.get(fd)) is not None:
                reader()
        now = time.monotonic()
        self._watch_lease(now)
        if self._killed or (self._kill_at is not None and now >= self._kill_at):
            self._kill()  # again and again: one may have been born meanwhile
            self._reap()
        elif now >= self._look_at:
            self._look(now)

    def _pause_s(self) -> float:
        if self._killed:
            return _KILL_PAUSE_S
        if self._disk.in_a_hurry:
            return 0.0
        due = self._look_at if self._kill_at is None else min(self._look_at, self._kill_at)
        return max(0.0, due - time.monotonic())

    def _look(self, now: float) -> None:
        """Compare with the limits; the first breach counts."""
        breach = None
        if not self._disk.in_a_hurry:
            self._look_at = now + _LOOK_S
            breach = self._tree.look() or self._memory_breach()
        breach = breach or self._disk.look(now)
        if breach is not None and self._breach is None:
            self._breach = breach
            self._kill()

    def _memory_breach(self) -> outcome.Breach | None:
        if not self._cgroup.limits_memory or not self._cgroup.memory_kills():
            return None
        # The kernel took one process; what is left may wait for it for ever.
        return outcome.Breach("out of memory", outcome.amounts(self._peak_bytes(), self._limits["memory_bytes"] or 0))

    def _peak_bytes(self) -> int:
        limit = self._limits["memory_bytes"] or 0
        return min(self._cgroup.peak_bytes() or limit, limit)

    def _watch_lease(self, now: float) -> None:
        if self._control.held:
            self._lease_at = now + self._order["lease_s"]
        elif now >= self._lease_at and self._breach is None and not self._killed:
            why = f"no agent held the lease for {self._order['lease_s']:g} s"
            self._breach = outcome.Breach("node lost", {"why": why})
            self._terminate(self._order["grace_s"])

    # -- what comes in

    def _take(self, fd: int, count: int = _REPORT_BYTES) -> bytes:
        """What can be read now; at the end of a pipe, nothing, and it is forgotten."""
        try:
            data = os.read(fd, count) if fd in self._readers else b""
        except BlockingIOError:
            return b""
        if not data and fd in self._readers:
            self._forget(fd)
        return data

    def _read_log(self) -> bool:
        started = self._begun.started
        data = self._take(started.log, _READ_BYTES) if started else b""
        with contextlib.suppress(OSError):  # the disk is full: the command goes on, and its log has a gap here
            self._log.put(self._produced, data)
        self._produced += len(data)
        return bool(data)

    def _read_report(self) -> bool:
        started = self._begun.started
        data = self._take(started.report) if started else b""
        self._understand(data)
        return bool(data)

    def _understand(self, data: bytes) -> None:
        *lines, rest = (self._reports + data).split(b"\n")
        self._reports = rest[-_REPORT_BYTES:]
        for line in lines:
            match line.decode(errors="replace").split(" ", 2):
                case ["started"]:
                    self._ran = True
                case ["exit", status, left] if status.isdecimal() and left.isdecimal():
                    self._ended(int(status) & 0xFFFF, int(left))
                case ["error", number, what] if number.isdecimal():
                    self._error = f"{what or 'the command'}: {os.strerror(int(number))}"

    def _read_said(self) -> None:
        started = self._begun.started
        if started is not None:
            self._said = (self._said + self._take(started.errors))[:_REPORT_BYTES]

    def _accept(self) -> None:
        fd = self._control.accept()
        if fd is not None:
            self._listen(fd, lambda: self._serve(fd))

    def _serve(self, fd: int) -> None:
        if not self._control.serve(fd):
            self._forget(fd)

    def _request(self, request: dict[str, Any]) -> dict[str, Any]:
        match request:
            case {"op": "stop"}:
                grace_s = request.get("grace_s", self._order["grace_s"])
                if not isinstance(grace_s, int | float) or not grace_s >= 0:
                    return {"error": f"grace_s must be a number of seconds, got {grace_s!r}"}
                # A fenced agent still holds the lease of what it ends; whoever ends the whole node does so after it.
                self._put_down = self._put_down or not (self._control.held or self._stopped or self._is_over)
                self._stop(grace_s)
                return {"ok": True}
            case {"op": "status"}:
                return self._describe()
        return {"error": f"unknown op {request.get('op')!r}; expected hold, status or stop"}

    def _describe(self) -> dict[str, Any]:
        enforced = self._cgroup.limits_memory
        return {
            "phase": "ending" if self._killed or self._kill_at is not None else "running",
            "pid": os.getpid(),
            "started_at": self._begun.at,
            "memory_bytes": self._cgroup.memory_bytes() if enforced else self._tree.bytes(),
            "disk_bytes": self._disk.used,
            "log_size": self._produced,
        }

    # -- the end

    def _stop(self, grace_s: float) -> None:
        self._stopped = self._stopped or not self._is_over
        self._terminate(grace_s)

    @property
    def _is_over(self) -> bool:
        """Whether the command has come to its end by itself or by a limit; who asks then has not stopped it."""
        return self._status is not None or self._breach is not None

    def _terminate(self, grace_s: float) -> None:
        """Ask every process to end, and end it after the grace; a stricter deadline set before stays."""
        at = time.monotonic() + grace_s
        if self._kill_at is None:
            self._family.ask()
        self._kill_at = at if self._kill_at is None else min(self._kill_at, at)

    def _kill(self) -> None:
        self._killed = True
        self._family.kill()

    def _ended(self, status: int, left: int) -> None:
        """The command ended; the first to say so is believed, and all that it left behind is ended."""
        if self._status is None:
            self._status, self._left = status, left
        self._kill()

    def _reap(self) -> None:
        """Take every status there is; when no child is left, nothing of the tree is."""
        started = self._begun.started
        while not self._empty:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                self._empty = True
                return
            if pid == 0:
                return
            if started is not None and pid == started.pid and (end := self._family.ended(status)) is not None:
                self._ended(*end)

    def _finish(self) -> None:
        """End the tree by nothing but signals and waiting."""
        while not self._empty:
            self._kill()
            self._reap()
            time.sleep(_KILL_PAUSE_S)

    def _drain(self) -> None:
        """Take what is left in the pipes; nobody writes any more, so this ends."""
        while self._read_log() or self._read_report():
            pass
        self._read_said()

    def _close(self) -> None:
        with contextlib.suppress(OSError):  # a full disk must not keep the exit record from being written
            self._log.close()
        ended = outcome.record(self._facts(), time.time())
        self._cgroup.remove()
        record.write_ended(self._directory, ended)
        self._control.close({"event": "ended", "exit": ended})

    def _facts(self) -> outcome.Facts:
        error, enclosed = self._error, isinstance(self._family, Enclosed)
        if error is None and enclosed and self._status is None and not (self._ran or self._killed):
            error = self._said.decode(errors="replace").strip() or "the sandbox ended before the command began"
        return outcome.Facts(
            status=self._status,
            error=error,
            breach=self._breach,
            stopped=self._stopped,
            put_down=self._put_down,
            killed=self._killed,
            left=self._left,
            memory_kills=self._cgroup.memory_kills() if self._cgroup.limits_memory else 0,
            memory_limit_bytes=self._limits["memory_bytes"] or 0,
            memory_peak_bytes=self._peak_bytes(),
            fork_refusals=self._cgroup.fork_refusals() if self._cgroup.limits_pids else 0,
            pids_limit=self._limits["pids"] or 0,
        )


def _traced(defect: Exception) -> dict[str, str]:
    """Where it came from, if that can be told: descriptors, files or memory may be what is missing."""
    try:
        return {"traceback": "".join(traceback.format_exception(defect))}
    except Exception:
        return {}
