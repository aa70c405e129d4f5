"""How a command is started, enclosed or plain; it waits at the gate until the guardian has written that it began."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import signal

from .init import CATCHABLE, limit_resources, message, shell
from .wire import InitOrder, Wire

_PIPE_BYTES = 1 << 20
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_SAFE_FD = 64
_CONTROL, _REPORT, _LOG, _JSON = 3, 4, 5, 6
FIRST_COPY = 128
"""Where bubblewrap finds the first of the files that it copies: above all that we have open."""
_LIBC = ctypes.CDLL(None, use_errno=True)


class Started:
    """A command at the gate: the descriptors that watch and steer it, and the processes that are it.

    `pid` is our child: bwrap, or the plain shell. `first` is the sandbox's PID 1 as seen from outside, 0 when plain or
    when bwrap gave up before. `errors` is what bwrap says, -1 when plain.
    """

    __slots__ = ("control", "errors", "first", "log", "pid", "report", "status")

    def __init__(self, *, pid: int, control: int, report: int, log: int, errors: int) -> None:
        self.pid, self.control, self.report, self.log, self.errors = pid, control, report, log, errors
        self.first = 0
        self.status = -1  # kept open: bwrap writes to it once more, at its end

    @property
    def enclosed(self) -> bool:
        """It is in a sandbox."""
        return self.errors >= 0

    @property
    def member(self) -> int:
        """The process whose control group all others inherit; 0 when it is gone."""
        return self.first if self.enclosed else self.pid


def _pipe() -> tuple[int, int]:
    """A pipe whose ends lie above the numbers that children expect theirs at."""
    ends = os.pipe()
    high = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, _SAFE_FD) for end in ends]
    for end in ends:
        os.close(end)
    return high[0], high[1]


def _log_pipe() -> tuple[int, int]:
    read, write = _pipe()
    with contextlib.suppress(OSError):  # over this user's share of pipe memory the kernel's own size has to do
        fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    os.set_blocking(read, False)
    return read, write


def _prctl(option: int, value: int) -> None:
    if _LIBC.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def enclosed(order: Wire, bwrap: list[str]) -> Started:
    """Start bwrap with our PID 1 in it, which waits for its order.

    Raises:
        OSError: bwrap can't be executed.
    """
    control_read, control = _pipe()
    report, report_write = _pipe()
    log, log_write = _log_pipe()
    status, status_write = _pipe()
    errors, errors_write = _pipe()
    init = [*order["init"], str(_CONTROL), str(_REPORT), str(_LOG)]
    argv = [bwrap[0], "--json-status-fd", str(_JSON), *bwrap[1:], "--", *init]
    # One that has gone is an empty file inside.
    copied = (path if os.path.exists(path) else os.devnull for path in order["copied"])
    moves = [(errors_write, 1), (errors_write, 2), (control_read, _CONTROL), (report_write, _REPORT)]
    moves += [(log_write, _LOG), (status_write, _JSON)]
    pid = os.posix_spawn(
        argv[0],
        argv,
        {"PATH": "/usr/bin:/bin"},
        file_actions=[
            *((os.POSIX_SPAWN_DUP2, source, target) for source, target in moves),
            *((os.POSIX_SPAWN_OPEN, FIRST_COPY + n, path, os.O_RDONLY, 0) for n, path in enumerate(copied)),
        ],
        setsigmask=[],
        setsigdef=CATCHABLE,
    )
    for fd in (control_read, report_write, log_write, status_write, errors_write):
        os.close(fd)
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)  # should bwrap be killed alone, our PID 1 becomes our child
    started = Started(pid=pid, control=control, report=report, log=log, errors=errors)
    started.status = status
    started.first = _first_process(status)
    return started


def _first_process(status: int) -> int:
    """The sandbox's PID 1 from bwrap's first status line, `{"child-pid": 123}`; 0 when bwrap gave up before."""
    data = b""
    while b"}" not in data:
        piece = os.read(status, 4096)
        if not piece:
            break
        data += piece
    number = data.partition(b'"child-pid":')[2].partition(b",")[0].partition(b"}")[0].strip()
    return int(number) if number.isdigit() else 0


def plain(order: Wire) -> Started:
    """Fork the shell without any enclosure; it dies with us."""
    control_read, control = _pipe()
    report, report_write = _pipe()
    log, log_write = _log_pipe()
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    guardian = os.getpid()
    pid = os.fork()
    if pid == 0:
        os.close(control)
        _plain_child(order, guardian, (control_read, report_write, log_write))
    for fd in (control_read, report_write, log_write):
        os.close(fd)
    return Started(pid=pid, control=control, report=report, log=log, errors=-1)


def _plain_child(order: Wire, guardian: int, fds: tuple[int, int, int]) -> None:
    control, report, log = fds
    try:
        _default_signals()
        os.setsid()
        _prctl(_PR_SET_PDEATHSIG, 9)
        if os.getppid() != guardian or len(os.read(control, 1)) == 0:
            os._exit(1)  # the guardian died before it opened the gate
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.umask(0o022)
        argv = shell(order["command"])
        os.chdir(order["cwd"])
        limit_resources(None)
        os.execve(argv[0], argv, order["env"])  # noqa: S606 - argv is a shell
    except OSError as error:
        os.write(report, f"error {error.errno} {error.filename or ''}\n".encode(errors="replace"))
    finally:
        os._exit(1)


def _default_signals() -> None:
    for number in CATCHABLE:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def open_gate(started: Started, order: Wire, *, pids: int | None) -> None:
    """Let the command begin; the processes it may have are given where only a resource limit can hold them."""
    if not started.enclosed:
        _send(started.control, b"G")
        return
    enclosed_order: InitOrder = {
        "command": order["command"],
        "env": order["env"],
        "cwd": order["cwd"],
        "uid": order["uid"],
        "gid": order["gid"],
        "pids": pids,
    }
    _send(started.control, message(enclosed_order))


def _send(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BrokenPipeError:
            return  # it died before it began: the wait for its end will tell
