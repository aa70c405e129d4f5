"""A control group per attempt, version 2 or 1: its memory and process limits, what it used, and its end."""

from __future__ import annotations

import errno
import functools
import os
import time

_REMOVE_TRIES = 40
_REMOVE_PAUSE_S = 0.01
_CONTROLLERS = ("memory", "pids")


def parse_mounts(mountinfo: str) -> list[tuple[str, str, str, list[str]]]:
    """The control group mounts of a mountinfo file: which part of a hierarchy, where, its kind and options. Pure.

    Source: https://man7.org/linux/man-pages/man5/proc_pid_mountinfo.5.html
    """
    mounts = []
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        fields, tail = left.split(), right.split()
        if len(fields) > 4 and len(tail) > 2 and tail[0] in ("cgroup", "cgroup2"):
            mounts.append((fields[3], fields[4], tail[0], tail[2].split(",")))
    return mounts


def own_directories(mountinfo: str, own: str) -> dict[str, str]:
    """Where the caller's own group lies, by controller, "" for version 2. Pure.

    Args:
        mountinfo: text of /proc/self/mountinfo.
        own: text of /proc/self/cgroup.
    """
    found: dict[str, str] = {}
    mounts = parse_mounts(mountinfo)
    for line in own.splitlines():
        _, names, path = line.split(":", 2)
        for root, point, kind, options in mounts:
            controllers = [name for name in names.split(",") if name in options] if names else [""]
            if kind != ("cgroup" if names else "cgroup2") or not controllers:
                continue
            below = os.path.relpath(path, root)
            if not below.startswith(".."):
                found.update(dict.fromkeys(controllers, os.path.normpath(os.path.join(point, below))))
    return found


def _read(path: str) -> str:
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""


def parents() -> dict[str, str]:
    """By controller, the directory below which we may make groups that have it."""
    try:
        return _parents()
    except OSError:
        return {}  # and not for ever: it may have been a want of descriptors


@functools.cache  # a process stays where it was put; and while bubblewrap mounts, reading the mounts takes long
def _parents() -> dict[str, str]:
    with open("/proc/self/mountinfo") as mounts, open("/proc/self/cgroup") as groups:
        own = own_directories(mounts.read(), groups.read())
    found = {c: own[c] for c in _CONTROLLERS if c in own and os.access(own[c], os.W_OK)}
    # In version 2 a group with processes has no groups with controllers below it, so ours is often a sister of our own:
    # https://docs.kernel.org/admin-guide/cgroup-v2.html#no-internal-process-constraint
    for place in (own.get(""), os.path.dirname(own[""]) if own.get("") else None):
        if place and os.access(place, os.W_OK):
            enabled = _read(f"{place}/cgroup.subtree_control").split()
            found.update({c: place for c in _CONTROLLERS if c not in found and c in enabled})
    return found


def _write(path: str, text: str) -> bool:
    try:
        with open(path, "w") as file:
            file.write(text)
    except OSError:
        return False
    return True


def processes_of(directory: str) -> list[int]:
    """Who is in a group."""
    return [int(line) for line in _read(f"{directory}/cgroup.procs").split()]


def leaves(name: str) -> list[str]:
    """The groups of that name that lie here."""
    return [path for path in {os.path.join(parent, name) for parent in parents().values()} if os.path.isdir(path)]


def remove(directory: str) -> bool:
    """Remove a group; True when it is gone. The kernel lets go of an emptied one a little later."""
    for _ in range(_REMOVE_TRIES):
        try:
            os.rmdir(directory)
        except FileNotFoundError:
            return True
        except OSError as error:
            if error.errno != errno.EBUSY:
                return False
            time.sleep(_REMOVE_PAUSE_S)
        else:
            return True
    return False


class Cgroup:
    """The group of one attempt; with version 1 a directory per controller, and what can't be had is simply not limited.

    `limits_memory` and `limits_pids` say what the kernel enforces.
    """

    def __init__(self, name: str, memory_bytes: int | None, pids: int | None) -> None:
        self.directories: list[str] = []
        self._memory = self._pids = ""
        above = parents()
        if memory_bytes is not None and "memory" in above:
            self._memory = self._make(above["memory"], name)
        if pids is not None and "pids" in above:
            self._pids = self._make(above["pids"], name)
        self.limits_memory = bool(self._memory) and self._limit_memory(memory_bytes or 0)
        # One more: the sandbox's PID 1 is in the group too.
        self.limits_pids = bool(self._pids) and _write(f"{self._pids}/pids.max", str((pids or 0) + 1))

    def _make(self, parent: str, name: str) -> str:
        directory = os.path.join(parent, name)
        try:
            os.mkdir(directory)
        except FileExistsError:
            pass
        except OSError:
            return ""
        if directory not in self.directories:
            self.directories.append(directory)
        return directory

    def _limit_memory(self, count: int) -> bool:
        if os.path.exists(f"{self._memory}/memory.max"):
            _write(f"{self._memory}/memory.swap.max", "0")
            _write(f"{self._memory}/memory.oom.group", "1")
            return _write(f"{self._memory}/memory.max", str(count))
        limited = _write(f"{self._memory}/memory.limit_in_bytes", str(count))
        _write(f"{self._memory}/memory.memsw.limit_in_bytes", str(count))
        return limited

    def add(self, pid: int) -> None:
        """Put a process, and all that it will start, into the group."""
        for directory in self.directories:
            if not _write(f"{directory}/cgroup.procs", str(pid)):
                self.limits_memory = self.limits_memory and directory != self._memory
                self.limits_pids = self.limits_pids and directory != self._pids

    def memory_kills(self) -> int:
        """How many processes the kernel killed for want of memory."""
        return _count(_read(f"{self._memory}/memory.events") or _read(f"{self._memory}/memory.oom_control"), "oom_kill")

    def fork_refusals(self) -> int:
        """How often the kernel refused another process."""
        return _count(_read(f"{self._pids}/pids.events"), "max")

    def memory_bytes(self) -> int:
        """What is used now, page cache included."""
        text = _read(f"{self._memory}/memory.current") or _read(f"{self._memory}/memory.usage_in_bytes")
        return int(text or 0)

    def peak_bytes(self) -> int:
        """The most that was ever used; 0 where the kernel does not tell."""
        text = _read(f"{self._memory}/memory.peak") or _read(f"{self._memory}/memory.max_usage_in_bytes")
        return int(text or 0)

    def remove(self) -> None:
        """Remove the group; nobody may be in it any more."""
        self.directories = [directory for directory in self.directories if not remove(directory)]


def _count(text: str, name: str) -> int:
    pairs = (line.split() for line in text.splitlines())
    return next((int(pair[1]) for pair in pairs if len(pair) == 2 and pair[0] == name), 0)
