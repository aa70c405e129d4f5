"""PID 1 of a sandbox: starts the command and tells its raw wait status; when it goes, the kernel ends all that is left.

Run as `python -I -S init.py CONTROL REPORT LOG` (descriptors). Bound in alone, so it imports nothing of ours.
"""

from __future__ import annotations

import _thread
import marshal
import os
import resource
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .wire import InitOrder

CATCHABLE = [number for number in range(1, 32) if number not in (9, 19)]
_OPEN_FILES = 65536


def read_message(fd: int) -> InitOrder | None:
    """The order, after its length in eight bytes; None where the guardian went first."""
    wanted, data = 8, b""
    while len(data) < wanted:
        piece = os.read(fd, wanted - len(data))
        if not piece:
            return None
        data += piece
        if len(data) == 8 and wanted == 8:
            wanted += int.from_bytes(data, "big")
    order: InitOrder = marshal.loads(data[8:])  # noqa: S302 - the guardian wrote it
    return order


def message(order: InitOrder) -> bytes:
    """The order as `read_message` takes it."""
    data = marshal.dumps({**order})
    return len(data).to_bytes(8, "big") + data


def limit_resources(pids: int | None) -> None:
    """No core files, a sane number of open files, and no more processes than allowed, for us and all after us."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    soft = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _OPEN_FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if pids is not None:
        hard = resource.getrlimit(resource.RLIMIT_NPROC)[1]
        pids = pids if hard == resource.RLIM_INFINITY else min(hard, pids)
        resource.setrlimit(resource.RLIMIT_NPROC, (pids, pids))


def shell(command: str) -> list[str]:
    """The command line that runs a command as its author typed it."""
    return ["/bin/bash" if os.path.exists("/bin/bash") else "/bin/sh", "-c", command]


def _drop_root(order: InitOrder) -> None:
    # Capabilities vanish with the last root id: https://man7.org/linux/man-pages/man7/capabilities.7.html
    if order["uid"] is not None and order["gid"] is not None:
        os.setgroups([])
        os.setgid(order["gid"])
        os.setuid(order["uid"])


def _start(order: InitOrder, log: int) -> int:
    os.umask(0o022)
    argv = shell(order["command"])
    os.chdir(order["cwd"])
    limit_resources(order["pids"])
    return os.posix_spawn(
        argv[0],
        argv,
        order["env"],
        file_actions=[(os.POSIX_SPAWN_DUP2, log, 1), (os.POSIX_SPAWN_DUP2, log, 2)],
        setsid=True,
        setsigmask=[],
        setsigdef=CATCHABLE,
    )


def _obey(control: int) -> None:
    """Pass the guardian's wish on; end all when the guardian is gone."""
    while True:
        wish = os.read(control, 1)
        if not wish:
            os._exit(1)
        try:  # noqa: SIM105 - contextlib takes milliseconds to import
            os.kill(-1, 15)
        except OSError:
            pass  # nobody is left to ask


def _living() -> int:
    """How many processes besides us are more than a zombie."""
    count = 0
    for name in os.listdir("/proc"):
        if name.isdecimal() and name != "1":
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    count += file.read().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
            except OSError:
                pass  # it ended while we looked
    return count


def main() -> None:
    """Start the command, reap whatever ends, and go with the command."""
    control, report, log = (int(argument) for argument in sys.argv[1:4])
    for fd in (control, report, log):
        os.set_inheritable(fd, False)
    order = read_message(control)
    if order is None:
        return
    try:
        _drop_root(order)
        pid = _start(order, log)
    except OSError as error:
        os.write(report, f"error {error.errno} {error.filename or ''}\n".encode(errors="replace"))
        return
    os.close(log)
    os.write(report, b"started\n")
    _thread.start_new_thread(_obey, (control,))
    while True:
        ended, status = os.wait()
        if ended == pid:
            os.write(report, b"exit %d %d\n" % (status, _living()))
            os._exit(0)


if __name__ == "__main__":
    main()
