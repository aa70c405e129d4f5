"""Writing so that it is there after any crash; and the names of an attempt's files."""

from __future__ import annotations

import os

JOURNAL = "journal.jsonl"
EXIT = "exit.json"
LOCK = "lock"
_RESERVE = "exit.part"
_RESERVE_BYTES = 16384


def sync_directory(directory: str) -> None:
    """Make the names in a directory durable."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write(path: str, data: bytes) -> None:
    """Put a file in place, whole or not at all, and for good."""
    part = f"{path}.part"
    fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    _finish(fd, data)
    os.rename(part, path)
    sync_directory(os.path.dirname(path))


def append(path: str, line: bytes) -> None:
    """Add a line to a file."""
    new = not os.path.exists(path)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    _finish(fd, line)
    if new:
        sync_directory(os.path.dirname(path))


def _finish(fd: int, data: bytes) -> None:
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        os.fsync(fd)
    finally:
        os.close(fd)


def reserve_exit(directory: str) -> None:
    """Take the room that the exit record will need, since a command may fill the disk."""
    fd = os.open(os.path.join(directory, _RESERVE), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(fd, 0, _RESERVE_BYTES)
    except OSError:
        pass  # this file system can't; then the record needs room at the end
    finally:
        os.close(fd)


def write_exit(directory: str, data: bytes) -> None:
    """Put the exit record in place, in the room taken for it."""
    part = os.path.join(directory, _RESERVE)
    fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        # Overwritten before it is cut: a file that is cut first gives its room away.
        os.pwrite(fd, data, 0)
        os.ftruncate(fd, len(data))
        os.fsync(fd)
    finally:
        os.close(fd)
    os.rename(part, os.path.join(directory, EXIT))
    sync_directory(directory)
