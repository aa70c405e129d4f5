"""Where the bytes of experiments are kept: logs, artifacts and code archives, as plain files below one directory."""

import errno
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from launcher.guardian import durable
from launcher.guardian.segments import Segments

FULL_BYTES = 512 << 20
"""With less room on our own disk nothing is started, since its log would have no place, and no artifact is taken."""
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})
"""What a disk says that is full."""


@dataclass(frozen=True)
class CodeArchive:
    """A commit's tree as an archive on this host; `key` names it on every node."""

    key: str
    path: Path

    def read(self, offset: int, limit: int) -> tuple[bytes, bool]:
        """At most `limit` bytes from `offset`, and whether they are the last."""
        with self.path.open("rb") as file:
            file.seek(offset)
            data = file.read(limit)
            return data, file.tell() >= os.fstat(file.fileno()).st_size


@dataclass
class Receiving:
    """A file on its way here."""

    file: BinaryIO
    need: Callable[[int], None]
    """Raises OSError where there is no room for so many bytes."""
    offset: int = 0

    def write(self, data: bytes) -> None:
        """Take the next piece.

        Raises:
            OSError: the disk refused, or is full: others write to it meanwhile.
        """
        self.need(len(data))
        self.file.write(data)
        self.offset += len(data)


@dataclass(frozen=True)
class StoredFile:
    """A kept artifact; `path` is relative, with forward slashes."""

    path: str
    size: int


class ArtifactStore:
    """The artifacts of one attempt.

    Args:
        directory: where they lie.
        beside: how the names of what is kept of them begin that is nobody's artifact; outside of the directory.
        free_bytes: gives the room left on the disk.
    """

    def __init__(self, directory: Path, beside: Path, free_bytes: Callable[[], int]) -> None:
        self.directory, self._free_bytes = directory, free_bytes
        self._part = beside.with_name(f"{beside.name}.part")
        self._whole = beside.with_name(f"{beside.name}.whole")

    @contextmanager
    def receive(self, path: str, size: int) -> Iterator[Receiving]:
        """A file that appears under its name once it is whole; one that is here already is not written again.

        Raises:
            OSError: the disk refused, it would be full, the file ended before its size, or its path leads out of the
                directory.
        """
        target, need = self.locate(path), partial(self._need, path)
        if target.is_file() and target.stat().st_size == size:
            with open(os.devnull, "wb") as nowhere:
                yield Receiving(nowhere, need, offset=size)
            return
        need(size)
        target.parent.mkdir(parents=True, exist_ok=True)
        part = self._part
        try:
            with part.open("wb") as file:
                receiving = Receiving(file, need)
                yield receiving
                if receiving.offset != size:
                    raise OSError(f"{path!r} ended after {receiving.offset} of {size} bytes")
                file.flush()
                os.fsync(file.fileno())
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)

    def _need(self, path: str, size: int) -> None:
        free_bytes = self._free_bytes()
        if free_bytes - size < FULL_BYTES:
            why = f"there is no room for {path!r} on Descent's own disk, which has {free_bytes >> 20} MiB left"
            raise OSError(errno.ENOSPC, why)

    def discard(self) -> None:
        """Give back the room of what is here."""
        self._whole.unlink(missing_ok=True)
        shutil.rmtree(self.directory, ignore_errors=True)  # what stays is not called whole

    def seal(self) -> None:
        """Say that everything is here, durably.

        Raises:
            OSError: the disk refused.
        """
        self._whole.parent.mkdir(parents=True, exist_ok=True)
        durable.write(str(self._whole), b"")

    @property
    def is_whole(self) -> bool:
        """Everything that the attempt left is here."""
        return self._whole.exists()

    def locate(self, path: str) -> Path:
        """Where a file of this path lies.

        Raises:
            OSError: the path is absolute, or has `..` in it.
        """
        parts = PurePosixPath(path).parts
        if not parts or path.startswith("/") or ".." in parts or "\0" in path:
            raise OSError(f"refused the artifact path {path!r}: it must stay below the artifacts directory")
        return self.directory.joinpath(*parts)

    def read(self, path: str, offset: int, limit: int) -> tuple[bytes, bool]:
        """At most `limit` bytes of a kept file from `offset`, and whether they are the last."""
        with self.locate(path).open("rb") as file:
            file.seek(offset)
            data = file.read(limit)
            return data, file.tell() >= os.fstat(file.fileno()).st_size

    def files(self) -> list[StoredFile]:
        """What is kept, by path."""
        found = []
        for root, _, names in os.walk(self.directory):
            for name in names:
                path = Path(root, name)
                if path.is_file() and not path.is_symlink():
                    found.append(StoredFile(path.relative_to(self.directory).as_posix(), path.stat().st_size))
        return sorted(found, key=lambda file: file.path)


def artifacts_so_far(stores: Sequence[ArtifactStore]) -> list[tuple[ArtifactStore, StoredFile]]:
    """What successive attempts have left, and which of them each file is of.

    A store that is not whole does not say what its attempt had not left. So it begins with the last whole one, and what
    is there of later ones replaces what it has, also where a file has become a directory or the other way about.

    Args:
        stores: of the attempts on one node, the oldest first.
    """
    first = max((number for number, store in enumerate(stores) if store.is_whole), default=0)
    found: dict[str, tuple[ArtifactStore, StoredFile]] = {}
    for store in stores[first:]:
        newer = {file.path: (store, file) for file in store.files()}
        above = {parent for path in newer for parent in _parents(path)}
        kept = {
            path: each for path, each in found.items() if path not in above and newer.keys().isdisjoint(_parents(path))
        }
        found = kept | newer
    return [found[path] for path in sorted(found)]


def _parents(path: str) -> list[str]:
    return [str(parent) for parent in PurePosixPath(path).parents]


class Keep:
    """One directory with everything that outlives an attempt."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("logs", "artifacts", "code"):
            (root / name).mkdir(parents=True, exist_ok=True, mode=0o700)

    def log(self, experiment_id: int, attempt: int, rank: int, max_bytes: int) -> Segments:
        """The log of one node of an attempt."""
        return Segments(self.root / "logs" / str(experiment_id) / str(attempt) / str(rank), max_bytes)

    def artifacts(self, experiment_id: int, attempt: int, node: str = "") -> ArtifactStore:
        """The artifacts of an attempt, or of one of its nodes: below its name, "worker-0", where there are several."""
        directory = self.root / "artifacts" / str(experiment_id) / str(attempt)
        beside = directory.with_name(f"{attempt}.{node}" if node else str(attempt))
        return ArtifactStore(directory / node, beside, self.free_bytes)

    def code(self, key: str) -> CodeArchive:
        """The archive of a commit, which may not be here yet."""
        return CodeArchive(key, self.root / "code" / f"{key}.tar.gz")

    def forget_code(self, wanted: set[str]) -> None:
        """Remove the archives that no unfinished experiment wants."""
        for path in (self.root / "code").iterdir():
            if path.name.removesuffix(".tar.gz") not in wanted and path.name.endswith(".tar.gz"):
                path.unlink(missing_ok=True)

    def forget_parts(self) -> None:
        """Remove archives that a worker before us left half written; called while nothing is being fetched."""
        for path in (self.root / "code").iterdir():
            if path.name.startswith(".") and path.name.endswith(".part"):
                path.unlink(missing_ok=True)

    def free_bytes(self) -> int:
        """Room left on the disk."""
        return shutil.disk_usage(self.root).free
