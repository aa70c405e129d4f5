"""How a command is enclosed: an order to bubblewrap's command line. Pure, but for `survey` and `probe`.

Inside is a list and never more: system directories and named files of /etc read-only, what the order names,
an own /proc, private /tmp, /run and /dev/shm, a minimal /dev and the ordered devices. The rest is a read-only, empty
tree. The network is the host's. Processes have their own PID, IPC and UTS namespaces, no capability and no way to one.
"""

import contextlib
import ipaddress
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from launcher.guardian import init
from launcher.host_files import ETC, LIVE, SYS, SYS_WITH_DEVICES, SYSTEM

if TYPE_CHECKING:
    from launcher.guardian.wire import InitOrder

INIT = "/run/descent/init.py"
_RUN_BYTES = 64 << 20
_SMALL_BYTES = 128 << 10
_NOBODY = 65534
_PROBE = "descent-probe-"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}")


@dataclass(frozen=True)
class Mount:
    """A host path and where the command sees it."""

    source: str
    target: str
    writable: bool = False


@dataclass(frozen=True)
class SandboxOrder:
    """What one command may see and be.

    `uid` and `gid` are never 0. Where we are root they are real ids, which should belong to this attempt alone;
    else the agent's own ids look like them. `mounts` come in order, later ones may lie inside earlier ones.
    `hosts` are addresses and names that resolve inside, whatever the host says of these names.
    `memory_bytes` bounds each file system in memory, None leaves the kernel's half of the machine.
    """

    mounts: tuple[Mount, ...]
    uid: int = 1000
    gid: int = 1000
    hostname: str = "descent"
    hosts: tuple[tuple[str, str], ...] = ()
    home: str = "/home/user"
    devices: tuple[str, ...] = ()
    memory_bytes: int | None = None

    def __post_init__(self) -> None:
        """Refuse what would make the command root, or be more than one line of a file.

        Raises:
            ValueError: an id is 0 or less, a host name or an address is none.
        """
        if self.uid <= 0 or self.gid <= 0:
            raise ValueError(f"uid and gid must be at least 1, got {self.uid} and {self.gid}")
        for address, name in (("::1", self.hostname), *self.hosts):
            ipaddress.ip_address(address)  # its error says what it got
            if not _NAME.fullmatch(name):
                raise ValueError(f"{name!r} is no host name")


@dataclass(frozen=True)
class Host:
    """What the command line depends on beyond the order.

    `links` are the system directories that are symlinks (/bin on a merged /usr), `interpreter` the Python that runs
    our PID 1 and `prefix` the directory it needs.
    """

    bwrap: str
    root: bool
    links: tuple[tuple[str, str], ...]
    interpreter: str
    prefix: str
    init: str
    small_files: tuple[str, ...] = ()
    """Those of ETC that are copied and not mounted."""


@dataclass(frozen=True)
class Capability:
    """Whether commands can be enclosed here, and why not."""

    ok: bool
    why: str


def survey() -> Host | None:
    """The facts of this host; None without bubblewrap."""
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        return None
    return Host(
        bwrap=bwrap,
        root=os.geteuid() == 0,
        links=tuple((path, os.readlink(path)) for path in SYSTEM if os.path.islink(path)),
        interpreter=os.path.realpath(sys.executable),
        prefix=os.path.realpath(sys.base_prefix),
        init=os.path.realpath(init.__file__),
        small_files=tuple(filter(_is_small, (f"/etc/{name}" for name in ETC if name not in LIVE))),
    )


def _is_small(path: str) -> bool:
    try:
        found = os.stat(path)
    except OSError:
        return False
    everybodys = stat.S_ISREG(found.st_mode) and bool(found.st_mode & stat.S_IROTH)
    return everybodys and found.st_size <= _SMALL_BYTES


def etc_files(order: SandboxOrder, hosts: str) -> dict[str, str]:
    """The files of /etc that are the sandbox's own, by name.

    Args:
        order: what is to be enclosed.
        hosts: the host's /etc/hosts.
    """
    return {
        "passwd": "root:x:0:0:root:/root:/usr/sbin/nologin\n"
        f"user:x:{order.uid}:{order.gid}:user:{order.home}:/bin/bash\n"
        f"nobody:x:{_NOBODY}:{_NOBODY}:nobody:/nonexistent:/usr/sbin/nologin\n",
        "group": f"root:x:0:\nuser:x:{order.gid}:\nnogroup:x:{_NOBODY}:\n",
        "hosts": _hosts(order, hosts),
        "hostname": f"{order.hostname}\n",
    }


