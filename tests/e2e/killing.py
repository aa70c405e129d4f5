"""Victims of a running stack: found by pid, sure to be the stack's own, and killed; and what is left."""

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from enum import StrEnum
from pathlib import Path

from launcher import guardian_client, ray_head
from launcher.guardian_client import GuardianError
from launcher.ray_head import Head
from tests.e2e.stack import Stack


class Victim(StrEnum):
    """Who may die at any moment."""

    WEB = "web"
    WORKER = "worker"
    DRIVER = "driver"
    AGENT = "agent"
    GUARDIAN = "guardian"
    RAYLET = "raylet"
    GCS = "gcs_server"
    HEAD = "head"
    """All of `ray start` at once."""
    UP = "up"


def kill(stack: Stack, victim: Victim) -> list[int]:
    """End a victim with SIGKILL; whom, nobody when there is none now."""
    pids = list(find(stack, victim))
    for pid in pids:
        with suppress(ProcessLookupError):  # it went with the one before it
            os.kill(pid, signal.SIGKILL)
    if victim is Victim.UP and stack.process and pids:
        stack.process.wait(10)
        if stack.process.stdout:
            stack.process.stdout.close()
    return pids


def find(stack: Stack, victim: Victim) -> Iterator[int]:
    """The processes of a victim."""
    record = stack.record()
    match victim:
        case Victim.UP | Victim.WEB | Victim.WORKER:
            yield from _recorded(record.get(victim.value))
        case Victim.DRIVER:
            for worker in _recorded(record.get("worker")):
                yield from (pid for pid in _children(worker) if b"launcher.ray_backend.driver" in _read(pid, "cmdline"))
        case Victim.GUARDIAN:
            yield from _guardians(stack)
        case _:
            head = Head.load(record["ray"])
            pids = ray_head.remains(head)
            yield from pids if victim is Victim.HEAD else [pid for pid in pids if _is(pid, victim)][:1]


def _recorded(identity: dict[str, int] | None) -> Iterator[int]:
    if identity and _started(identity["pid"]) == identity["started"]:
        yield identity["pid"]


def _guardians(stack: Stack) -> Iterator[int]:
    """The first that lives, of those whose command has not ended."""
    for attempt in sorted((stack.data_dir / "node" / "attempts").glob("*")):
        try:
            found = guardian_client.find(attempt)
        except GuardianError:
            continue
        if found is not None:
            yield found.pid
            return


def _is(pid: int, victim: Victim) -> bool:
    if victim is Victim.AGENT:
        return _read(pid, "cmdline").startswith(b"ray::NodeAgent")
    return _read(pid, "comm").strip() == victim.value.encode()


def _children(parent: int) -> Iterator[int]:
    for pid in _pids():
        fields = _read(pid, "stat").rpartition(b")")[2].split()
        if fields and int(fields[1]) == parent:
            yield pid


def _started(pid: int) -> int:
    fields = _read(pid, "stat").rpartition(b")")[2].split()
    return int(fields[19]) if fields else -1


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


# --- what is left ---


def processes_of(stack: Stack) -> list[str]:
    """Every process of a stack but its local GitHub: by environment, command line, directory and open files."""
    root = str(stack.root).encode()
    found = []
    for pid in _pids():
        argv = _read(pid, "cmdline")
        if pid == os.getpid() or b"ci_bot.local_github" in argv or _read(pid, "stat").rpartition(b")")[2][1:2] == b"Z":
            continue
        if root in argv + _read(pid, "environ") or any(link.startswith(root) for link in _links(pid)):
            found.append(f"{pid} {argv.replace(bytes(1), b' ').decode(errors='replace')[:120]}")
    return found


def marked(stack: Stack, keys: list[str]) -> list[int]:
    """Processes that carry the mark of one of these attempts, a sandbox's included."""
    attempts = stack.data_dir / "node" / "attempts"
    return [pid for key in keys for pid in guardian_client.sweep(key, attempts / key)]


def listening() -> set[int]:
    """The TCP ports that somebody listens on in this thread's network."""
    ports = set()
    for name in ("tcp", "tcp6"):
        for line in Path(f"/proc/thread-self/net/{name}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A":  # TCP_LISTEN, include/net/tcp_states.h
                ports.add(int(fields[1].rpartition(":")[2], 16))
    return ports


def _links(pid: int) -> Iterator[bytes]:
    try:
        names = [f"/proc/{pid}/cwd", *(f"/proc/{pid}/fd/{fd}" for fd in os.listdir(f"/proc/{pid}/fd"))]
    except OSError:
        return
    for name in names:
        try:
            yield os.readlink(name).encode()
        except OSError:
            continue
