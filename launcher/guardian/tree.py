"""Processes as /proc tells them: who is whose child, who still lives, how much memory they hold."""

from __future__ import annotations

import os

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Process:
    """What /proc/PID/stat says; `start`, in clock ticks since boot, tells it from a later one of its number."""

    __slots__ = ("parent", "pid", "start", "state")

    def __init__(self, pid: int, parent: int, state: str, start: int) -> None:
        self.pid, self.parent, self.state, self.start = pid, parent, state, start

    @property
    def lives(self) -> bool:
        """It can still run: no zombie."""
        return self.state not in "ZX"


def process(pid: int, proc: str = "/proc") -> Process | None:
    """The process of that number, a zombie too; None when there is none."""
    try:
        with open(f"{proc}/{pid}/stat", "rb") as file:
            # The name in brackets may hold spaces and brackets: count from the last one.
            # https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return Process(pid, int(fields[1]), fields[0].decode(), int(fields[19]))


def numbers(proc: str = "/proc") -> list[int]:
    """The process numbers that a /proc lists."""
    try:
        return [int(name) for name in os.listdir(proc) if name.isdecimal()]
    except OSError:
        return []


def descendants(root: int) -> list[Process]:
    """All below `root` that still live."""
    children: dict[int, list[Process]] = {}
    for pid in numbers():
        if (found := process(pid)) is not None:
            children.setdefault(found.parent, []).append(found)
    below: list[Process] = []
    queue = [root]
    while queue:
        for child in children.get(queue.pop(), ()):
            below.append(child)
            queue.append(child.pid)
    return [found for found in below if found.lives]


def same(pid: int, start: int) -> bool:
    """Whether exactly this process still lives."""
    found = process(pid)
    return found is not None and found.start == start and found.lives


def send(pid: int, number: int) -> bool:
    """Signal a process; False when it is gone."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    except PermissionError:
        return False  # it took another uid, as a setuid program does under plain isolation
    return True


def resident_bytes(pids: list[int], proc: str = "/proc") -> int:
    """Resident memory, pages that several share counted several times: cheap, never too low."""
    total = 0
    for pid in pids:
        try:
            with open(f"{proc}/{pid}/statm", "rb") as file:
                total += int(file.read().split()[1]) * _PAGE_BYTES
        except (OSError, IndexError):
            continue  # it ended while we looked
    return total


def proportional_bytes(pids: list[int], proc: str = "/proc") -> int:
    """Resident memory, every shared page divided among its sharers: true, but the kernel walks every page."""
    total = 0
    for pid in pids:
        try:
            with open(f"{proc}/{pid}/smaps_rollup", "rb") as file:
                total += next((int(line.split()[1]) * 1024 for line in file if line.startswith(b"Pss:")), 0)
        except OSError:
            total += resident_bytes([pid], proc)  # not ours to look into, or just gone
    return total
