"""The shape of the order as a guardian, and the PID 1 of its sandbox, get it. Pure."""

from __future__ import annotations

from typing import TypedDict


class WireLimits(TypedDict):
    """What the command may use."""

    memory_bytes: int | None
    disk_bytes: int | None
    disk_floor_bytes: int
    pids: int | None
    log_max_bytes: int


class Wire(TypedDict):
    """The whole order; `bwrap` is the command line that encloses the command, None for plain processes.

    `copied` are the files that it expects on the descriptors from `start.FIRST_COPY` on.
    """

    key: str
    directory: str
    command: str
    env: dict[str, str]
    cwd: str
    bwrap: list[str] | None
    copied: list[str]
    init: list[str]
    uid: int | None
    gid: int | None
    cgroup: str
    limits: WireLimits
    watched: list[str]
    lease_s: float
    grace_s: float


class InitOrder(TypedDict):
    """What the sandbox's PID 1 needs to start the command."""

    command: str
    env: dict[str, str]
    cwd: str
    uid: int | None
    gid: int | None
    pids: int | None
