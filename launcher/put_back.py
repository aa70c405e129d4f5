"""A file of an earlier attempt put back below an artifacts directory, without following any link that is there."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from launcher import harvest
from launcher.node_types import NodeError
from launcher.state import Cause


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
        NodeError: the path is not below the directory, something is in its way, or a piece before this one is missing.
    """
    names = harvest.names_of(path)
    place.parts.mkdir(mode=0o700, exist_ok=True)
    part = place.parts / hashlib.sha256(path.encode()).hexdigest()
    size = part.stat().st_size if part.exists() else 0
    if offset > size:
        if last and _size(place.root, path) == offset + len(data):
            return  # it came again after all
        why = f"the piece of {path!r} at {offset} does not follow the {size} bytes that are here"
        raise NodeError(Cause.PREPARATION_FAILED, why)
    with part.open("r+b" if part.exists() else "xb") as file:
        file.truncate(offset)
        file.seek(offset)
        file.write(data)
    if last:
        _move(place, part, names)


def _size(root: Path, path: str) -> int | None:
    try:
        return os.stat(root / path, follow_symlinks=False).st_size
    except OSError:
        return None


def _move(place: Place, part: Path, names: tuple[str, ...]) -> None:
    part.chmod(0o644)
    if place.uid is not None:
        os.chown(part, place.uid, place.uid)
    try:
        handle = _made(place, names[:-1])
        try:
            os.rename(part, names[-1], dst_dir_fd=handle)
        finally:
            os.close(handle)
    except OSError as error:
        why = f"artifact {'/'.join(names)!r} can't be put back: {error.strerror}"
        raise NodeError(Cause.ARTIFACTS_NOT_STORED, why) from error


def _made(place: Place, names: tuple[str, ...]) -> int:
    """A descriptor of a directory, which is made where it is missing; no component of its path is a link."""
    handle = os.open(place.root, harvest.DIRECTORY)
    for name in names:
        try:
            deeper = _made_one(name, handle, place.uid)
        finally:
            os.close(handle)
        handle = deeper
    return handle


def _made_one(name: str, handle: int, uid: int | None) -> int:
    try:
        return os.open(name, harvest.DIRECTORY, dir_fd=handle)
    except FileNotFoundError:
        os.mkdir(name, 0o755, dir_fd=handle)
        if uid is not None:
            os.chown(name, uid, uid, dir_fd=handle, follow_symlinks=False)
        return os.open(name, harvest.DIRECTORY, dir_fd=handle)
