"""Who has which port of a network namespace: a lock for each, in one file that only agents of our user can open.

All agents of a user on a host meet in that file, whatever their directories; each namespace has bytes of its own in it,
so that hosts which share a file system do not meet. A lock goes with its process. The file is empty, and removed by
whoever gives the last lock back; after a kill it stays until the next one does.

Why a file: a name that the kernel itself keeps for each namespace, an abstract unix socket's, can be taken by any
command on the host's network. A sandbox shows nothing of this directory. (Under ISOLATION=none a command is the agent's
own user, and may do to it what it likes.) Agents of different users, or in containers with a /var/tmp each, do not see
each other's locks, and nothing keeps a command on the host's network from listening on ports that are not its own:
against these there is only that a port is tried before it is given.
"""

import errno
import fcntl
import os
import struct
from pathlib import Path

from launcher.node_types import NodeError
from launcher.state import Cause

DIRECTORY = Path("/var/tmp")  # noqa: S108 - the file's owner is checked
_PORT_BITS = 16
_NOT_OURS = {errno.EACCES, errno.EPERM, errno.EISDIR, errno.ELOOP}


def take(port: int) -> int | None:
    """A descriptor that holds a port of this thread's network namespace; None when somebody else holds it.

    Raises:
        NodeError: the file is somebody else's.
        OSError: it can't be had.
    """
    while True:
        handle, kept = _opened(), False
        try:
            fcntl.flock(handle, fcntl.LOCK_SH)  # waits for one thing: whoever is just removing the file
            if _is_there(handle):
                kept = _lock(handle, port)
                return handle if kept else None
        finally:
            if not kept:
                os.close(handle)


def give_back(handle: int) -> None:
    """Let go of a port, and of the file if nobody uses it now."""
    try:
        # Our own share is given up first, so that of several who go at once the last one has it alone.
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _is_there(handle):
            path().unlink()
    except BlockingIOError:
        pass  # others use it
    finally:
        os.close(handle)


def path() -> Path:
    """The file that all agents of our user on this host share."""
    return DIRECTORY / f"descent-ports-{os.geteuid()}"


def _opened() -> int:
    try:
        handle = os.open(path(), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno in _NOT_OURS:
            raise _refused(str(error.strerror)) from error
        raise
    if os.fstat(handle).st_uid != os.geteuid():
        os.close(handle)
        raise _refused("it belongs to another user")
    os.utime(handle)  # what clears old files out of /var/tmp leaves it
    return handle


def _is_there(handle: int) -> bool:
    """Whether the file that was opened is still the one that others open."""
    try:
        return os.path.samestat(os.fstat(handle), os.lstat(path()))
    except FileNotFoundError:
        return False


def _lock(handle: int, port: int) -> bool:
    """Lock a port's byte for this open file; False when another has it.

    Source: fcntl_locking(2), open file description locks: unlike the older kind they are not the whole process's.
    """
    namespace = os.stat("/proc/thread-self/ns/net").st_ino
    # struct flock of 64-bit Linux: l_type, l_whence, l_start, l_len, l_pid, padded to its longest member
    wanted = struct.pack("hhqqi0q", fcntl.F_WRLCK, os.SEEK_SET, namespace << _PORT_BITS | port, 1, 0)
    try:
        fcntl.fcntl(handle, fcntl.F_OFD_SETLK, wanted)
    except BlockingIOError:
        return False
    return True


def _refused(why: str) -> NodeError:
    return NodeError(
        Cause.PREPARATION_FAILED, f"{path()} must be a file of ours, which ports are kept in; remove it ({why})"
    )
