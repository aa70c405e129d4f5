"""A local Ray head, started and ended as a process of its own; never imports ray, never runs `ray stop`."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from launcher.ray_environment import for_head

START_S = 120.0
GRACE_S = 10.0
KILL_S = 10.0
POLL_S = 0.05
MAX_DIRECTORY_BYTES = 40
"""Ray puts unix sockets 64 bytes below, and a socket's path ends at 107."""
_RAY = "r"
_OUTPUT = "ray.out"


class HeadError(Exception):
    """A head could not be started or ended."""


@dataclass(frozen=True)
class HeadOptions:
    """What the head's node offers; None is what Ray finds there."""

    num_cpus: int | None = None
    num_gpus: int | None = None
    resources: Mapping[str, float] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    port: int = 0
    """0 chooses a free one."""
    object_store_bytes: int = 200_000_000
    """Only calls and pieces of files pass through it."""


@dataclass(frozen=True)
class Head:
    """A head as it is found again: `started_ticks` (clock ticks since boot) tells its pid from a later one's."""

    pid: int
    started_ticks: int
    address: str
    directory: Path
    token_path: Path

    def dump(self) -> dict[str, Any]:
        """The head as plain data, to be written down."""
        return asdict(self) | {"directory": str(self.directory), "token_path": str(self.token_path)}

    @classmethod
    def load(cls, dumped: Mapping[str, Any]) -> "Head":
        """The head that was written down."""
        paths = {name: Path(dumped[name]) for name in ("directory", "token_path")}
        return cls(**{**dumped, **paths})


def start(
    environment: Mapping[str, str],
    token_path: Path,
    options: HeadOptions,
    *,
    directory: Path | None = None,
    begun: Callable[[Head], None] = lambda head: None,
    timeout_s: float = START_S,
) -> Head:
    """Start a head that is a node too, and wait until it serves.

    Args:
        environment: ours; only what may reach Ray's processes is passed on.
        token_path: the file with the token that everybody must know.
        options: what its node offers.
        directory: its own, absent or empty, removed when it ends; a new one below the temporary directory if None.
        begun: called as soon as the process is there, with a head that has no address yet; whoever writes it down can
            end it even if we are killed before it serves.
        timeout_s: how long it may take.

    Raises:
        HeadError: it did not come up; nothing of it is left.
    """
    own = directory or _new_directory()
    if len(os.fsencode(own)) > MAX_DIRECTORY_BYTES:
        raise HeadError(f"{own} is too long for Ray's sockets: at most {MAX_DIRECTORY_BYTES} bytes")
    own.mkdir(mode=0o700, exist_ok=True)
    head = _spawn(environment, token_path, options, own)
    try:
        begun(head)
        return replace(head, address=_address(head, timeout_s))
    except BaseException:
        stop(head)
        raise


def _new_directory() -> Path:
    usual = tempfile.gettempdir()
    short = usual if len(os.fsencode(usual)) + len("/descent-12345678") <= MAX_DIRECTORY_BYTES else "/tmp"  # noqa: S108
    return Path(tempfile.mkdtemp(prefix="descent-", dir=short))


def _spawn(environment: Mapping[str, str], token_path: Path, options: HeadOptions, own: Path) -> Head:
    with (own / _OUTPUT).open("wb") as output:
        process = subprocess.Popen(
            _argv(own, options),
            env=for_head(environment, token_path),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=own,
            start_new_session=True,  # by its session all of it is found again, and a Ctrl-C is not for it
        )
    _children[process.pid] = process
    return Head(process.pid, _ticks(process.pid), "", own, token_path)


def is_alive(head: Head) -> bool:
    """Whether the head's own process still runs."""
    _reap(head.pid)
    stat = _stat(head.pid)
    return stat is not None and stat.ticks == head.started_ticks and stat.state not in "ZX"


