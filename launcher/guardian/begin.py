"""From the order on descriptor 0 to a command that runs and a guardian that stands alone; the answer goes to 1."""

from __future__ import annotations

import contextlib
import fcntl
import marshal
import os
import select
import time

from . import durable, record, start, tree
from .cgroup import Cgroup
from .guard import Guard
from .wire import Wire

_LOCK_TRIES = 100
_LOCK_PAUSE_S = 0.005


class Begun:
    """What stands at the end of the beginning; `started` is None where nothing could be started, `error` says why.

    `reports` is what our PID 1 has said so far.
    """

    __slots__ = ("at", "cgroup", "error", "reports", "started")

    def __init__(self, cgroup: Cgroup, started: start.Started | None, error: str | None) -> None:
        self.cgroup, self.started, self.error = cgroup, started, error
        self.at = time.time()
        self.reports = b""


def _read_order() -> Wire:
    pieces = []
    while piece := os.read(0, 1 << 20):
        pieces.append(piece)
    order: Wire = marshal.loads(b"".join(pieces))  # noqa: S302 - our own agent wrote it
    return order


def _answer(directory: str, text: str) -> None:
    """Tell who spawned us, and let go of it."""
    with contextlib.suppress(BrokenPipeError):  # it died; its successor finds us on disk
        os.write(1, text.encode(errors="replace") + b"\n")
    # Only a defect of ours is ever written there.
    fd = os.open(os.path.join(directory, "guardian.err"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(fd, 1)
    os.dup2(fd, 2)
    os.close(fd)


def _lock(directory: str) -> bool:
    """Become the one guardian of this attempt, as long as we live.

    Who asks whether there is a guardian takes the lock for a moment, so one refusal says little.
    """
    fd = os.open(os.path.join(directory, durable.LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    for _ in range(_LOCK_TRIES):
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_LOCK_PAUSE_S)
        else:
            return True
    return False


def _write_started(order: Wire, begun: Begun) -> None:
    """Say who belongs to this attempt, so that a successor can prove them gone."""
    started = begun.started
    pids = [os.getpid(), started.pid, started.first] if started else [os.getpid()]
    processes = [[found.pid, found.start] for pid in pids if pid and (found := tree.process(pid))]
    record.write_started(
        order["directory"],
        {
            "at": begun.at,
            "key": order["key"],
            "isolation": "bubblewrap" if order["bwrap"] else "none",
            "memory": "enforced" if begun.cgroup.limits_memory else "watched",
            "processes": processes,
            "cgroups": begun.cgroup.directories,
        },
    )


def _begin(order: Wire) -> Begun:
    """Start the command behind its gate, write that it began, open the gate, and wait until it has passed."""
    started, error = None, None
    try:
        started = start.enclosed(order, order["bwrap"]) if order["bwrap"] else start.plain(order)
    except OSError as refused:
        error = f"{refused.filename or 'the command'}: {refused.strerror}"
    limits = order["limits"]
    begun = Begun(Cgroup(order["cgroup"], limits["memory_bytes"], limits["pids"]), started, error)
    if started is not None and started.member:
        begun.cgroup.add(started.member)
    durable.reserve_exit(order["directory"])
    _write_started(order, begun)
    if started is not None:
        start.open_gate(started, order, pids=None if begun.cgroup.limits_pids else limits["pids"])
        # Nobody holds the lease yet, so this must not wait for longer than that.
        waiting = select.poll()
        waiting.register(started.report, select.POLLIN)
        if waiting.poll(order["lease_s"] * 1000):
            begun.reports = os.read(started.report, 4096)
    return begun


def begin() -> None:
    """Leave the agent's tree, begin, answer, and guard to the end."""
    order = _read_order()
    if os.fork():
        os._exit(0)
    os.chdir("/")
    os.umask(0o077)
    null = os.open("/dev/null", os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    journal = os.path.join(order["directory"], durable.JOURNAL)
    if os.path.exists(journal) or not _lock(order["directory"]) or os.path.exists(journal):
        _answer(order["directory"], f"{order['key']} was started before in {order['directory']}")
        return
    begun = _begin(order)
    _answer(order["directory"], "ok")
    Guard(order, begun).run()
