"""A node's archives of commits: received in pieces, extracted for each attempt, the least recently used given up."""

import json
import os
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from launcher import trees
from launcher.archive import DamagedArchive, RefusedArchive, extract
from launcher.locks import locked
from launcher.node_types import Extracted, NodeError
from launcher.state import Cause

MAX_BYTES = 20 << 30
KEEP_S = 900.0
"""A tree is not given up so soon after its last use: an attempt may be on its way to it."""
FILE_OVERHEAD_BYTES = 4096


class CodeCache:
    """Below `root`, for a key: `<key>.part` while its archive arrives; `<key>.tar.gz`, and `<key>.json`: what it holds.

    `<key>` is a tree made ahead of need: whoever comes first moves it away, the others extract the archive themselves.
    """

    def __init__(self, root: Path, locks: Path, max_bytes: int = MAX_BYTES) -> None:
        self._root, self._locks, self._max_bytes = root, locks, max_bytes
        root.mkdir(parents=True, exist_ok=True)
        trees.scatter(root)

    def offset(self, key: str) -> int:
        """How much of the archive is here; -1 when the tree is."""
        with locked(self._locks, "code", key, shared=True):
            if self._held(key) is not None:
                self._touch(key)
                return -1
        part = self._part(key)
        return part.stat().st_size if part.exists() else 0

    def put(self, key: str, offset: int, chunk: bytes, last: bool) -> Extracted | None:
        """Take a piece of the archive; with the last one, extract it. A piece may come twice, and from two senders.

        Returns:
            What the archive held, once the tree is here.

        Raises:
            NodeError: a piece is missing before this one, or the archive was refused or damaged and is to be sent anew.
        """
        with locked(self._locks, "code", key):
            found = self._held(key)
            if found is not None:
                return found
            part = self._part(key)
            size = part.stat().st_size if part.exists() else 0
            if offset > size:
                why = f"the archive's next piece begins at {offset}, but {size} bytes are here"
                raise NodeError(Cause.PREPARATION_FAILED, why)
            with part.open("r+b" if size else "wb") as file:
                file.seek(offset)
                file.write(chunk)
                if last:
                    file.truncate()
            return self._complete(key, part) if last else None

    def take(self, key: str, destination: Path) -> None:
        """Put the tree of a key at a path of its own, where nothing may be.

        Raises:
            NodeError: it is not here.
        """
        with locked(self._locks, "code", key, shared=True):
            if self._held(key) is None:
                raise NodeError(Cause.PREPARATION_FAILED, "the code was not sent, or had to be given up for room")
            self._touch(key)
            try:
                os.rename(self._root / key, destination)
            except FileNotFoundError:
                self._extract(self._archive(key), destination)

    def make_ahead(self, key: str, room_bytes: int) -> None:
        """Have a tree ready for the next who takes one; nothing where the key was given up, or it would not fit.

        Args:
            key: whose tree.
            room_bytes: what it may take of the disk.
        """
        tree, made = self._root / key, self._root / f"{key}.ahead"
        with locked(self._locks, "ahead", key):
            held = self._held(key)
            if held is None or tree.exists() or unpacked_bytes(held) > room_bytes:
                return
            trees.remove(made)
            self._extract(self._archive(key), made)
            with locked(self._locks, "code", key):  # not before: it may take long, and others wait for this one
                if self._held(key) is not None and not tree.exists():
                    made.rename(tree)
            trees.remove(made)

    def evict(self, in_use: set[str], *, everything: bool = False) -> None:
        """Give up what was not used for longest over the limit, and what was begun and never finished.

        Args:
            in_use: keys that stay.
            everything: whether room is needed, whatever the limit; trees that were made ahead go first, all of them.
        """
        now = time.time()
        records = self._listed("*.json")
        sizes = {path.stem: self._size(path.stem) for path, _ in records}
        for key in {path.name.partition(".")[0] for path, at in self._listed("*") if now - at > KEEP_S} - sizes.keys():
            self._give_up(key)
        for key in sizes if everything else ():
            with locked(self._locks, "code", key):
                trees.remove(self._root / key)
        total = sum(sizes.values())
        for record, used_at in records:
            key = record.stem
            if (total > self._max_bytes or everything) and key not in in_use and now - used_at > KEEP_S:
                self._give_up(key)
                total -= sizes[key]

    def _listed(self, pattern: str) -> list[tuple[Path, float]]:
        """Files and when they were used last, the oldest first; one that goes meanwhile is none."""
        found = []
        for path in self._root.glob(pattern):
            with suppress(FileNotFoundError):
                found.append((path, path.stat().st_mtime))
        return sorted(found, key=lambda each: each[1])

    def _give_up(self, key: str) -> None:
        """Remove what there is of a key, its record last, if it is still unused now that nobody else can take it."""
        with locked(self._locks, "code", key):
            mine = [path for path in self._root.iterdir() if path.name.partition(".")[0] == key]
            if all(time.time() - path.lstat().st_mtime > KEEP_S for path in mine if path.suffix in {".json", ".part"}):
                for path in sorted(mine, key=lambda path: path.suffix == ".json"):
                    trees.remove(path)

    def _complete(self, key: str, part: Path) -> Extracted:
        tree = self._root / key
        trees.remove(tree)  # whole perhaps, but its record was never written
        extracted = self._extract(part, tree)
        part.replace(self._archive(key))
        record = self._record(key).with_suffix(".new")
        record.write_text(json.dumps(asdict(extracted)))
        record.replace(self._record(key))
        return extracted

    def _extract(self, archive: Path, destination: Path) -> Extracted:
        """The archive's tree; an archive that is not as it should be goes, and is sent anew."""
        try:
            with archive.open("rb") as file:
                return extract(file, destination)
        except (RefusedArchive, DamagedArchive) as wrong:
            archive.unlink(missing_ok=True)
            refused = isinstance(wrong, RefusedArchive)
            raise NodeError(Cause.REFUSED_ARCHIVE if refused else Cause.PREPARATION_FAILED, str(wrong)) from wrong

    def _part(self, key: str) -> Path:
        return self._root / f"{key}.part"

    def _archive(self, key: str) -> Path:
        return self._root / f"{key}.tar.gz"

    def _record(self, key: str) -> Path:
        return self._root / f"{key}.json"

    def _held(self, key: str) -> Extracted | None:
        """What the archive of a key holds; None where that is not here."""
        try:
            held = Extracted(**json.loads(self._record(key).read_text()))
        except FileNotFoundError:
            return None
        return held if self._archive(key).exists() else None

    def _touch(self, key: str) -> None:
        os.utime(self._record(key))

    def _size(self, key: str) -> int:
        held = self._held(key)
        return unpacked_bytes(held) + self._archive(key).stat().st_size if held else 0


def unpacked_bytes(held: Extracted) -> int:
    """What a tree takes of a disk, about. Pure."""
    return held.bytes + held.files * FILE_OVERHEAD_BYTES
