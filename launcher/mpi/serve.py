"""The main process of a node that serves an mpirun: prepares, then starts and reaps what it is told to, to its end.

Standard library only. It connects out to its node agent, again and again: what it started and what has ended it tells
each successor, until that has it on its disk.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import socket
import subprocess
import time

from . import PREPARATION, talk

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

RETRY_S = 0.2
CANNOT_START = 126
"""What a shell gives for a command that it can't execute."""
_PATH, _SPACE = r"(?:/\S*/)?", r"[ \t]+"
_BEFORE = rf"(?:{_PATH}(?:exec|sudo|nohup|env|timeout(?:{_SPACE}[-\d]\S*)+){_SPACE})*"
_SLEEP = rf"{_PATH}sleep(?:{_SPACE}(?:\$\(\([^()\n]*\)\)|[^\s;&|<>()'\"`#]+))+"
_TAIL = rf"{_PATH}tail{_SPACE}-[fF]{_SPACE}/dev/null"
_SSHD = r"(?:\S*/)?sshd\b[^;&|\n]*|service\s+ssh[d]?\s+start|(?:/etc/)?init\.d/ssh[d]?\s+start"
_FOR_JOBS = rf"wait(?:{_SPACE}\$!)?"
_EVER = rf"(?:while{_SPACE}(?:true|:|\[\s*1\s*\]|{_SLEEP})|until{_SPACE}false)"
_LOOP = rf"{_EVER}[ \t]*[;\n]\s*do\s+(?:(?:{_SLEEP}|{_FOR_JOBS}|true|:)[ \t]*[;&\n][\s;&]*)+done"
_ONE = rf"{_BEFORE}(?:{_SLEEP}|{_TAIL}|{_SSHD}|{_LOOP}|{_FOR_JOBS})"
_END = r"(?:[\s;&]|(?<=[\s;&])#[^\n'\"]*(?=[\n'\"]|\Z))*"
"""A comment may stand there; with a quote in it, it may be the end of a text that only looks like a command."""
_IN_SHELL = rf"{_PATH}(?:ba|da)?sh{_SPACE}-[a-z]*c{_SPACE}(?P<quote>['\"])\s*{_ONE}(?:[ \t]*(?:&&|[;&\n])\s*{_ONE})*"
_WAIT = rf"(?:{_ONE}|{_BEFORE}{_IN_SHELL}{_END}(?P=quote))"
_TRAILING_WAIT = re.compile(rf"(?:^|(?P<mark>&&|[;\n]|(?<![&>])&(?!&)))\s*{_WAIT}{_END}\Z")


def preparation(command: str) -> str:
    """What of a worker's command is to be run before it serves: all but the wait at its end. Pure.

    What stood before the wait means what it meant: a failure counts after `&&`, and does not after `;`.
    """
    work, mark = command.strip(), ""
    while wait := _TRAILING_WAIT.search(work):
        work, mark = work[: wait.start()].rstrip(), wait["mark"] or ""
    return f"{work}{mark} true" if work and mark else work


def prepare(command: str) -> int:
    """Run the preparation; its exit code, 128 + a signal's number."""
    work = preparation(command)
    if not work:
        return 0
    shell = "/bin/bash" if os.path.exists("/bin/bash") else "/bin/sh"
    code = subprocess.run([shell, "-c", work], check=False).returncode
    return code if code >= 0 else 128 - code


def main(directory: str) -> int:
    """Prepare and serve; returns where the preparation failed, and at the end of a stop."""
    code = prepare(os.environ.pop(PREPARATION, ""))
    if code:
        return code
    Server(directory).run()
    return 128 + signal.SIGTERM


def end_of(code: int) -> tuple[int | None, str | None]:
    """The exit code, or the signal, of what a shell was told to run, from how the shell itself ended. Pure.

    It may have become that command, and then died as it did, or have waited for it, and then tells a signal by a code.
    """
    number = -code if code < 0 else code - 128
    return (None, signal_name(number)) if 0 < number < signal.NSIG else (code, None)


def signal_name(number: int) -> str:
    """ "SIGKILL", or "signal 40" for those without a name. Pure."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


class Server:
    """The daemons of one node, and the connection to whichever agent answers now."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._running: dict[int, dict[str, Any]] = {}
        self._untold: dict[str, dict[str, Any]] = {}  # ends that no agent has on its disk yet
        self._known: set[str] = set()
        self._stopping = False
        self._connection: socket.socket | None = None
        self._lines = talk.Lines()

    def run(self) -> None:
        """Serve until SIGTERM; what runs then has it too, and is waited for."""
        wake = self._watch_signals()
        while not self._stopping or self._running or (self._untold and self._connection):
            if self._connection is None:
                self._connect()
            fds = [wake] if self._connection is None else [wake, self._connection.fileno()]
            ready, _, _ = select.select(fds, [], [], RETRY_S if self._connection is None else None)
            if wake in ready:
                os.read(wake, 4096)
            self._reap()
            if self._connection is not None and self._connection.fileno() in ready:
                self._hear()

    def _watch_signals(self) -> int:
        wake, woken = os.pipe()
        for fd in (wake, woken):
            os.set_blocking(fd, False)
        signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self._stop)
        return wake

    def _stop(self, *_: object) -> None:
        self._stopping = True

    def _connect(self) -> None:
        """Reach the agent and tell it everything that it may not know."""
        with contextlib.suppress(OSError):  # nobody listens now
            self._connection = talk.connect(self._directory)
            self._lines = talk.Lines()
            self._tell({"op": "serve"})
            for daemon in self._running.values():
                self._tell({"began": daemon})
            for ended in self._untold.values():
                self._tell({"ended": ended})

    def _tell(self, message: dict[str, Any]) -> None:
        if self._connection is None:
            return
        try:
            talk.send(self._connection, message)
        except OSError:
            self._disconnect()

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
            time.sleep(RETRY_S)

    def _hear(self) -> None:
        if self._connection is None:
            return
        try:
            data = self._connection.recv(65536)
            for message in self._lines.take(data):
                if "run" in message:
                    self._start(message["run"])
                elif "noted" in message:
                    self._untold.pop(message["noted"], None)
        except (OSError, ValueError):
            data = b""
        if not data:
            self._disconnect()

    def _start(self, order: dict[str, Any]) -> None:
        daemon = {"id": order["id"], "name": order["name"]}
        if daemon["id"] in self._known or self._stopping:
            return
        self._known.add(daemon["id"])
        try:
            pid = os.posix_spawn(
                "/bin/sh",
                ["sh", "-c", order["command"]],
                os.environ,
                file_actions=[(os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0)],
                setsid=True,
                setsigdef=[signal.SIGPIPE, signal.SIGXFSZ, signal.SIGTERM, signal.SIGINT, signal.SIGHUP],
            )
        # No process is left to the attempt, say, or a zero is in the command: whoever waits for it must hear of it.
        except (OSError, ValueError) as error:
            print(f"descent: {daemon['name']} could not be started: {error}", flush=True)
            self._has_ended({**daemon, "exit_code": CANNOT_START, "signal": None, "at": time.time()})
            return
        self._running[pid] = daemon
        self._tell({"began": daemon})

    def _has_ended(self, daemon: dict[str, Any]) -> None:
        self._untold[daemon["id"]] = daemon
        self._tell({"ended": daemon})

    def _reap(self) -> None:
        while self._running:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            daemon = self._running.pop(pid, None)
            if daemon is not None:  # else something that the preparation left running
                code, name = end_of(os.waitstatus_to_exitcode(status))
                self._has_ended({**daemon, "exit_code": code, "signal": name, "at": time.time()})
