"""GitHub's archives to files: a strict writer that trusts no name, link or size in them."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from launcher import trees
from launcher.node_types import Extracted
from launcher.tar import DamagedArchive, Entry, RefusedArchive, Tar, shown

__all__ = ["DamagedArchive", "Limits", "RefusedArchive", "extract", "missing"]

LFS_POINTER = b"version https://git-lfs.github.com/spec/"  # how a pointer file begins, by the LFS specification
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
DIRECTORY_MODE = 0o755
ARCHIVE = "the archive"


@dataclass(frozen=True)
class Limits:
    """The largest tree that we take; `ratio` (unpacked to packed) counts above `ratio_from_bytes` unpacked."""

    entries: int = 500_000
    total_bytes: int = 20 << 30
    file_bytes: int = 8 << 30
    ratio: int = 200
    ratio_from_bytes: int = 256 << 20
    depth: int = 64
    name_bytes: int = 255
    path_bytes: int = 2048


DEFAULT_LIMITS = Limits()


def extract(archive: BinaryIO, destination: Path, limits: Limits = DEFAULT_LIMITS) -> Extracted:
    """Write the archive's tree, without its one top folder, to a directory that appears complete or not at all.

    Regular files (with their time of change and execute bit), directories, and relative symbolic links that stay
    inside the tree are taken; anything else refuses the whole archive. Its owner can write to all of the tree.

    Args:
        archive: the .tar.gz, read once from where it stands.
        destination: must not exist; its parent must. A leftover of an interrupted extraction is replaced.
        limits: the largest tree to take.

    Raises:
        RefusedArchive: it holds something we do not take; nothing is left behind.
        DamagedArchive: it is cut off or corrupt; nothing is left behind.
        OSError: the disk; nothing is left behind.
    """
    part = destination.with_name(destination.name + ".tree")
    trees.remove(part)
    part.mkdir()
    part.chmod(DIRECTORY_MODE)
    try:
        with _Writer(part, limits) as writer:
            extracted = writer.write(archive)
        part.rename(destination)
    except BaseException:
        trees.remove(part)
        raise
    return extracted


def missing(archive: BinaryIO, limits: Limits = DEFAULT_LIMITS) -> tuple[bool, bool]:
    """Whether the archive tells of submodules, and of Git LFS objects: GitHub puts neither's contents into it.

    Raises:
        RefusedArchive: it is no archive that could be extracted, or its tree is over the limits.
        DamagedArchive: it is cut off or corrupt.
    """
    submodules = lfs = False
    tar, bounds = Tar(archive), _Bounds(limits)
    for entry in tar:
        bounds.count(entry)
        bounds.check_ratio(tar)
        if entry.kind == "file":
            submodules |= entry.name.count(b"/") == 1 and entry.name.endswith(b"/.gitmodules")
            start = b""
            for piece in tar.pieces():
                start = start or piece
                bounds.check_ratio(tar)
            lfs |= start.startswith(LFS_POINTER)
    return submodules, lfs


class _Bounds:
    """What was met of one archive so far, held against the limits."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._entries = 0
        self.bytes = 0

    def count(self, entry: Entry) -> None:
        """Take the next entry.

        Raises:
            RefusedArchive: it is one too many, or too large.
        """
        limits = self._limits
        self._entries += 1
        self.bytes += entry.size
        if self._entries > limits.entries:
            raise RefusedArchive(ARCHIVE, f"has more than {limits.entries} entries")
        if entry.size > limits.file_bytes:
            raise RefusedArchive(shown(entry.name), f"has {entry.size} bytes; at most {limits.file_bytes} are taken")
        if self.bytes > limits.total_bytes:
            raise RefusedArchive(ARCHIVE, f"unpacks to more than {limits.total_bytes} bytes")

    def check_ratio(self, tar: Tar) -> None:
        """Called for every piece that was read.

        Raises:
            RefusedArchive: too little unfolds to too much.
        """
        limits = self._limits
        if tar.unpacked_bytes > max(limits.ratio_from_bytes, limits.ratio * tar.packed_bytes):
            raise RefusedArchive(ARCHIVE, f"unpacks to more than {limits.ratio} times its size")


