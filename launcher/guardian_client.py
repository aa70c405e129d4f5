"""How an agent starts a guardian, finds it again, asks it, and proves that nothing of an attempt is left."""

import contextlib
import fcntl
import json
import marshal
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from launcher import sandbox
from launcher.fork_server import ForkServer
from launcher.guardian import cgroup, control, durable, record, start, tree
from launcher.guardian_order import ATTEMPT, Enclosure, cgroup_name, marks, public, to_wire
from launcher.guardian_order import Limits as Limits
from launcher.guardian_order import Order as Order

_SPAWN_S = 60.0
_ANSWER_S = 10.0
_CONNECT_PAUSE_S = 0.005
_SETTLE_S = 1.0
_PURGE_S = 5.0
_PURGE_PAUSE_S = 0.02
_PURGE_LOOKS = 2


class GuardianError(Exception):
    """A guardian could not be started, or did not answer."""


@dataclass(frozen=True)
class Found:
    """A guardian that lives, and what it says."""

    phase: str
    pid: int
    started_at: float
    memory_bytes: int
    disk_bytes: int
    log_size: int


def spawn(directory: Path, order: Order, server: ForkServer) -> None:
    """Start a guardian for an attempt; returns when the command runs, or has ended already.

    Args:
        directory: the attempt's own, on this host; at most one guardian ever starts in it.
        order: what to run. Its environment reaches the guardian by a descriptor and is on no disk and no command line.
        server: forks it.

    Raises:
        GuardianError: there was one before, bubblewrap is missing, or it could not begin.
    """
    wire = to_wire(directory, order, _enclose(directory, order))
    durable.write(str(directory / "order.json"), json.dumps(public(order)).encode())
    fd = os.memfd_create("order", os.MFD_CLOEXEC)
    with open(fd, "wb") as message:
        message.write(marshal.dumps(cast("Any", wire)))
        message.flush()
        answer = _fork(server, message.fileno())
    if answer != "ok":
        raise GuardianError(answer)


def _enclose(directory: Path, order: Order) -> Enclosure | None:
    """Write what the sandbox needs on disk, and give its command lines."""
    if order.sandbox is None:
        return None
    host = sandbox.survey()
    if host is None:
        raise GuardianError("bwrap is not installed (package bubblewrap)")
    etc = directory / "etc"
    sandbox.write_etc(order.sandbox, etc)
    copied = sandbox.copied_files(order.sandbox, host, str(etc.absolute()))
    copies = {path: start.FIRST_COPY + number for number, path in enumerate(copied)}
    return Enclosure(
        bwrap=sandbox.bwrap_argv(order.sandbox, host, copies),
        copied=list(copied.values()),
        init=sandbox.init_argv(host),
        root=host.root,
    )


def _fork(server: ForkServer, order_fd: int) -> str:
    """A guardian's word; where there was none once more, from another server: the first was killed with the order."""
    for _ in range(2):
        os.lseek(order_fd, 0, os.SEEK_SET)
        try:
            if answer := server.fork(order_fd, _SPAWN_S):
                return answer
        except TimeoutError as late:
            raise GuardianError(f"the guardian did not begin within {_SPAWN_S:g} s") from late
        except OSError as error:
            raise GuardianError(str(error)) from error
    raise GuardianError("the guardian ended without a word")


