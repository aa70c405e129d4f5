"""What a guardian is to run: as an agent says it, as the guardian gets it, and as much as may lie on disk. Pure."""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launcher.sandbox import SandboxOrder

if TYPE_CHECKING:
    from launcher.guardian.wire import Wire

ATTEMPT = "DESCENT_ATTEMPT"
PLACE = "DESCENT_PLACE"


def marks(directory: Path, key: str) -> dict[str, str]:
    """The variables by which the processes of an attempt can be found when nothing else leads to them.

    Two installations on one host may have attempts of one key, but not in one directory, of which only a digest shows.
    """
    return {ATTEMPT: key, PLACE: hashlib.sha256(str(directory.absolute()).encode(errors="replace")).hexdigest()[:16]}


def cgroup_name(directory: Path, key: str) -> str:
    """The name of an attempt's control group, which can be found again without a record of it."""
    return f"descent-{marks(directory, key)[PLACE]}-{key}"


@dataclass(frozen=True)
class Limits:
    """What the command may use; None is no limit. Below `disk_floor_bytes` left on the disk it ends too."""

    memory_bytes: int | None = None
    disk_bytes: int | None = None
    disk_floor_bytes: int = 512 << 20
    pids: int | None = None
    log_max_bytes: int = 1 << 30


@dataclass(frozen=True)
class Order:
    """What a guardian is to run.

    `env` is the command's complete environment, `cwd` a path as the command sees it, `sandbox` None for plain
    processes, `watched` the host directories whose disk use counts. `grace_s` is between SIGTERM and SIGKILL when the
    lease ends.
    """

    key: str
    command: str
    env: Mapping[str, str]
    cwd: str
    sandbox: SandboxOrder | None = None
    limits: Limits = field(default_factory=Limits)
    watched: tuple[str, ...] = ()
    lease_s: float = 15.0
    grace_s: float = 10.0


@dataclass(frozen=True)
class Enclosure:
    """The command lines of a sandbox: bubblewrap's, and that of our PID 1 in it. As root, PID 1 changes the user.

    `copied` are the host's files that bubblewrap reads, on descriptors that its command line names.
    """

    bwrap: list[str]
    copied: list[str]
    init: list[str]
    root: bool


def public(order: Order) -> dict[str, Any]:
    """What may lie on disk: neither values of the environment nor the command."""
    known = asdict(order)
    del known["env"], known["command"]
    return known


def to_wire(directory: Path, order: Order, enclosure: Enclosure | None) -> "Wire":
    """The order as it goes to the guardian, complete."""
    limits = order.limits
    user = order.sandbox if enclosure is not None and enclosure.root else None
    return {
        "key": order.key,
        "directory": str(directory.absolute()),
        "command": order.command,
        "env": {**order.env, **marks(directory, order.key)},
        "cwd": order.cwd,
        "bwrap": enclosure.bwrap if enclosure else None,
        "copied": enclosure.copied if enclosure else [],
        "init": enclosure.init if enclosure else [],
        "uid": user.uid if user else None,
        "gid": user.gid if user else None,
        "cgroup": cgroup_name(directory, order.key),
        "limits": {
            "memory_bytes": limits.memory_bytes,
            "disk_bytes": limits.disk_bytes,
            "disk_floor_bytes": limits.disk_floor_bytes,
            "pids": limits.pids,
            "log_max_bytes": limits.log_max_bytes,
        },
        "watched": list(order.watched),
        "lease_s": order.lease_s,
        "grace_s": order.grace_s,
    }
