"""What a node keeps on its disk for later attempts, and gives up where room is short."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path

from launcher import trees
from launcher.code_cache import CodeCache
from launcher.node_types import Extracted, NodeError, PrepareOrder
from launcher.state import Cause

ROOM_BYTES = 2 << 30
"""With less left on the disk, caches are given up."""
FULL_BYTES = 512 << 20
"""With less left, nothing new is prepared or put back: a guardian would end it at once."""

LOOK_S = 60.0
"""Between two looks at all that is kept; nothing of it is given up within minutes anyway."""


class DiskRoom:
    """The code of commits and the caches of repositories below a node's directory; what is in use stays."""

    def __init__(self, root: Path, locks: Path, in_use: Callable[[], list[PrepareOrder]]) -> None:
        """Find what is there.

        Args:
            root: the node's directory.
            locks: where its locks are.
            in_use: gives what the attempts on this node were prepared for.
        """
        self._root, self._in_use = root, in_use
        self._code = CodeCache(root / "code", locks)
        self._look_at = 0.0

    def code_offset(self, code_key: str) -> int:
        """How much of an archive is here; -1 when the whole tree is."""
        return self._code.offset(code_key)

    def put_code(self, code_key: str, offset: int, chunk: bytes, last: bool) -> Extracted | None:
        """The next piece of an archive; what it held, with the last one, for which older trees may have to go."""
        extracted = self._code.put(code_key, offset, chunk, last)
        if extracted is not None and time.monotonic() >= self._look_at:
            self._look_at = time.monotonic() + LOOK_S
            self._code.evict(self._code_in_use() | {code_key})
        return extracted

    def take(self, code_key: str, destination: Path) -> None:
        """Put the tree of a commit at a path of its own.

        Raises:
            NodeError: it is not here.
        """
        self._code.take(code_key, destination)

    def make_ahead(self, code_key: str) -> None:
        """Have a tree of a commit ready for the next attempt, while there is room."""
        self._code.make_ahead(code_key, self._free_bytes() - ROOM_BYTES)

    def make(self) -> None:
        """Give up trees and caches where the disk is nearly full.

        Raises:
            NodeError: it is full nevertheless.
        """
        if self._free_bytes() >= ROOM_BYTES:
            return
        self._code.evict(self._code_in_use(), everything=True)
        in_use = {order.storage_key for order in self._in_use()}
        caches = self._root / "caches"
        for cache in sorted(caches.glob("*"), key=lambda path: path.stat().st_mtime):
            if self._free_bytes() < ROOM_BYTES and cache.name not in in_use:
                trees.remove(cache)
        if self._free_bytes() < FULL_BYTES:
            raise NodeError(Cause.DISK_FULL, f"{self._free_bytes()} bytes are left")

    def make_for(self, size_bytes: int) -> None:
        """Have room for something small, and as much left after it as a command needs to begin.

        Raises:
            NodeError: there is not.
        """
        if self._free_bytes() - size_bytes >= FULL_BYTES:
            return
        self.make()
        if (free_bytes := self._free_bytes()) - size_bytes < FULL_BYTES:
            raise NodeError(Cause.DISK_FULL, f"{free_bytes} bytes are left")

    def _code_in_use(self) -> set[str]:
        return {order.code_key for order in self._in_use()}

    def _free_bytes(self) -> int:
        return shutil.disk_usage(self._root).free