def _guarded(directory: Path) -> bool:
    """Whether a guardian lives: it holds the lock of its attempt from its first moment to its last."""
    try:
        fd = os.open(directory / durable.LOCK, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def _connect(directory: Path) -> socket.socket | None:
    """A connection to the guardian; None where none lives.

    Raises:
        GuardianError: one lives and takes nobody in: it does so some milliseconds after the command began, and one
            that hangs never does.
    """
    until = time.monotonic() + _ANSWER_S
    while (connection := _try_to_connect(directory)) is None and _guarded(directory):
        if time.monotonic() > until:
            raise GuardianError(f"the guardian in {directory} took nobody in for {_ANSWER_S:g} s")
        time.sleep(_CONNECT_PAUSE_S)
    return connection


def _try_to_connect(directory: Path) -> socket.socket | None:
    """A connection; None where nobody listens, or as many wait as may."""
    try:
        fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(_ANSWER_S)
        connection.connect(control.address(fd))
    except (FileNotFoundError, ConnectionError, BlockingIOError, TimeoutError):
        connection.close()
        return None
    except BaseException:
        connection.close()
        raise
    finally:
        os.close(fd)
    return connection


def _ask(directory: Path, request: dict[str, Any]) -> dict[str, Any] | None:
    """The guardian's answer; None where none lives, or it ended over the question."""
    connection = _connect(directory)
    if connection is None:
        return None
    with connection:
        try:
            connection.sendall(json.dumps(request).encode() + b"\n")
            answer = next(_lines(connection), None)
        except TimeoutError as silent:
            raise GuardianError(f"the guardian in {directory} did not answer for {_ANSWER_S:g} s") from silent
        except ConnectionError:
            return None
    return None if answer is None or "event" in answer else answer


def _lines(connection: socket.socket) -> Iterator[dict[str, Any]]:
    pending = b""
    while data := connection.recv(65536):
        *lines, pending = (pending + data).split(b"\n")
        for line in lines:
            yield json.loads(line)


def find(directory: Path) -> Found | None:
    """The guardian of an attempt, None when none lives: then `exit_of` has the end, or there was none to see it.

    Raises:
        GuardianError: it lives and does not answer.
    """
    answer = _ask(directory, {"op": "status"})
    if answer is None:
        return None
    return Found(
        phase=answer["phase"],
        pid=answer["pid"],
        started_at=answer["started_at"],
        memory_bytes=answer["memory_bytes"],
        disk_bytes=answer["disk_bytes"],
        log_size=answer["log_size"],
    )


def stop(directory: Path, grace_s: float) -> bool:
    """Ask the guardian to end its tree: SIGTERM, SIGKILL after the grace. False when there is no guardian.

    Raises:
        GuardianError: it lives and does not answer, or refuses.
    """
    answer = _ask(directory, {"op": "stop", "grace_s": grace_s})
    if answer is not None and "error" in answer:
        raise GuardianError(answer["error"])
    return answer is not None


def exit_of(directory: Path) -> dict[str, Any] | None:
    """The exit record; None while the attempt runs, or when its guardian was killed."""
    return record.read_exit(str(directory))


def started_of(directory: Path) -> dict[str, Any] | None:
    """The journal's first fact: `at`, `isolation`, `memory`, `processes`, `cgroups`; None before the start."""
    return next((event for event in record.read_journal(str(directory)) if event["event"] == "started"), None)


class Hold:
    """A connection that holds the lease of a guardian until it is closed, and hears of the end at once."""

    def __init__(self, connection: socket.socket, directory: Path, on_ended: Callable[[dict[str, Any] | None], None]):
        self._connection, self._directory, self._on_ended = connection, directory, on_ended
        self._closing = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._listen, name=f"hold-{directory.name}", daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        try:
            for _ in _lines(self._connection):
                pass  # "held" and "ended"; the record on disk is the truth
        except OSError:
            pass  # as good as the end of it: the disk tells
        finally:
            self._connection.close()
        self._ended.set()
        if not self._closing:
            self._on_ended(exit_of(self._directory))

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for the guardian's end; False when the time is over before."""
        return self._ended.wait(timeout_s)

    def close(self) -> None:
        """Let go of the lease; `on_ended` is not called any more."""
        self._closing = True
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        if threading.current_thread() is not self._thread:
            self._thread.join()


def hold(directory: Path, on_ended: Callable[[dict[str, Any] | None], None]) -> Hold | None:
    """Hold the lease of an attempt's guardian; None when none lives.

    Args:
        directory: the attempt's.
        on_ended: called once, from a thread, with the exit record, or None when the guardian left none.
    """
    connection = _connect(directory)
    if connection is None:
        return None
    connection.settimeout(None)
    try:
        connection.sendall(b'{"op":"hold"}\n')
    except ConnectionError:
        connection.close()
        return None
    return Hold(connection, directory, on_ended)


def sweep(key: str, directory: Path | None = None) -> list[int]:
    """The processes that carry an attempt's mark in the environment they were started with.

    Args:
        key: the attempt's.
        directory: the attempt's; without it, attempts of that key in any installation on this host.
    """
    mark = {ATTEMPT: key} if directory is None else marks(directory, key)
    wanted = {f"{name}={value}".encode() for name, value in mark.items()}
    return [pid for pid in tree.numbers() if _carries(pid, wanted) and (known := tree.process(pid)) and known.lives]


def _carries(pid: int, wanted: set[bytes]) -> bool:
    try:
        with open(f"/proc/{pid}/environ", "rb", buffering=0) as file:
            return wanted <= set(file.read().split(b"\0"))
    except OSError:
        return False  # not ours, or gone


def is_empty(directory: Path, key: str) -> tuple[bool, list[str]]:
    """Whether no process of an attempt is left on this host, and what is.

    A guardian that has written its exit record is gone within the millisecond; that much is waited for.
    """
    until = time.monotonic() + (_SETTLE_S if exit_of(directory) is not None else 0)
    while (left := _named(_left(directory, key), _cgroups(directory, key))) and time.monotonic() < until:
        time.sleep(_CONNECT_PAUSE_S)
    return not left, left


def _named(pids: Iterable[int], cgroups: Iterable[str]) -> list[str]:
    return [f"process {pid}" for pid in pids] + [f"control group {path}" for path in cgroups]


def _cgroups(directory: Path, key: str) -> list[str]:
    """Those written down, and those that a guardian made that died before it could."""
    written = (started_of(directory) or {}).get("cgroups", [])
    return sorted({*filter(os.path.isdir, written), *cgroup.leaves(cgroup_name(directory, key))})


def _left(directory: Path, key: str) -> list[int]:
    begun = started_of(directory)
    found = set(sweep(key, directory))
    found |= {pid for pid, start in (begun or {}).get("processes", []) if tree.same(pid, start)}
    found |= {pid for path in _cgroups(directory, key) for pid in cgroup.processes_of(path)}
    return sorted(found)


def purge(directory: Path, key: str) -> tuple[bool, list[str]]:
    """End whatever a killed guardian left, its guardian too if it still lives; whether nothing is left, and what is."""
    until = time.monotonic() + _PURGE_S
    quiet = 0
    # Looked at twice: in the middle of an exec a process shows no environment, and so no mark.
    while quiet < _PURGE_LOOKS and time.monotonic() < until:
        left = _left(directory, key)
        for pid in left:
            tree.send(pid, signal.SIGKILL)
        quiet = 0 if left else quiet + 1
        if quiet < _PURGE_LOOKS:
            time.sleep(_PURGE_PAUSE_S)
    for path in _cgroups(directory, key):
        cgroup.remove(path)
    if quiet < _PURGE_LOOKS:
        return is_empty(directory, key)
    groups = _named((), _cgroups(directory, key))
    return not groups, groups