def stop(head: Head, grace_s: float = GRACE_S) -> None:
    """End the head and everything of it, and remove its directory; it may be gone in part, or altogether.

    Raises:
        HeadError: processes are left that SIGKILL did not end.
    """
    if is_alive(head):
        _signal(head.pid, signal.SIGTERM)
        give_up_at = time.monotonic() + grace_s
        while is_alive(head) and time.monotonic() < give_up_at:
            time.sleep(POLL_S)
    give_up_at = time.monotonic() + KILL_S
    while pids := remains(head):
        if time.monotonic() > give_up_at:
            raise HeadError(f"processes of the Ray head did not end: {', '.join(map(str, pids))}")
        for pid in pids:
            _signal(pid, signal.SIGKILL)
        time.sleep(POLL_S)
        _reap(head.pid)
    shutil.rmtree(head.directory, ignore_errors=True)


def remains(head: Head) -> list[int]:
    """The processes of the head that still run: those of its session, which none of Ray's processes leaves.

    As long as one of them lives the kernel gives the session's number to nobody else; a process that has it as its pid
    but started at another time says that nothing is left of the session.
    """
    leader = _stat(head.pid)
    if leader is not None and leader.ticks != head.started_ticks:
        return []
    stats = ((pid, _stat(pid)) for pid in _own_pids())
    return [pid for pid, stat in stats if stat and stat.session == head.pid and stat.state not in "ZX"]


_children: dict[int, "subprocess.Popen[bytes]"] = {}
"""Heads that this process started, to be reaped."""


def _argv(directory: Path, options: HeadOptions) -> list[str]:
    argv = [sys.executable, "-P", "-m", "launcher.ray_backend.start", "start", "--head", "--block"]
    argv += ["--port", str(options.port), "--dashboard-agent-listen-port", "0", "--temp-dir", str(directory / _RAY)]
    argv += ["--include-dashboard=false", "--include-log-monitor=false", "--no-monitor", "--disable-usage-stats"]
    argv += ["--object-store-memory", str(options.object_store_bytes), "--log-style=record", "--log-color=false"]
    if options.num_cpus is not None:
        argv += ["--num-cpus", str(options.num_cpus)]
    if options.num_gpus is not None:
        argv += ["--num-gpus", str(options.num_gpus)]
    if options.resources:
        argv += ["--resources", json.dumps(dict(options.resources))]
    if options.labels:
        argv += ["--labels", ",".join(f"{name}={value}" for name, value in options.labels.items())]
    return argv


def _address(head: Head, timeout_s: float) -> str:
    """The head's address, which Ray writes down once it serves."""
    written = head.directory / _RAY / "ray_current_cluster"
    give_up_at = time.monotonic() + timeout_s
    while time.monotonic() < give_up_at:
        with contextlib.suppress(FileNotFoundError):
            if address := written.read_text().strip():
                return address
        if not is_alive(head):
            raise HeadError(f"the Ray head ended while it started: {_last_words(head)}")
        time.sleep(POLL_S)
    raise HeadError(f"the Ray head did not start within {timeout_s:.0f} s: {_last_words(head)}")


def _last_words(head: Head) -> str:
    lines = (head.directory / _OUTPUT).read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"


@dataclass(frozen=True)
class _Stat:
    state: str
    session: int
    ticks: int


def _stat(pid: int) -> _Stat | None:
    """Source: proc(5), /proc/pid/stat; the name in parentheses may hold anything."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return _Stat(state=fields[0], session=int(fields[3]), ticks=int(fields[19]))


def _ticks(pid: int) -> int:
    stat = _stat(pid)
    return stat.ticks if stat else 0


def _own_pids() -> Iterator[int]:
    uid = os.geteuid()
    for name in os.listdir("/proc"):
        if name.isdecimal():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                if os.stat(f"/proc/{name}").st_uid == uid and int(name) != os.getpid():
                    yield int(name)


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _reap(pid: int) -> None:
    child = _children.get(pid)
    if child is not None and child.poll() is not None:
        del _children[pid]
