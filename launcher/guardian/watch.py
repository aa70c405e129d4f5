"""Limits that no kernel enforces here, watched: memory and process count of the tree, disk used and disk left."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from . import tree
from .outcome import Breach, amounts

_SLICE_S = 0.005
_MIN_PERIOD_S = 1.0
_MAX_PERIOD_S = 30.0
_COST_SHARE = 20


class Members(NamedTuple):
    """The processes of a tree, and the /proc in which their numbers mean something."""

    pids: list[int]
    proc: str = "/proc"


def memory_bytes(members: Members, limit: int, elsewhere: int) -> int:
    """Memory of a tree: a cheap upper bound below the limit, the truth above it."""
    bound = tree.resident_bytes(members.pids, members.proc) + elsewhere
    return bound if bound <= limit else tree.proportional_bytes(members.pids, members.proc) + elsewhere


def usage(paths: list[str]) -> Iterator[int]:
    """Add up the disk space below some directories, a directory a step; hard links count once, symlinks as themselves.

    Yields:
        The bytes found so far, the whole sum at last.
    """
    total, linked = 0, set[tuple[int, int]]()
    stack = list(paths)
    while stack:
        try:
            with os.scandir(stack.pop()) as entries:
                for entry in entries:
                    try:
                        state = entry.stat(follow_symlinks=False)
                        if entry.is_dir(follow_symlinks=False):
                            stack.append(entry.path)
                    except OSError:
                        continue  # removed while we looked
                    if state.st_nlink > 1 and not entry.is_dir(follow_symlinks=False):
                        if (state.st_dev, state.st_ino) in linked:
                            continue
                        linked.add((state.st_dev, state.st_ino))
                    total += state.st_blocks * 512
        except OSError:
            continue  # removed, or deeper than a path can name: the floor of free space still holds
        yield total
    yield total


class DiskWatch:
    """Measures the attempt's directories a slice at a time, and what the file system has left at every look.

    Below `floor_bytes` the attempt that used up most of the space ends at its own limit; the innocent ones go on until
    half of the floor is gone too, and end as what they are, victims of a full disk.
    """

    def __init__(self, paths: list[str], limit_bytes: int | None, floor_bytes: int) -> None:
        self._paths, self._limit, self._floor = paths, limit_bytes, floor_bytes
        self._free_at_start = self._free()
        self._used_at_start: int | None = None
        self.used = self._found = 0
        self._walk: Iterator[int] | None = None
        self._began = self._next = time.monotonic()

    @property
    def in_a_hurry(self) -> bool:
        """It stands in the middle of a measurement."""
        return self._walk is not None

    def _free(self) -> int:
        found = []
        for path in self._paths:
            try:
                state = os.statvfs(path)
            except OSError:
                continue
            found.append(state.f_bavail * state.f_frsize)
        return min(found, default=1 << 62)

    def look(self, now: float) -> Breach | None:
        """Measure for a few milliseconds; the breach when there is one."""
        if self._walk is None and now >= self._next:
            self._walk, self._began = usage(self._paths), now
        if self._walk is not None:
            self._step(now)
        if self._limit is not None and self.used > self._limit:
            return Breach("disk limit", amounts(self.used, self._limit))
        return self._look_at_floor()

    def _step(self, now: float) -> None:
        until = time.monotonic() + _SLICE_S
        for found in self._walk or ():
            self._found = found
            if time.monotonic() > until:
                self.used = max(self.used, self._found)
                return
        self._walk, self.used = None, self._found
        if self._used_at_start is None:
            self._used_at_start = self._found
        cost = time.monotonic() - self._began
        self._next = now + min(max(_MIN_PERIOD_S, cost * _COST_SHARE), _MAX_PERIOD_S)

    def _look_at_floor(self) -> Breach | None:
        free = self._free()
        if free >= self._floor:
            return None
        grown = self.used - (self._used_at_start or 0)
        room = self._free_at_start - self._floor
        if room > 0 and grown >= room // 2:
            return Breach("disk limit", amounts(grown, room))
        if free < self._floor // 2:
            return Breach("disk full", {"free_bytes": free, "floor_bytes": self._floor})
        return None


class TreeWatch:
    """Looks at memory and process count of the tree, where the kernel enforces no limit."""

    def __init__(
        self,
        members: Callable[[], Members],
        elsewhere: Callable[[], int],
        *,
        memory_limit: int | None,
        pids_limit: int | None,
    ) -> None:
        self._members, self._elsewhere = members, elsewhere
        self._memory_limit, self._pids_limit = memory_limit, pids_limit

    def look(self) -> Breach | None:
        """The breach when there is one."""
        members = self._members()
        if self._memory_limit is not None:
            used = memory_bytes(members, self._memory_limit, self._elsewhere())
            if used > self._memory_limit:
                return Breach("out of memory", amounts(used, self._memory_limit))
        if self._pids_limit is not None and len(members.pids) > self._pids_limit + 1:  # PID 1 is ours
            return Breach("command killed", {"hint": f" (it started more than {self._pids_limit} processes)"})
        return None

    def bytes(self) -> int:
        """Memory in use now, for people to see."""
        members = self._members()
        return tree.resident_bytes(members.pids, members.proc) + self._elsewhere()
