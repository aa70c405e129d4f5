"""The daemons that an mpirun has had started on one node: ordered, begun, ended; on disk before anybody is told."""

import json
import re
import signal
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from launcher.guardian import durable
from launcher.node_types import Daemon, NodeError
from launcher.state import Cause

RECORD = "daemons.jsonl"
MOST = 4096
"""As many as one attempt may have started on one node."""
ID = re.compile(r"[0-9a-f]{32}")
_NAME = re.compile(r"(?:^|[/\s])(orted|prted|hydra_pmi_proxy|hydra_bstrap_proxy)(?=\s|$)")
_NAMELESS = re.compile(r"signal ([1-9]|[1-5]\d|6[0-4])")
_NAME_LENGTH = 40


def name_of(command: str) -> str:
    """The daemon's name in the command that mpirun made, for a person. Pure."""
    known = _NAME.search(command.replace('"', " "))
    if known:
        return known[1]
    words = command.split()
    return _plain(words[0].rpartition("/")[2]) if words else ""


def recorded(attempt: Path) -> dict[str, Daemon]:
    """The daemons that have begun on a node, by id, in their order."""
    try:
        lines = (attempt / RECORD).read_bytes().split(b"\n")
    except FileNotFoundError:
        return {}
    found = {}
    for line in lines:
        with suppress(ValueError):  # torn by a full disk: it was told again
            daemon = Daemon(**json.loads(line))
            found[daemon.id] = daemon
    return found


class Daemons:
    """The daemons of one attempt on this node. Each order is carried out once, however often it is given."""

    def __init__(self, attempt: Path, changed: Callable[[], None]) -> None:
        self._attempt, self._changed = attempt, changed
        self._begun = recorded(attempt)
        self._orders: dict[str, str] = {}
        self._condition = threading.Condition()

    def order(self, launch_id: str, command: str) -> dict[str, str] | None:
        """Take an order; what the node's main process is to be told, None when it was told before.

        Raises:
            NodeError: there were too many.
        """
        with self._condition:
            if launch_id in self._begun or launch_id in self._orders:
                return None
            if len(self._begun) + len(self._orders) >= MOST:
                raise NodeError(Cause.DAEMON_LOST, f"{MOST} processes were started there, which is the most")
            self._orders[launch_id] = command
        return _told(launch_id, command)

    def waiting(self) -> list[dict[str, str]]:
        """The orders that nobody has carried out yet."""
        with self._condition:
            return [_told(launch_id, command) for launch_id, command in self._orders.items()]

    def hear(self, message: Mapping[str, Any]) -> str | None:
        """Note what the node's main process says: something has begun, or ended; the id of what ended.

        Raises:
            ValueError: it makes no sense. What says it is beside the user's code, and may be that.
        """
        if "began" in message:
            self._note(_daemon(message["began"]))
        elif "ended" in message:
            ended = _daemon(message["ended"])
            self._note(ended)
            return ended.id
        return None

    def _note(self, daemon: Daemon) -> None:
        with self._condition:
            known = self._begun.get(daemon.id)
            news = known is None or (_runs(known) and not _runs(daemon))
            if news and (known or len(self._begun) < MOST):
                durable.append(str(self._attempt / RECORD), json.dumps(asdict(daemon)).encode() + b"\n")
                self._begun[daemon.id] = daemon
            self._orders.pop(daemon.id, None)
            self._condition.notify_all()
        if news:
            self._changed()

    def wait(self, launch_id: str, timeout_s: float) -> Daemon | None:
        """A daemon, once it has ended or the time is over; None when it has not begun by then."""

        def ended() -> bool:
            return launch_id in self._begun and not _runs(self._begun[launch_id])

        with self._condition:
            self._condition.wait_for(ended, timeout_s)
            return self._begun.get(launch_id)

    def all(self) -> tuple[Daemon, ...]:
        """Those that have begun, in their order."""
        with self._condition:
            return tuple(self._begun.values())


def ended_with_the_node(daemons: tuple[Daemon, ...], at: float | None) -> tuple[Daemon, ...]:
    """The daemons of a node whose main process is gone: the kernel, or the guardian, has killed what was left. Pure."""
    killed = signal.SIGKILL.name
    return tuple(replace(each, signal=killed, at=at) if _runs(each) else each for each in daemons)


def _runs(daemon: Daemon) -> bool:
    return daemon.exit_code is None and daemon.signal is None


def _told(launch_id: str, command: str) -> dict[str, str]:
    return {"id": launch_id, "name": name_of(command), "command": command}


def _daemon(said: Any) -> Daemon:
    """What a sandbox says of a daemon, as far as it may be believed."""
    if not isinstance(said, dict) or not ID.fullmatch(str(said.get("id"))):
        raise ValueError("no id")
    exit_code, number, at = said.get("exit_code"), said.get("signal"), said.get("at")
    if number is not None and number not in signal.Signals.__members__ and not _NAMELESS.fullmatch(str(number)):
        raise ValueError("no signal")
    if exit_code is not None and (not isinstance(exit_code, int) or not 0 <= exit_code <= 255):
        raise ValueError("no exit code")
    if at is not None and (not isinstance(at, int | float) or not at >= 0):
        raise ValueError("no time")
    at = at if at is None else min(float(at), time.time())
    return Daemon(id=said["id"], name=_plain(str(said.get("name", ""))), exit_code=exit_code, signal=number, at=at)


def _plain(text: str) -> str:
    return "".join(letter for letter in text if letter.isascii() and letter.isprintable())[:_NAME_LENGTH]
