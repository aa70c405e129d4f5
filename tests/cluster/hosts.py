"""Hosts that are namespaces of this machine: own network address, processes, name and shared memory; gone with us.

Nothing of it has a name on the machine: each host is a process that holds its namespaces and ends when the pipe from us
closes, however we end; the kernel then ends everything in it and takes its interfaces away.
"""

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

NAMES = ("host-a", "host-b", "host-c")
NETWORK = "10.78.0"
NS_GET_PARENT = 0xB702  # ioctl_nsfs(2)
END_S = 10.0
_DEAD = ("Z", "X")
_LISTENS = "0A"  # TCP_LISTEN, as /proc/net/tcp writes it
_WIRE = "ip link set lo up; ip link add wire type bridge; ip link set wire up; echo ready; exec cat"
_HOST = """\
trap '' CHLD  # who is left to the host's first process is reaped by the kernel
hostname "$1"
mount -t tmpfs -o mode=1777,size=1g tmpfs /dev/shm
mount --bind "$2" /etc/hosts
ip link set lo up
echo ready
exec cat
"""


def missing() -> str:
    """Why there can be no such hosts here; empty when there can."""
    if os.geteuid() != 0:
        return "hosts of namespaces need root"
    absent = [name for name in ("ip", "unshare", "nsenter", "bwrap") if shutil.which(name) is None]
    if absent:
        return f"hosts of namespaces need {', '.join(absent)}"
    tried = subprocess.run(["unshare", "--pid", "--fork", "--mount-proc", "--net", "true"], capture_output=True)
    return "" if tried.returncode == 0 else f"no namespaces here: {tried.stderr.decode(errors='replace').strip()}"


@dataclass(frozen=True)
class Process:
    """A process of a host: `pid` is ours, `inner` the host's own number for it."""

    pid: int
    inner: int
    argv: str
    comm: str


@dataclass
class Running:
    """A program that was started on a host; `pid` is our number for it, None when it ended before we saw it."""

    entering: "subprocess.Popen[bytes]"
    pid: int | None

    def signal(self, number: signal.Signals) -> None:
        if self.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def wait(self, timeout_s: float) -> int:
        return self.entering.wait(timeout_s)

    @property
    def ended(self) -> bool:
        return self.entering.poll() is not None

    def end(self, grace_s: float = END_S) -> None:
        """SIGTERM, then SIGKILL."""
        if not self.ended:
            self.signal(signal.SIGTERM)
            try:
                self.wait(grace_s)
            except subprocess.TimeoutExpired:
                self.signal(signal.SIGKILL)
                self.wait(grace_s)
        if self.entering.stdout:
            self.entering.stdout.close()