def _hosts(order: SandboxOrder, hosts: str) -> str:
    """The host's /etc/hosts, with the order's names as the order has them, and its own name in any case."""
    ours = {name for _, name in order.hosts}
    lines = [f"{address} {name}" for address, name in order.hosts]
    lines += [kept for line in hosts.rstrip().splitlines() if (kept := _without(line, ours)) is not None]
    if not any(order.hostname in line.partition("#")[0].split()[1:] for line in lines):
        lines.append(f"127.0.1.1 {order.hostname}")  # gethostname() must resolve: MPICH insists
    return "\n".join(lines) + "\n"


def _without(line: str, names: Collection[str]) -> str | None:
    """A line of /etc/hosts less some names; None when that leaves nothing."""
    address, *known = line.partition("#")[0].split() or [""]
    if not set(names).intersection(known):
        return line
    kept = [name for name in known if name not in names]
    return " ".join((address, *kept)) if kept else None


def init_argv(host: Host) -> list[str]:
    """The command line of our PID 1, as it is inside."""
    return [host.interpreter, "-I", "-S", INIT]


def copied_files(order: SandboxOrder, host: Host, etc: str) -> dict[str, str]:
    """The small files that the sandbox gets copies of, which bubblewrap makes in a fraction of a mount's time.

    Args:
        order: what is to be enclosed.
        host: where.
        etc: a host directory with the files of `etc_files`.

    Returns:
        By the path where the command sees it, the host's file.
    """
    own = {f"/etc/{name}": f"{etc}/{name}" for name in etc_files(order, "")}
    return {path: path for path in host.small_files} | own


def bwrap_argv(order: SandboxOrder, host: Host, copies: Mapping[str, int]) -> list[str]:
    """Bubblewrap's command line, up to and without the `--`.

    Args:
        order: what is to be enclosed.
        host: where.
        copies: for each of `copied_files`, the descriptor on which bubblewrap reads it.

    Source: https://github.com/containers/bubblewrap/blob/v0.8.0/bwrap.xml; the order of mounts matters.
    """
    return [
        host.bwrap,
        *("--unshare-pid", "--unshare-ipc", "--unshare-uts", "--hostname", order.hostname),
        *("--die-with-parent", "--as-pid-1", "--clearenv"),
        *_identity(order, root=host.root),
        *_system(order, host, copies),
        *_private(order),
        *_bind(Mount(host.init, INIT)),
        *_interpreter(host),
        *(part for mount in order.mounts for part in _bind(mount)),
        *(part for device in order.devices for part in ("--dev-bind-try", device, device)),
        # What is left writable are mounts of their own: nothing grows in the tree that holds them.
        *("--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/"),
    ]


def _identity(order: SandboxOrder, *, root: bool) -> tuple[str, ...]:
    if root:
        # Just enough for our PID 1 to become the order's user before it starts anything.
        return ("--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID")
    return ("--unshare-user", "--uid", str(order.uid), "--gid", str(order.gid))


def _system(order: SandboxOrder, host: Host, copies: Mapping[str, int]) -> list[str]:
    links = dict(host.links)
    argv: list[str] = []
    for path in SYSTEM:
        argv += ("--symlink", links[path], path) if path in links else ("--ro-bind-try", path, path)
    for path in (*(f"/etc/{name}" for name in ETC), *(SYS_WITH_DEVICES if order.devices else SYS)):
        if path not in copies:
            argv += ("--dir", os.path.dirname(path), "--ro-bind-try", path, path)
    for path, descriptor in copies.items():
        argv += ("--dir", os.path.dirname(path), "--perms", "0644", "--file", str(descriptor), path)
    return argv


def _interpreter(host: Host) -> tuple[str, ...]:
    """What our PID 1 runs on; late, since it may lie below /tmp."""
    seen = any(Path(host.prefix).is_relative_to(path) for path in SYSTEM)
    return () if seen else _bind(Mount(host.prefix, host.prefix))


def _private(order: SandboxOrder) -> list[str]:
    size = ("--size", str(order.memory_bytes)) if order.memory_bytes is not None else ()
    open_to_all = ("--perms", "1777")
    return [
        *("--proc", "/proc", "--dev", "/dev"),
        *(*open_to_all, *size, "--tmpfs", "/dev/shm"),  # noqa: S108 - its own, inside
        *(*open_to_all, *size, "--tmpfs", "/tmp"),  # noqa: S108 - its own, inside
        *(*open_to_all, "--size", str(_RUN_BYTES), "--tmpfs", "/run"),
        *("--dir", "/var", "--symlink", "/tmp", "/var/tmp", "--symlink", "/run", "/var/run"),  # noqa: S108 - its own, inside
    ]


