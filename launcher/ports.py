"""Ports for the nodes of a gang: found free, and kept from every other attempt until all of theirs is cleared.

Who holds the lock of a port has the port, whatever agents and directories there are in its network namespace; a lock
goes with its process. What was reserved is written in the attempt's directory, so that a successor takes the same
locks again.
"""

import json
import random
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path

from launcher import port_locks
from launcher.guardian import durable
from launcher.node_types import NodeError
from launcher.probing import Doors
from launcher.state import Cause

RANGE = range(20000, 32768)
"""Below the ports that Linux gives to outgoing connections."""
_RECORD = "ports.json"
_TAKE_S = 5.0
"""How long a predecessor may take to end."""
_PAUSE_S = 0.05


@dataclass(frozen=True)
class Record:
    """What an attempt has reserved, by name; once it is `handed` over, its command alone listens there."""

    ports: Mapping[str, int] = field(default_factory=dict)
    handed: bool = False


class Ports:
    """What one agent keeps for its attempts. Until a command starts, the agent itself listens on its ports."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[str, dict[int, int]] = {}  # descriptors of locks, by attempt and port
        self._doors = Doors()
        self._closed = False

    def reserve(self, attempt: Path, names: Sequence[str]) -> dict[str, int]:
        """A port for each name; the same ones again, whoever asked before.

        Raises:
            NodeError: too few are free, somebody has taken one since, or the command has started without them.
        """
        self._insist(attempt)
        with self._lock:
            record = _read(attempt)
            fresh = [name for name in dict.fromkeys(names) if name not in record.ports]
            if fresh:
                if record.handed:
                    raise _refused(f"{attempt.name} has started without a port for {fresh[0]}")
                found = zip(fresh, self._find(attempt.name, len(fresh)), strict=True)
                record = replace(record, ports={**record.ports, **dict(found)})
                _write(attempt, record)
        return {name: record.ports[name] for name in names}

    def take_again(self, attempt: Path) -> list[int]:
        """Hold, and listen on, what an attempt reserved with a predecessor; gives what can't be had now."""
        try:
            return self._missing(attempt)
        except (NodeError, OSError):  # the locks can't be reached: said when the attempt wants to use a port
            return list(_read(attempt).ports.values())

    def hand_over(self, attempt: Path) -> None:
        """Leave its ports to an attempt's command: when this returns it can bind them, and nobody else gets them.

        Raises:
            NodeError: somebody has taken one.
        """
        self._insist(attempt)
        with self._lock:
            record = _read(attempt)
            if record.ports and not record.handed:
                # Before the doors are shut: no successor may listen where the command is about to.
                _write(attempt, replace(record, handed=True))
            for port in record.ports.values():
                self._doors.shut(port)

    def release(self, key: str) -> None:
        """Give an attempt's ports back, once its directory is gone."""
        with self._lock:
            for port in list(self._held.get(key, ())):
                self._drop(key, port)
            self._held.pop(key, None)

    def close(self) -> None:
        """Let go of everything; a successor takes it again."""
        with self._lock:
            self._closed = True
        for key in list(self._held):
            self.release(key)

    def _insist(self, attempt: Path) -> None:
        until = time.monotonic() + _TAKE_S
        while missing := self._missing(attempt):
            if time.monotonic() > until:
                raise _refused(f"port {missing[0]} was reserved for {attempt.name}, and somebody else has it now")
            time.sleep(_PAUSE_S)

    def _missing(self, attempt: Path) -> list[int]:
        with self._lock:
            record = _read(attempt)
            ports = record.ports.values()
            return [port for port in ports if self._closed or not self._take(attempt.name, port, not record.handed)]

    def _find(self, key: str, count: int) -> list[int]:
        free = (port for port in _from_anywhere() if port not in self._held.get(key, ()) and self._take(key, port))
        found = list(islice(free, count))
        if len(found) < count:
            for port in found:
                self._drop(key, port)
            raise _refused(f"{count} ports from {RANGE[0]} to {RANGE[-1]} are wanted, {len(found)} are free")
        return found

    def _take(self, key: str, port: int, listen: bool = True) -> bool:
        """Hold a port; False when somebody else has it, or listens there."""
        held = self._held.setdefault(key, {})
        if port not in held:
            lock = port_locks.take(port)
            if lock is None:
                return False
            held[port] = lock
        if listen and not self._doors.open(port):
            self._drop(key, port)
            return False
        return True

    def _drop(self, key: str, port: int) -> None:
        self._doors.shut(port)
        port_locks.give_back(self._held[key].pop(port))


def _from_anywhere() -> Iterator[int]:
    """All ports, from a random one on: one that was given back is not given again at once."""
    first = random.randrange(len(RANGE))  # noqa: S311 - no secret
    return (RANGE[(first + step) % len(RANGE)] for step in range(len(RANGE)))


def _read(attempt: Path) -> Record:
    try:
        return Record(**json.loads((attempt / _RECORD).read_text()))
    except FileNotFoundError:
        return Record()


def _write(attempt: Path, record: Record) -> None:
    durable.write(str(attempt / _RECORD), json.dumps(asdict(record)).encode())


def _refused(why: str) -> NodeError:
    return NodeError(Cause.PREPARATION_FAILED, why)
