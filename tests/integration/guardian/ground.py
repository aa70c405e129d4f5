"""Where a guardian is tested: enclosed or plain, as root or as a user without rights; and the attempts made there."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from launcher import guardian_client, sandbox
from launcher.fork_server import ForkServer
from launcher.guardian.segments import Segments
from launcher.guardian_client import Limits, Order
from launcher.sandbox import Mount, SandboxOrder

ROOT = Path(__file__).parents[3]
NOBODY = 65534
USER = 54321
PATIENCE_S = 20.0

_SPAWN = """
import json, pathlib, sys
from launcher.fork_server import ForkServer
from launcher.guardian_client import Limits, Order, spawn
from launcher.sandbox import Mount, SandboxOrder
said = json.load(sys.stdin)
enclosed = said["sandbox"]
if enclosed:
    enclosed["mounts"] = tuple(Mount(**mount) for mount in enclosed["mounts"])
    enclosed = SandboxOrder(**{**enclosed, "devices": tuple(enclosed["devices"])})
limits = Limits(**said["limits"])
with ForkServer() as server:
    spawn(pathlib.Path(sys.argv[1]), Order(**{**said, "sandbox": enclosed, "limits": limits}), server)
"""


@dataclass
class Ground:
    """One way to run commands. `python` is an interpreter that the user can execute, `code` a copy of the launcher."""

    isolation: str
    unprivileged: bool
    place: Path
    code: Path

    @property
    def enclosed(self) -> bool:
        return self.isolation == "bubblewrap"

    def attempt(self, key: str = "exp-1-a1-n0") -> "Attempt":
        directory = Path(tempfile.mkdtemp(prefix=f"{key}-", dir=self.place))
        directory.chmod(0o755)
        attempt = Attempt(self, directory, f"{key}-{directory.name[-8:]}")
        attempt.workspace.mkdir()
        attempt.workspace.chmod(0o777)
        if self.unprivileged and os.geteuid() == 0:
            os.chown(directory, NOBODY, NOBODY)
            os.chown(attempt.workspace, NOBODY, NOBODY)
        return attempt


@dataclass
class Attempt:
    """One attempt; it is held from its start to its end."""

    ground: Ground
    directory: Path
    key: str
    hold: guardian_client.Hold | None = None

    @property
    def workspace(self) -> Path:
        return self.directory / "workspace"

    @property
    def inside(self) -> str:
        """The workspace as the command sees it."""
        return "/workspace" if self.ground.enclosed else str(self.workspace)

    def order(self, command: str, **changes: Any) -> Order:
        enclosed = None
        if self.ground.enclosed:
            mounts = (Mount(str(self.workspace), "/workspace", writable=True), *changes.pop("mounts", ()))
            ids = 1000 if self.ground.unprivileged else USER
            memory = changes.get("limits", Limits()).memory_bytes
            enclosed = SandboxOrder(mounts=mounts, uid=ids, gid=ids, memory_bytes=memory)
        env = {"PATH": "/usr/bin:/bin", "HOME": self.inside, **changes.pop("env", {})}
        return Order(
            **{"key": self.key, "command": command, "env": env, "cwd": self.inside, "sandbox": enclosed, **changes}
        )

    def spawn(self, command: str, **changes: Any) -> None:
        order = self.order(command, **changes)
        if not self.ground.unprivileged or os.geteuid() != 0:
            with ForkServer() as server:
                guardian_client.spawn(self.directory, order, server)
            return
        subprocess.run(
            [
                *("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"),
                *("/usr/bin/python3", "-c", _SPAWN, str(self.directory)),
            ],
            input=json.dumps(asdict(order)),
            text=True,
            check=True,
            cwd=self.ground.code,
            timeout=PATIENCE_S,
        )

    def start(self, command: str, **changes: Any) -> "Attempt":
        self.spawn(command, **changes)
        self.hold = guardian_client.hold(self.directory, lambda _: None)
        return self

    def run(self, command: str, **changes: Any) -> dict[str, Any]:
        return self.start(command, **changes).end()

    def end(self) -> dict[str, Any]:
        """Wait for the end."""
        if self.hold is not None:
            assert self.hold.wait(PATIENCE_S)
        ended = guardian_client.exit_of(self.directory)
        assert ended is not None, (self.directory / "guardian.err").read_text()
        return ended

    def log(self) -> bytes:
        chunk = Segments(self.directory / "log", 1 << 30).read(0, 1 << 30)
        return chunk.data

    def wait_for_log(self, text: bytes) -> None:
        wait_until(lambda: text in self.log())

    def processes(self) -> list[int]:
        """Guardian, bwrap and PID 1; or guardian and shell."""
        begun = guardian_client.started_of(self.directory)
        assert begun is not None
        return [pid for pid, _ in begun["processes"]]

    def left(self) -> list[str]:
        return guardian_client.is_empty(self.directory, self.key)[1]

    def clear(self) -> None:
        if self.hold is not None:
            self.hold.close()
        empty, left = guardian_client.purge(self.directory, self.key)
        assert empty, left


def wait_until(true: Callable[[], bool], within_s: float = PATIENCE_S) -> None:
    until = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < until, "it did not become true"
        time.sleep(0.01)


def copy_launcher(target: Path) -> None:
    """The launcher's own part that an unprivileged user needs, where that user can read it."""
    (target / "launcher").mkdir(parents=True)
    for name in (
        "__init__.py",
        "host_files.py",
        "sandbox.py",
        "fork_server.py",
        "guardian_client.py",
        "guardian_order.py",
    ):
        shutil.copy(ROOT / "launcher" / name, target / "launcher")
    shutil.copytree(
        ROOT / "launcher/guardian", target / "launcher/guardian", ignore=shutil.ignore_patterns("__pycache__")
    )
    subprocess.run([sys.executable, "-m", "compileall", "-q", str(target)], check=True)
    subprocess.run(["chmod", "-R", "a+rX", str(target)], check=True)


def why_not(isolation: str, unprivileged: bool) -> str:
    """Why this ground can't be had here; empty when it can."""
    if isolation == "bubblewrap" and not (capability := sandbox.probe()).ok:
        return capability.why
    if unprivileged and os.geteuid() == 0:
        asked = [shutil.which("setpriv") or "", "--reuid=65534", "--clear-groups", "/usr/bin/python3", "-c"]
        if not asked[0]:
            return "setpriv is not installed"
        version = subprocess.run([*asked, "import sys; sys.exit(sys.version_info < (3, 11))"], capture_output=True)
        if version.returncode:
            return "another user can't run a Python of version 3.11 or later in /usr/bin"
    if not unprivileged and os.geteuid() != 0:
        return "needs root"
    return ""


def grounds() -> Iterable[tuple[str, bool]]:
    return [(isolation, unprivileged) for isolation in ("bubblewrap", "none") for unprivileged in (False, True)]