@dataclass
class Host:
    """One of the hosts; `init` is its first process, `directory` its own on the machine's disk."""

    name: str
    address: str
    init: int
    directory: Path
    started: list[Running] = field(default_factory=list)

    @property
    def _namespaces(self) -> list[str]:
        return ["nsenter", "--target", str(self.init), "--mount", "--uts", "--ipc", "--net", "--pid"]

    def run(self, *argv: str) -> "subprocess.CompletedProcess[str]":
        """A program on this host, to its end."""
        return subprocess.run([*self._namespaces, "--", *argv], capture_output=True, text=True, timeout=60)

    def start(
        self, *argv: str, environment: Mapping[str, str], output: Path, cwd: Path, stdout: int | None = None
    ) -> Running:
        """Start a program on this host; it says what it says to `output`, or to the pipe that `stdout` asks for."""
        with output.open("ab") as file:
            entering = subprocess.Popen(
                [*self._namespaces, f"--wd={cwd}", "--", *argv],
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=file if stdout is None else stdout,
                stderr=file,
                start_new_session=True,
            )
        self.started.append(Running(entering, _only_child(entering)))
        return self.started[-1]

    def processes(self) -> list[Process]:
        """Everything that lives on this host but its first process: sandboxes and all."""
        found = [_process(pid, self._depth) for pid in self._pids() if _state(pid) not in _DEAD]
        return [process for process in found if process is not None]

    def zombies(self) -> list[str]:
        """What has ended and was not waited for: its number, name and parent."""
        dead = [(pid, _status(pid, "PPid")) for pid in self._pids() if _state(pid) == "Z"]
        return [f"{pid} {_read(pid, 'comm').strip()} of {_read(int(p[0]), 'comm').strip()}" for pid, p in dead if p]

    def _pids(self) -> list[int]:
        return [pid for pid in _pids() if pid != self.init and self._has(pid)]

    def listening(self) -> set[int]:
        """The TCP ports that somebody listens on here."""
        texts = [_read(self.init, f"net/{name}") for name in ("tcp", "tcp6")]
        assert all(text.lstrip().startswith("sl ") for text in texts), f"{self.name} does not say who listens"
        lines = [line.split() for text in texts for line in text.splitlines()[1:]]
        return {int(line[1].rpartition(":")[2], 16) for line in lines if line[3] == _LISTENS}

    def outer(self, inner: int) -> int | None:
        """Our number of a process that the host knows by its own."""
        return next((process.pid for process in self.processes() if process.inner == inner), None)

    @property
    def _depth(self) -> int:
        """How many numbers a process of this host has: ours, and those of the namespaces between."""
        return len(_status(self.init, "NSpid"))

    def _has(self, pid: int) -> bool:
        wanted = _inode(f"/proc/{self.init}/ns/pid")
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            here = _opened(stack, os.open(f"/proc/{pid}/ns/pid", os.O_RDONLY))
            while os.fstat(here).st_ino != wanted:
                here = _opened(stack, fcntl.ioctl(here, NS_GET_PARENT))  # EPERM above our own namespace
            return True
        return False


@dataclass
class Hosts:
    """Three hosts on a wire."""

    root: Path
    each: list[Host] = field(default_factory=list)
    wire: int = 0
    _holders: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    def __getitem__(self, name: str) -> Host:
        return next(host for host in self.each if host.name == name)

    def link_down(self, host: Host) -> None:
        """Pull its cable."""
        self._on_wire("ip", "link", "set", host.name, "down")

    def link_up(self, host: Host) -> None:
        """Put it back."""
        self._on_wire("ip", "link", "set", host.name, "up")

    def link_is_up(self, host: Host) -> bool:
        """Whether its cable is in."""
        return "state UP" in self._on_wire("ip", "link", "show", host.name)

    def _on_wire(self, *argv: str) -> str:
        argv = ("nsenter", "--target", str(self.wire), "--net", "--", *argv)
        done = subprocess.run(argv, capture_output=True, text=True)
        assert done.returncode == 0, f"{' '.join(argv)}: {done.stderr}"
        return done.stdout

    def build(self) -> None:
        """Make the wire and the hosts."""
        self.wire = self._hold("--net", script=_WIRE)
        names = self.root / "hosts"
        addresses = {name: f"{NETWORK}.{number}" for number, name in enumerate(NAMES, 1)}
        names.write_text("127.0.0.1 localhost\n" + "".join(f"{a} {name}\n" for name, a in addresses.items()))
        for name, address in addresses.items():
            kinds = ("--net", "--pid", "--mount-proc", "--uts", "--ipc")
            init = self._hold(*kinds, script=_HOST, arguments=(name, str(names)))
            directory = self.root / name[-1]
            directory.mkdir(mode=0o755)
            self._connect(name, address, init)
            self.each.append(Host(name, address, init, directory))

    def _connect(self, name: str, address: str, init: int) -> None:
        self._on_wire("ip", "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", str(init))
        self._on_wire("ip", "link", "set", name, "master", "wire", "up")
        for command in (f"ip addr add {address}/24 dev eth0", "ip link set eth0 up"):
            inside = ["nsenter", "--target", str(init), "--net", "--", *command.split()]
            done = subprocess.run(inside, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr

    def _hold(self, *kinds: str, script: str, arguments: tuple[str, ...] = ()) -> int:
        """Start a process that holds namespaces until our pipe to it closes; its number."""
        argv = ["unshare", *kinds, "--fork", "--kill-child", "--", "bash", "-euc", script, "host", *arguments]
        holder = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
        self._holders.append(holder)
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"ready\n", f"no namespaces: {argv[:4]}"
        held = _only_child(holder)
        assert held is not None
        return held

    def tear_down(self) -> None:
        """End all of it."""
        for holder in reversed(self._holders):
            holder.communicate(timeout=END_S)  # closes the pipe
        for running in (running for host in self.each for running in host.started):
            running.end()
        self._holders.clear()


@contextlib.contextmanager
def three_hosts() -> Iterator[Hosts]:
    """The hosts, on a directory of their own; nothing is left of them, which is looked at."""
    root = Path(tempfile.mkdtemp(prefix="dc-", dir="/tmp"))  # short: Ray's sockets lie below
    root.chmod(0o755)
    hosts = Hosts(root)
    try:
        hosts.build()
        inodes = {_inode(f"/proc/{host.init}/ns/{kind}") for host in hosts.each for kind in ("pid", "net", "mnt")}
        yield hosts
    finally:
        hosts.tear_down()
        remove(root)
    assert left(root, inodes) == []


def remove(root: Path) -> None:
    """Remove a directory, read-only parts included."""
    shutil.rmtree(root, ignore_errors=True)
    for path in sorted(root.rglob("*")) if root.exists() else ():
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o700)
    shutil.rmtree(root, ignore_errors=True)


