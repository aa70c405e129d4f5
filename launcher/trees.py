"""Whole directory trees: copied, given away, removed. The system's own tools do it: no depth or mode stops them."""

import fcntl
import os
import struct
import subprocess
from contextlib import suppress
from pathlib import Path

from launcher.node_types import NodeError
from launcher.state import Cause

# https://man7.org/linux/man-pages/man2/FS_IOC_SETFLAGS.2const.html
_GET_FLAGS, _SET_FLAGS, _TOP_DIRECTORY = 0x80086601, 0x40086602, 0x00020000
_COPY = """\
cp -R --no-dereference --preserve=mode,timestamps --reflink=auto -- "$1" "$2" || exit
exec chmod -R u+w -- "$2"
"""


def copy(source: Path, destination: Path) -> None:
    """A writable copy with times and execute bits kept; shares blocks where the file system can, never inodes.

    Raises:
        NodeError: the disk is full, or the copy failed.
    """
    _run("sh", "-c", _COPY, "sh", source, destination)


def give(uid: int, *paths: Path) -> None:
    """Make a user the owner of everything below paths that nobody else can change meanwhile; follows no link."""
    _run("chown", "-R", "-h", f"{uid}:{uid}", "--", *paths)


def remove(path: Path) -> None:
    """Remove a tree, read-only directories and any depth included; one that is not there is removed.

    Raises:
        NodeError: something is still there.
    """
    if not os.path.lexists(path):
        return  # as is usual, and a process takes milliseconds
    try:
        _run("rm", "-rf", "--one-file-system", "--", path)
    except NodeError:
        # only a directory's own mode stops rm; root is never stopped by it
        subprocess.run(["chmod", "-R", "u+rwx", "--", path], capture_output=True, check=False)
        _run("rm", "-rf", "--one-file-system", "--", path)


def scatter(directory: Path) -> None:
    """Have trees that are made in a directory lie far apart on the disk, where its file system knows how.

    ext4 makes a file near its directory, and steps over what was removed there within the last minutes, one by one:
    where trees come and go, it gets slower and slower (`T` in chattr(1)).
    """
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with suppress(OSError):  # another file system, which needs no such word
            (flags,) = struct.unpack("l", fcntl.ioctl(fd, _GET_FLAGS, struct.pack("l", 0)))
            fcntl.ioctl(fd, _SET_FLAGS, struct.pack("l", flags | _TOP_DIRECTORY))
    finally:
        os.close(fd)


def _run(*argv: str | Path) -> None:
    environment = {"PATH": os.defpath, "LC_ALL": "C"}
    done = subprocess.run(argv, capture_output=True, text=True, errors="replace", env=environment, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"{argv[0]} ended with {done.returncode}"]
        full = any("No space left on device" in line or "Disk quota exceeded" in line for line in lines)
        raise NodeError(Cause.DISK_FULL if full else Cause.PREPARATION_FAILED, lines[0][:500])
