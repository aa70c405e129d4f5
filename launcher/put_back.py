"""A file of an earlier attempt put back below an artifacts directory, where it wins over whatever is in its way.

That may be the repository's own, or from an earlier time: a link, a file where a folder is wanted, a folder where a
file is. It is removed itself, and no link is followed, neither on the way nor at its end.
"""

import errno
import hashlib
import os
import stat
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from launcher import harvest, trees
from launcher.node_types import NodeError
from launcher.state import Cause

_NO_FOLDER = {errno.ENOTDIR, errno.ELOOP}
"""What opening a folder says of a file, and of a link."""


@dataclass(frozen=True)
class Place:
    """Where files go: the artifacts directory, one beside it for those that are not whole, and who will own them.

    Without a `uid` they stay ours.
    """

    root: Path
    parts: Path
    uid: int | None = None


def put_back(place: Place, path: str, *, offset: int, data: bytes, last: bool) -> None:
    """Take the next piece of a file; with the last one the file is there, whole. Any piece may come again.

    Raises:
        NodeError: the path is not below the directory, it can't be had there, or a piece before this one is missing.
    """
    names = harvest.names_of(path)
    place.parts.mkdir(mode=0o700, exist_ok=True)
    part = place.parts / hashlib.sha256(path.encode()).hexdigest()
    size = part.stat().st_size if part.exists() else 0
    if offset > size:
        if last and _size(place.root, names) == offset + len(data):
            return  # it came again after all
        why = f"the piece of {path!r} at {offset} does not follow the {size} bytes that are here"
        raise NodeError(Cause.PREPARATION_FAILED, why)
    with part.open("r+b" if part.exists() else "xb") as file:
        file.truncate(offset)
        file.seek(offset)
        file.write(data)
    if last:
        _move(place, part, names)


def _size(root: Path, names: Sequence[str]) -> int | None:
    """The size of the file that is there; None when none is."""
    try:
        handle = _walked(root, names[:-1], _entered)
        try:
            state = os.stat(names[-1], dir_fd=handle, follow_symlinks=False)
        finally:
            os.close(handle)
    except OSError:
        return None
    return state.st_size if stat.S_ISREG(state.st_mode) else None


def _move(place: Place, part: Path, names: Sequence[str]) -> None:
    part.chmod(0o644)
    if place.uid is not None:
        os.chown(part, place.uid, place.uid)
    try:
        handle = _walked(place.root, names[:-1], partial(_made, uid=place.uid))
        try:
            _replace(place, part, names[-1], handle)
        finally:
            os.close(handle)
    except OSError as error:
        why = f"artifact {'/'.join(names)!r} can't be put back: {error.strerror}"
        raise NodeError(Cause.ARTIFACTS_NOT_STORED, why) from error


def _replace(place: Place, part: Path, name: str, handle: int) -> None:
    """Put a whole file into a folder, in place of whatever has its name there."""
    try:
        os.rename(part, name, dst_dir_fd=handle)
    except IsADirectoryError:
        # Where nobody else reaches it can be removed by its path; a crash leaves it there, to go with the attempt.
        away = place.parts / f"away-{uuid.uuid4().hex}"
        os.rename(name, away, src_dir_fd=handle)
        os.rename(part, name, dst_dir_fd=handle)
        trees.remove(away)


def _walked(root: Path, names: Sequence[str], step: Callable[[str, int], int]) -> int:
    """A descriptor of the folder that names lead to, each one taken from the one before."""
    handle = os.open(root, harvest.DIRECTORY)
    for name in names:
        try:
            deeper = step(name, handle)
        finally:
            os.close(handle)
        handle = deeper
    return handle


def _entered(name: str, handle: int) -> int:
    return os.open(name, harvest.DIRECTORY, dir_fd=handle)


def _made(name: str, handle: int, uid: int | None) -> int:
    """A descriptor of a folder, which is made where there is none."""
    try:
        return _entered(name, handle)
    except FileNotFoundError:
        pass
    except OSError as error:
        if error.errno not in _NO_FOLDER:
            raise
        os.unlink(name, dir_fd=handle)
    os.mkdir(name, 0o755, dir_fd=handle)
    if uid is not None:
        os.chown(name, uid, uid, dir_fd=handle, follow_symlinks=False)
    return _entered(name, handle)
