"""Whole directory trees: copied, given away, removed. The system's own tools do it: no depth or mode stops them."""

import os
import subprocess
from pathlib import Path

from launcher.node_types import NodeError
from launcher.state import Cause

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


def _run(*argv: str | Path) -> None:
    environment = {"PATH": os.defpath, "LC_ALL": "C"}
    done = subprocess.run(argv, capture_output=True, text=True, errors="replace", env=environment, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"{argv[0]} ended with {done.returncode}"]
        full = any("No space left on device" in line or "Disk quota exceeded" in line for line in lines)
        raise NodeError(Cause.DISK_FULL if full else Cause.PREPARATION_FAILED, lines[0][:500])
