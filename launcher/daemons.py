"""The daemons that an mpirun has had started on one node: ordered, begun, ended; on disk before anybody is told."""

import json
import re
import signal
import sys
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
GONE = "mpiruns-gone.jsonl"
MOST = 4096
"""As many as one attempt may have started on one node."""
MAX_COMMAND_BYTES = (128 << 10) - 1
"""What Linux takes as one argument (MAX_ARG_STRLEN), less the zero at its end."""
MAX_WAITING_BYTES = 32 << 20
"""What the commands of one attempt may hold in memory here until they are started."""
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


def mpirun_gone(attempt: Path) -> dict[str, float]:
    """When the mpirun of daemons on other nodes had gone, by their ids."""
    try:
        lines = (attempt / GONE).read_bytes().split(b"\n")
    except FileNotFoundError:
        return {}
    found = {}
    for line in lines:
        with suppress(ValueError):  # torn by a full disk
            daemon_id, at = json.loads(line)
            found[str(daemon_id)] = float(at)
    return found


class Daemons:
    """The daemons of one attempt on this node. Each order is carried out once, however often it is given."""

    def __init__(self, attempt: Path, changed: Callable[[], None]) -> None:
        self._attempt, self._changed = attempt, changed
        self._begun = recorded(attempt)
        self._gone = mpirun_gone(attempt)
        self._orders: dict[str, str] = {}
        self._condition = threading.Condition()

    def order(self, launch_id: str, command: str) -> bool:
        """Take an order; False when it was given before.

        Raises:
            NodeError: it is too long, or there were too many.
        """
        if not ID.fullmatch(launch_id) or len(command.encode(errors="replace")) > MAX_COMMAND_BYTES:
            raise NodeError(Cause.DAEMON_LOST, f"a command of at most {MAX_COMMAND_BYTES} bytes is wanted")
        with self._condition:
            if launch_id in self._begun or launch_id in self._orders:
                return False
            if len(self._begun) + len(self._orders) >= MOST:
                raise NodeError(Cause.DAEMON_LOST, f"{MOST} processes were started there, which is the most")
            if sum(map(sys.getsizeof, (command, *self._orders.values()))) > MAX_WAITING_BYTES:
                why = f"the commands that wait there to be started hold {MAX_WAITING_BYTES} bytes, which is the most"
                raise NodeError(Cause.DAEMON_LOST, why)
            self._orders[launch_id] = command
        return True

    def waiting(self) -> list[str]:
        """The ids of the orders that nobody has carried out yet."""
        with self._condition:
            return list(self._orders)

    def told(self, launch_id: str) -> dict[str, str] | None:
        """What the node's main process is to be told of an order; None when nothing of it is left to do."""
        with self._condition:
            command = self._orders.get(launch_id)
        return None if command is None else {"id": launch_id, "name": name_of(command), "command": command}

    def hear(self, message: Mapping[str, Any]) -> str | None:
        """Note what the node's main process says: something has begun, or ended; the id of what ended.

        Raises:
            ValueError: it makes no sense. What says it is beside the user's code, and may be that.
        """
        if "began" in message:
            self._note(_begun(message["began"]))
        elif "ended" in message:
            ended = _ended(message["ended"])
            self._note(ended)
            return ended.id
        return None

    def _note(self, daemon: Daemon) -> None:
        with self._condition:
            known = self._begun.get(daemon.id)
            # What is no news changes nothing, here or on the disk: who says it may say it for ever.
            news = len(self._begun) < MOST if known is None else _runs(known) and not _runs(daemon)
            if news:
                durable.append(str(self._attempt / RECORD), json.dumps(asdict(daemon)).encode() + b"\n")
                self._begun[daemon.id] = daemon
                self._condition.notify_all()
            self._orders.pop(daemon.id, None)
        if news:
            self._changed()

    def wait(self, launch_id: str, timeout_s: float) -> Daemon | None:
        """A daemon, once it has ended or the time is over; None when it has not begun by then."""

        def ended() -> bool:
            return launch_id in self._begun and not _runs(self._begun[launch_id])

        with self._condition:
            self._condition.wait_for(ended, timeout_s)
            return self._begun.get(launch_id)

    def note_mpirun_gone(self, launch_id: str, at: float) -> None:
        """The mpirun that had a daemon started on another node has gone before that daemon's end was known here."""
        with self._condition:
            news = launch_id not in self._gone and len(self._gone) < MOST
            if news:
                durable.append(str(self._attempt / GONE), json.dumps([launch_id, at]).encode() + b"\n")
                self._gone[launch_id] = at
        if news:
            self._changed()

    @property
    def mpirun_gone(self) -> dict[str, float]:
        """When that was, by the daemons' ids."""
        with self._condition:
            return dict(self._gone)

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


def _begun(said: Any) -> Daemon:
    """What a sandbox says of a daemon, as far as it may be believed."""
    if not isinstance(said, dict):
        raise ValueError("no daemon")
    daemon_id, name = said.get("id"), said.get("name")
    if not isinstance(daemon_id, str) or not ID.fullmatch(daemon_id):
        raise ValueError("no id")
    if not isinstance(name, str):
        raise ValueError("no name")
    return Daemon(id=daemon_id, name=_plain(name), exit_code=None, signal=None, at=None)


def _ended(said: Any) -> Daemon:
    """What it says of one's end: an exit code or a signal, and when."""
    begun, now = _begun(said), time.time()
    exit_code, killed_by, at = said.get("exit_code"), said.get("signal"), said.get("at")
    if type(at) not in {int, float} or not at >= 0:  # no bool, and no NaN
        raise ValueError("no time")
    at = float(at) if at < now else now
    if killed_by is None and type(exit_code) is int and 0 <= exit_code <= 255:
        return replace(begun, exit_code=exit_code, at=at)
    if exit_code is None and isinstance(killed_by, str) and _is_signal(killed_by):
        return replace(begun, signal=killed_by, at=at)
    raise ValueError("no end")


def _is_signal(name: str) -> bool:
    return name in signal.Signals.__members__ or _NAMELESS.fullmatch(name) is not None


def _plain(text: str) -> str:
    return "".join(letter for letter in text if letter.isascii() and letter.isprintable())[:_NAME_LENGTH]