def _bind(mount: Mount) -> tuple[str, ...]:
    # The way to a mount point that --bind makes is closed to all but root; the way that --dir makes is open.
    above = ("--dir", os.path.dirname(mount.target))
    return (*above, "--bind" if mount.writable else "--ro-bind", mount.source, mount.target)


_PROOF = """
test "$(id -u)" != 0 || { echo "the command is root"; exit 1; }
test "$(ls -d /proc/[0-9]* | wc -l)" -lt 9 || { echo "foreign processes show"; exit 1; }
test ! -e "$SECRET" || { echo "foreign files show"; exit 1; }
test "$(cat /inside/proof)" = proof || { echo "a mount is missing"; exit 1; }
grep -q '^CapEff:.0*$' /proc/self/status || { echo "it has capabilities"; exit 1; }
grep -q '^NoNewPrivs:.1$' /proc/self/status || { echo "it may gain privileges"; exit 1; }
! touch /usr/proof /proof /inside/new 2>/dev/null || { echo "it can write to the system"; exit 1; }
touch /tmp/proof && echo proven
"""


def probe(timeout_s: float = 20.0, *, below: Path | None = None) -> Capability:
    """Enclose a command here and let it look around: what it should not see or be able to do, it must not.

    Args:
        timeout_s: how long it may take.
        below: a directory of ours to do it in, where what a killed probe left is cleared away by the next one.
    """
    host = survey()
    if host is None:
        return Capability(ok=False, why="bwrap is not installed (package bubblewrap)")
    for old in below.glob(f"{_PROBE}*") if below else ():
        with contextlib.suppress(FileNotFoundError):
            if time.time() - old.stat().st_mtime > 2 * timeout_s:  # nobody is at it any more
                shutil.rmtree(old, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=_PROBE, dir=below) as place:
        return _probe(host, Path(place), timeout_s)


def _probe(host: Host, place: Path, timeout_s: float) -> Capability:
    place.chmod(0o711)
    inside = place / "inside"
    inside.mkdir()
    (inside / "proof").write_text("proof")
    order = SandboxOrder(mounts=(Mount(str(inside), "/inside"),), uid=_NOBODY, gid=_NOBODY)
    write_etc(order, place / "etc")
    env = {"SECRET": str(inside), "PATH": "/usr/bin:/bin"}
    with contextlib.ExitStack() as files:
        copied = copied_files(order, host, str(place / "etc")).items()
        copies = {path: files.enter_context(open(source, "rb")).fileno() for path, source in copied}
        argv = [*bwrap_argv(order, host, copies), "--", *init_argv(host)]
        said = _run_init(argv, tuple(copies.values()), place, env, timeout_s)
    if said.endswith("proven"):
        return Capability(ok=True, why="")
    return Capability(ok=False, why=f"bwrap can't enclose a command here: {said or 'no answer'}")


def _run_init(argv: list[str], copies: tuple[int, ...], place: Path, env: Mapping[str, str], timeout_s: float) -> str:
    """Run our PID 1 with the proof as its command; what it, or bwrap, said."""
    control, control_write = os.pipe()
    output = place / "output"
    ids = _NOBODY if os.geteuid() == 0 else None
    proof: InitOrder = {"command": _PROOF, "env": dict(env), "cwd": "/", "uid": ids, "gid": ids, "pids": None}
    with (
        output.open("ab") as out,
        output.open("ab") as log,
        open(control, "rb") as reader,
        open(control_write, "wb") as writer,
    ):
        writer.write(init.message(proof))
        writer.flush()
        fds = (reader.fileno(), out.fileno(), log.fileno())
        try:
            subprocess.run(
                [*argv, *(str(fd) for fd in fds)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                pass_fds=(*fds, *copies),
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return f"no end after {timeout_s:g} s"
    lines = output.read_text(errors="replace").splitlines()
    return "; ".join(line for line in lines if not line.startswith(("started", "exit ")))[:500]


def write_etc(order: SandboxOrder, directory: Path) -> None:
    """Write the sandbox's own files of /etc."""
    directory.mkdir(exist_ok=True)
    directory.chmod(0o755)
    try:
        hosts = Path("/etc/hosts").read_text()
    except OSError:
        hosts = "127.0.0.1 localhost\n::1 localhost\n"
    for name, text in etc_files(order, hosts).items():
        path = directory / name
        path.write_text(text)
        path.chmod(0o644)