def left(root: Path, inodes: set[int]) -> list[str]:
    """What is left of hosts: processes in their namespaces or with their directory, mounts, the directory."""
    give_up_at = time.monotonic() + END_S
    while found := [*_processes_left(root, inodes), *_mounts_left(root)]:
        if time.monotonic() > give_up_at:
            break
        time.sleep(0.1)
    return found + ([str(root)] if root.exists() else [])


def _processes_left(root: Path, inodes: set[int]) -> Iterator[str]:
    for pid in _pids():
        spaces = {_inode(f"/proc/{pid}/ns/{kind}") for kind in ("pid", "net", "mnt")}
        argv = _read(pid, "cmdline").replace("\0", " ")
        if pid != os.getpid() and (spaces & inodes or f"{root}/" in argv):
            yield f"{pid} {argv[:120]}"


def _mounts_left(root: Path) -> list[str]:
    return [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if f"{root}/" in line]


# --- what the kernel says ---


def _only_child(parent: "subprocess.Popen[bytes]") -> int | None:
    """Its child, None when it has ended."""
    while parent.poll() is None:
        if children := _read(parent.pid, f"task/{parent.pid}/children").split():
            return int(children[0])
        time.sleep(0.005)
    return None


def _process(pid: int, depth: int) -> Process | None:
    numbers = _status(pid, "NSpid")
    if len(numbers) < depth:
        return None
    argv = _read(pid, "cmdline").replace("\0", " ").strip()
    return Process(pid, int(numbers[depth - 1]), argv, _read(pid, "comm").strip())


def _state(pid: int) -> str:
    """One letter; X, as of one that is dead, where there is no such process."""
    return next(iter(_status(pid, "State")), "X")


def _status(pid: int, key: str) -> list[str]:
    for line in _read(pid, "status").splitlines():
        name, _, value = line.partition(":")
        if name == key:
            return value.split()
    return []


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]


def _read(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_text(errors="replace")
    except OSError:
        return ""


def _inode(path: str) -> int:
    try:
        return os.stat(path).st_ino
    except OSError:
        return -1


def _opened(stack: contextlib.ExitStack, descriptor: int) -> int:
    stack.callback(os.close, descriptor)
    return descriptor
