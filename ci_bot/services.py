"""Processes that `up` starts, watches, and finds again after it was killed."""

import contextlib
import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import structlog

RESTART_MAX_S = 30.0
END_S = 10.0
STEADY_S = 60.0
"""A process that lived so long starts again at once."""
PR_SET_PDEATHSIG = 1
GONE = -1
"""The start of a process that is no more."""
log = structlog.get_logger()


@dataclass
class Service:
    """A process of ours that is started again when it dies."""

    name: str
    argv: tuple[str, ...]
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    failures: int = 0
    next_start_at: float = 0.0

    def start(self, environment: Mapping[str, str]) -> None:
        """Start it, out of the terminal's reach: Ctrl-C is ours to act on. It ends with us, however we end."""
        self.process = subprocess.Popen(
            self.argv,
            env=dict(environment),
            start_new_session=True,
            preexec_fn=_end_with_parent,  # noqa: PLW1509 - `up` has no threads
        )
        self.started_at = time.monotonic()
        log.info("started", process=self.name, pid=self.process.pid)

    def watch(self, environment: Mapping[str, str]) -> None:
        """Start it again if it died, sooner if it had lived for long."""
        now = time.monotonic()
        if self.process is None:
            if now >= self.next_start_at:
                self.start(environment)
            return
        code = self.process.poll()
        if code is None:
            return
        self.failures = 1 if now - self.started_at > STEADY_S else self.failures + 1
        pause_s = 0.0 if self.failures == 1 else min(2.0 ** (self.failures - 2), RESTART_MAX_S)
        log.error("a process ended; it is started again", process=self.name, code=code, in_s=pause_s)
        self.process, self.next_start_at = None, now + pause_s

    def end(self, number: signal.Signals, limit_s: float) -> None:
        """Ask it to end, and end it after the limit."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.send_signal(number)
        try:
            self.process.wait(limit_s)
        except subprocess.TimeoutExpired:
            log.error("a process did not end in time", process=self.name)
            self.process.kill()
            self.process.wait()


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def identity(pid: int) -> dict[str, int]:
    """A process as it can be recognised after the pid was given to another."""
    return {"pid": pid, "started": _start_ticks(pid)}


def _start_ticks(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19])
    except (OSError, IndexError):
        return GONE


def is_alive(known: Mapping[str, int] | None) -> bool:
    """Whether that very process still lives."""
    return known is not None and _start_ticks(known["pid"]) == known["started"] != GONE


def end(known: Mapping[str, int] | None) -> None:
    """End a process of an earlier run, if it still lives."""
    give_up_at = time.monotonic() + END_S
    number = signal.SIGTERM
    while known is not None and is_alive(known):
        number = signal.SIGKILL if time.monotonic() > give_up_at else number
        with contextlib.suppress(ProcessLookupError):
            os.kill(known["pid"], number)
        time.sleep(0.05)