class _Writer:
    """Writes one tree below a directory of its own; links come last, so no path written through can hold one."""

    def __init__(self, root: Path, limits: Limits) -> None:
        self._limits = limits
        self._root = os.open(root, DIRECTORY)
        self._open: tuple[tuple[bytes, ...], int] = ((), self._root)  # the directory written to last
        self._kinds: dict[tuple[bytes, ...], str] = {(): "directory"}
        self._links: list[tuple[tuple[bytes, ...], bytes]] = []
        self._bounds = _Bounds(limits)
        self._lfs = False

    def __enter__(self) -> "_Writer":
        return self

    def __exit__(self, *_: object) -> None:
        self._keep_open((), self._root)
        os.close(self._root)

    def write(self, archive: BinaryIO) -> Extracted:
        tar = Tar(archive)
        top: bytes | None = None
        for entry in tar:
            self._bounds.count(entry)
            self._bounds.check_ratio(tar)
            first, *rest = split(entry.name, self._limits)
            top = first if top is None else top
            if first != top:
                raise RefusedArchive(shown(entry.name), f"is outside the one top folder {shown(top)}")
            if not rest and entry.kind != "directory":
                raise RefusedArchive(shown(entry.name), "stands beside the top folder")
            if rest:
                self._add(tuple(rest), entry, tar)
        if top is None:
            raise RefusedArchive(ARCHIVE, "is empty")
        for path, target in self._links:
            os.symlink(target, path[-1], dir_fd=self._directory(path[:-1]))
        return Extracted(
            files=sum(kind != "directory" for kind in self._kinds.values()),
            bytes=self._bounds.bytes,
            submodules=self._kinds.get((b".gitmodules",)) == "file",
            lfs=self._lfs,
        )

    def _add(self, path: tuple[bytes, ...], entry: Entry, tar: Tar) -> None:
        before = self._kinds.get(path)
        if before is not None and not (before == entry.kind == "directory"):
            raise RefusedArchive(shown(entry.name), f"appears twice, as {before} and {entry.kind}")
        for length in range(1, len(path)):  # git names every directory first; other writers may not
            if self._kinds.setdefault(path[:length], "directory") != "directory":
                raise RefusedArchive(shown(entry.name), f"is below {shown(path[length - 1])}, which is no directory")
        self._kinds[path] = entry.kind
        if entry.kind == "link":
            check_link(path, entry)
            self._links.append((path, entry.target))
        elif entry.kind == "file":
            self._file(path, entry, tar)
        else:
            self._directory(path)

    def _file(self, path: tuple[bytes, ...], entry: Entry, tar: Tar) -> None:
        mode = 0o755 if entry.executable else 0o644
        descriptor = os.open(path[-1], NEW_FILE, mode, dir_fd=self._directory(path[:-1]))
        with os.fdopen(descriptor, "wb", buffering=0) as file:
            start = b""
            for piece in tar.pieces():
                start = start or piece
                self._bounds.check_ratio(tar)
                rest = memoryview(piece)
                while rest:
                    rest = rest[file.write(rest) :]
            self._lfs = self._lfs or (entry.size < 1024 and start.startswith(LFS_POINTER))
            os.fchmod(descriptor, mode)  # whatever the umask
            os.utime(descriptor, (entry.modified_at, entry.modified_at))

    def _directory(self, path: tuple[bytes, ...]) -> int:
        """A descriptor of the directory, made where it is missing; valid until the next call."""
        if path == self._open[0]:
            return self._open[1]
        handle = self._root
        for name in path:
            try:
                below = os.open(name, DIRECTORY, dir_fd=handle)
            except FileNotFoundError:
                os.mkdir(name, DIRECTORY_MODE, dir_fd=handle)
                below = os.open(name, DIRECTORY, dir_fd=handle)
                os.fchmod(below, DIRECTORY_MODE)  # whatever the umask
            finally:
                if handle != self._root:
                    os.close(handle)
            handle = below
        self._keep_open(path, handle)
        return handle

    def _keep_open(self, path: tuple[bytes, ...], handle: int) -> None:
        if self._open[1] != self._root:
            os.close(self._open[1])
        self._open = (path, handle)


def split(name: bytes, limits: Limits) -> list[bytes]:
    """The components of an entry's name, each of them harmless.

    Raises:
        RefusedArchive: says which rule it breaks.
    """
    parts = name.split(b"/")
    why = ""
    if not name or b"\0" in name:
        why = "is no file name"
    elif name.startswith(b"/"):
        why = "is an absolute path"
    elif b".." in parts:
        why = "leaves the archive's folder"
    elif b"" in parts or b"." in parts:
        why = "is not in its simplest form"
    elif len(name) > limits.path_bytes:
        why = f"is longer than {limits.path_bytes} bytes"
    elif max(map(len, parts)) > limits.name_bytes:
        why = f"has a part longer than {limits.name_bytes} bytes"
    elif len(parts) > limits.depth:
        why = f"is more than {limits.depth} folders deep"
    if why:
        raise RefusedArchive(shown(name), why)
    return parts


def check_link(path: tuple[bytes, ...], entry: Entry) -> None:
    """Let pass only a link that stays in the tree whatever other links it leads through.

    ".." may stand only at the start of the target, where it climbs real directories; after a name it would climb from
    wherever that name, itself a link perhaps, leads.

    Raises:
        RefusedArchive: says where the link points.
    """
    target = entry.target
    parts = [part for part in target.split(b"/") if part not in {b"", b"."}]
    climbs = 0
    while climbs < len(parts) and parts[climbs] == b"..":
        climbs += 1
    harmless = target and b"\0" not in target and not target.startswith(b"/") and len(target) <= 4000
    if not harmless or climbs > len(path) - 1 or b".." in parts[climbs:]:
        raise RefusedArchive(
            shown(entry.name),
            f"is a symbolic link to {shown(target)}; only relative links inside the repository are taken",
        )
