"""Turns: so many calls of one kind may wait at once, and whoever else comes of that kind waits without a thread."""

import asyncio
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from dataclasses import dataclass


@dataclass
class _Kind:
    """Those of one kind that have their turn, or wait for it."""

    free: asyncio.Semaphore
    count: int = 0


class Turns:
    """Keeps the calls of one kind from standing before those of all others.

    Args:
        at_once: how many of each kind have their turn at the same time.
    """

    def __init__(self, at_once: int) -> None:
        self._at_once = at_once
        self._kinds: dict[Hashable, _Kind] = {}

    @asynccontextmanager
    async def of(self, kind: Hashable) -> AsyncIterator[None]:
        """A turn, as soon as there is one for this kind; a kind that nobody is of any more is forgotten."""
        found = self._kinds.setdefault(kind, _Kind(asyncio.Semaphore(self._at_once)))
        found.count += 1
        try:
            async with found.free:
                yield
        finally:
            found.count -= 1
            if not found.count:
                del self._kinds[kind]

    def __len__(self) -> int:
        """How many kinds there are now."""
        return len(self._kinds)
