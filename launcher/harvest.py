"""What a command left below its artifacts directory, listed and read without following any link it made."""

import os
import stat
from pathlib import Path

from launcher.node_types import Artifact, NodeError
from launcher.state import Cause

MAX_FILES = 50_000
MAX_BYTES = 200 << 30
MAX_DEPTH = 64
SPARSE_FROM_BYTES = 1 << 30
SPARSE_RATIO = 16
"""Above SPARSE_FROM_BYTES, how much larger files may claim to be than the room they take: what is sent is all of it."""

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def artifacts(root: Path) -> list[Artifact]:
    """The regular files below a directory, by path; links, sockets, devices and pipes are none.

    Raises:
        NodeError: there is more than can be kept; says what.
    """
    found: list[Artifact] = []
    total = taken = 0
    stack: list[tuple[str, ...]] = [()]
    while stack:
        below = stack.pop()
        if len(below) > MAX_DEPTH:
            raise _refused(f"{below[0]!r} has more than {MAX_DEPTH} folders in one another")
        for name, state in _listed(root, below):
            if stat.S_ISDIR(state.st_mode):
                stack.append((*below, name))
            elif stat.S_ISREG(state.st_mode):
                found.append(Artifact(_printable("/".join((*below, name))), state.st_size))
                total += state.st_size
                taken += state.st_blocks * 512  # st_blocks counts 512 bytes, whatever the file system's own
            if len(found) > MAX_FILES:
                raise _refused(f"there are more than {MAX_FILES} files")
    if total > MAX_BYTES:
        raise _refused(f"they have {total} bytes, at most {MAX_BYTES} are kept")
    if total > max(SPARSE_FROM_BYTES, taken * SPARSE_RATIO):
        raise _refused(f"sparse files claim {total} bytes and hold {taken}")
    return sorted(found, key=lambda artifact: artifact.path)


def read(root: Path, path: str, offset: int, limit: int) -> bytes:
    """A piece of a file that `artifacts` listed; empty at its end.

    Raises:
        NodeError: there is no such regular file, or the way to it leads through a link.
    """
    parts = names_of(path)
    try:
        handle = _open(root, parts[:-1])
        try:
            descriptor = os.open(parts[-1], FILE, dir_fd=handle)
        finally:
            os.close(handle)
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise _refused(f"{path!r} is no regular file")
            file.seek(offset)
            return file.read(limit)
    except OSError as error:
        raise _refused(f"{path!r} can't be read: {error.strerror}") from error


def names_of(path: str) -> tuple[str, ...]:
    """The components of a path below an artifacts directory.

    Raises:
        NodeError: it is none.
    """
    parts = tuple(path.split("/"))
    if any(part in {"", ".", ".."} or "\0" in part for part in parts):
        raise _refused(f"{path!r} is no path below the artifacts directory")
    return parts


def _listed(root: Path, below: tuple[str, ...]) -> list[tuple[str, os.stat_result]]:
    try:
        handle = _open(root, below)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise _refused(f"{'/'.join(below)!r} can't be read: {error.strerror}") from error
    try:
        with os.scandir(handle) as entries:
            return [(entry.name, entry.stat(follow_symlinks=False)) for entry in entries]
    finally:
        os.close(handle)


def _open(root: Path, below: tuple[str, ...]) -> int:
    """A descriptor of a directory, no component of its path below `root` being a link."""
    handle = os.open(root, DIRECTORY)
    for name in below:
        try:
            deeper = os.open(name, DIRECTORY, dir_fd=handle)
        finally:
            os.close(handle)
        handle = deeper
    return handle


def _printable(path: str) -> str:
    try:
        path.encode()
    except UnicodeEncodeError as error:
        raise _refused(f"the name {path!a} is not UTF-8") from error
    return path


def _refused(why: str) -> NodeError:
    return NodeError(Cause.ARTIFACTS_NOT_STORED, why)
