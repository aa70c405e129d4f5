"""What an agent does on its host: prepare, start, watch, read and clear attempts. Knows nothing of Ray.

Every method may be repeated, from any thread and, after a restart, by the agent's successor: what counts is on disk.
"""

import errno
import os
import re
import shutil
import socket
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from launcher import environment, guardian_client, harvest, node_root, ray_environment, recorded, sandbox, trees
from launcher.code_cache import CodeCache
from launcher.guardian_client import GuardianError, Hold, Order
from launcher.launch_door import AskPeer
from launcher.launching import Launching, join
from launcher.locks import locked
from launcher.node_types import (
    Artifact,
    Clean,
    Daemon,
    Extracted,
    Isolation,
    LogChunk,
    NodeError,
    NodeFacts,
    NodeStatus,
    Peer,
    PrepareOrder,
    StartOrder,
    Unreached,
)
from launcher.ports import Ports
from launcher.preparation import Site, guardian_order, prepare, prepared, real_uid, write_generated
from launcher.probing import unreached
from launcher.put_back import Place, put_back
from launcher.state import Cause

MAX_PIECE_BYTES = 8 << 20
ROOM_BYTES = 2 << 30
"""With less left on the disk, caches are given up."""
FULL_BYTES = 512 << 20
"""With less left, nothing new is prepared: a guardian would end it at once."""
FAREWELL_S = 1.0
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,199}")


class Node:
    """One host's attempts, below `root`. On its own start it takes up what its predecessor left running."""

    def __init__(
        self,
        root: Path,
        *,
        environ: Mapping[str, str],
        storage_dir: Path | None = None,
        address: str = "",
        peer: AskPeer | None = None,
    ) -> None:
        """Find what is there.

        Args:
            root: this node's directory; nobody else writes to it.
            environ: the agent's environment; only `environment.CARRIED` and HOME are used, and Ray's settings told.
            storage_dir: where `/storage` of each repository is, on a file system that all nodes share.
            address: by which other nodes reach this one.
            peer: how to call another node's agent; without it no command here starts anything on other nodes.

        Raises:
            NodeError: `root` belongs to somebody else.
        """
        self._root = root.absolute()
        self._site = Site(self._root, storage_dir, environ)
        self._address = address
        self._incarnation = uuid.uuid4().hex
        self._locks = self._root / "locks"
        self._attempts = self._root / "attempts"
        node_root.own(self._root)
        self._attempts.mkdir(exist_ok=True)
        with _told():
            self._id = node_root.id_of(self._root)
        node_root.forget_other_boots(self._root)
        self._code = CodeCache(self._root / "code", self._locks)
        self._changed = threading.Condition()
        self._mark = int(time.time() * 1000)  # goes on rising in the next incarnation
        self._holds: dict[str, Hold] = {}
        self._ports = Ports()
        self._launching = Launching(self._attempts, peer, self._bump)
        for key in self.inventory():
            self._launching.take_up(key)
            self._ports.take_again(self._attempts / key)
            self._hold(key)

    def close(self) -> None:
        """Let go of the guardians: each ends its tree after its lease, unless a successor takes it up. And of ports."""
        self._launching.close()
        self._ports.close()
        with self._changed:
            holds, self._holds = self._holds, {}
        for hold in holds.values():
            hold.close()

    # --- what this host is -------------------------------------------------------------------------------------------

    def facts(self) -> NodeFacts:
        """What the host is and can do; the first call proves the isolation."""
        isolation, why = self._isolation
        return NodeFacts(
            host=socket.gethostname(),
            address=self._address,
            incarnation=self._incarnation,
            isolation=isolation,
            isolation_why=why,
            pid=os.getpid(),
            free_disk_bytes=self._free_bytes(),
            memory_total_bytes=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
            root_id=self._id,
            niceness=os.getpriority(os.PRIO_PROCESS, 0),
            oom_score_adj=int(Path("/proc/self/oom_score_adj").read_text()),
            ray=ray_environment.started_with(self._site.environ),
        )

    @cached_property
    def _isolation(self) -> tuple[Isolation, str]:
        for system in sandbox.SYSTEM:
            if self._root.is_relative_to(system):
                return "none", f"{self._root} is below {system}, which every command can read; move it"
        capability = sandbox.probe(below=self._root)
        return ("bubblewrap", "") if capability.ok else ("none", capability.why)

    def warm(self) -> None:
        """Do ahead of need what the first attempt would wait for."""
        with _told():
            environment.warm(environment.base_python(), self._root / "seed", self._site.environ)
        self.facts()

    def _free_bytes(self) -> int:
        return shutil.disk_usage(self._root).free

    # --- code --------------------------------------------------------------------------------------------------------

    def code_offset(self, code_key: str) -> int:
        """How much of the archive the node has; -1 when it has the whole tree."""
        return self._code.offset(_name(code_key))

    def put_code(self, code_key: str, offset: int, chunk: bytes, last: bool) -> Extracted | None:
        """The next piece of the archive; what it held, with the last one."""
        with _told():
            extracted = self._code.put(_name(code_key), offset, chunk, last)
            if extracted is not None:
                self._code.evict(self._code_in_use() | {code_key})
            return extracted

    def _code_in_use(self) -> set[str]:
        orders = (prepared(self._attempts / key) for key in self.inventory())
        return {order.code_key for order in orders if order is not None}

    # --- one attempt's life ------------------------------------------------------------------------------------------

    def prepare(self, key: str, order: PrepareOrder) -> None:
        """Make an attempt's directories, workspace and environment.

        Raises:
            NodeError: it can't be done here; says why.
        """
        attempt = self._attempt(key)
        for name in (order.code_key, order.storage_key):
            _name(name)
        with _told(), self._locked(key):
            if recorded.begun(attempt) or prepared(attempt) == order:
                return
            self._make_room()
            self._launching.close(key)
            trees.remove(attempt)
            self._ports.release(key)
            with self._code.tree(order.code_key) as tree:
                prepare(attempt, order, code=tree, site=self._site)
        self._bump()

    def put_artifact(self, key: str, path: str, offset: int, data: bytes, last: bool) -> None:
        """Put back a file of an earlier attempt, piece by piece; with the last one it is there.

        Raises:
            NodeError: it can't be there, the attempt is not prepared, or its command has begun.
        """
        attempt = self._attempt(key)
        with _told(), self._locked(key):
            was = recorded.waiting(attempt)
            place = Place(attempt / "artifacts", attempt / "returning", real_uid(key, was))
            put_back(place, path, offset=offset, data=data, last=last)

    def reserve_ports(self, key: str, names: Sequence[str]) -> dict[str, int]:
        """A port of this host for each name, kept for the attempt until it is cleared; peers can try them.

        Raises:
            NodeError: the attempt is not prepared, or no port is free.
        """
        attempt = self._attempt(key)
        with _told(), self._locked(key):
            if prepared(attempt) is None:
                raise NodeError(Cause.PREPARATION_FAILED, f"{key} was not prepared")
            return self._ports.reserve(attempt, names)

    def connect(self, key: str, peers: Sequence[Peer]) -> tuple[Unreached, ...]:
        """Which peers of an attempt this node can't reach, and why."""
        _name(key)
        with _told():
            return unreached(peers)

    def start(self, key: str, order: StartOrder) -> None:
        """Start an attempt's command; one that runs, or has ended, is left as it is.

        Raises:
            NodeError: it was not prepared, could not begin, or its guardian was lost.
        """
        attempt = self._attempt(key)
        with _told(), self._locked(key):
            if guardian_client.exit_of(attempt) is not None:
                return
            if guardian_client.find(attempt) is None:
                if recorded.begun(attempt):
                    raise NodeError(Cause.GUARDIAN_LOST, "the process that watches the command was lost")
                was = prepared(attempt)
                if was is None or was.isolation != order.isolation:
                    raise NodeError(Cause.PREPARATION_FAILED, f"{key} was not prepared for isolation {order.isolation}")
                ordered = join(attempt, order, guardian_order(attempt, was, order, self._site))
                write_generated(attempt, order.files)
                self._ports.hand_over(attempt)
                self._launching.open(key)
                self._spawn(attempt, ordered)
            self._hold(key)
        self._bump()

    def launch(self, key: str, launch_id: str, command: str) -> None:
        """Have an attempt's command here, which serves an mpirun elsewhere, start a daemon; the same one only once.

        Raises:
            NodeError: the attempt serves nobody here, or does not run.
        """
        phase = self._status(self._attempt(key)).phase
        if phase != "running":
            raise NodeError(Cause.DAEMON_LOST, f"its command is {phase}")
        self._launching.order(key, launch_id, command)

    def launched(self, key: str, launch_id: str, timeout_s: float) -> Daemon | None:
        """A daemon here, once it has ended or the time is over; None when it has not begun by then.

        Raises:
            NodeError: the attempt serves nobody here, or ended before the daemon began.
        """
        self._launching.wait(key, launch_id, timeout_s)
        status = self._status(self._attempt(key))
        daemons = {daemon.id: daemon for daemon in self._launching.daemons(key, status)}
        if launch_id not in daemons and status.phase != "running":
            raise NodeError(Cause.DAEMON_LOST, f"its command is {status.phase}")
        return daemons.get(launch_id)

    def _spawn(self, attempt: Path, order: Order) -> None:
        try:
            guardian_client.spawn(attempt, order)
        except GuardianError:
            if guardian_client.find(attempt) is None and not recorded.begun(attempt):
                raise
            # a predecessor died while it spawned this one

    def status(self, keys: Sequence[str]) -> dict[str, NodeStatus]:
        """Where attempts stand here."""
        found = {}
        for key in keys:
            attempt = self._attempt(key)
            self._ports.take_again(attempt)  # what a predecessor still had when this agent began
            status = self._status(attempt)
            found[key] = replace(status, clock=time.time(), daemons=self._launching.daemons(key, status))
        return found

    def _status(self, attempt: Path) -> NodeStatus:
        found = None
        if guardian_client.exit_of(attempt) is None:
            try:
                found = guardian_client.find(attempt)
            except GuardianError:
                return NodeStatus("running")  # it lives and is busy; `stop` is the one that insists
        if found is not None:
            self._hold(attempt.name)
            return NodeStatus(
                "running", log_size=found.log_size, memory_bytes=found.memory_bytes, started_at=found.started_at
            )
        return recorded.unguarded(attempt)

    def watch(self, after: int, timeout_s: float) -> int:
        """Wait until an attempt's phase has changed since the mark `after`, at most for the timeout; the new mark."""
        with self._changed:
            self._changed.wait_for(lambda: self._mark > after, timeout=timeout_s)
            return self._mark

    def stop(self, key: str, grace_s: float) -> None:
        """SIGTERM to all processes of an attempt, SIGKILL after the grace; returns at once."""
        attempt = self._attempt(key)
        try:
            guardian_client.stop(attempt, grace_s)
        except GuardianError:
            guardian_client.purge(attempt, key)  # it hangs; nobody else would end its tree
            self._bump()

    def stop_all(self, grace_s: float) -> None:
        """Stop every attempt: this node was cut off from its cluster."""
        for key in self.inventory():
            self.stop(key, grace_s)

    def clean(self, key: str) -> Clean:
        """Prove that no process of an attempt is left, and remove its directory. One that still runs is left alone."""
        attempt = self._attempt(key)
        with _told(), self._locked(key):
            if self._status(attempt).phase == "running":
                return Clean(empty=False, left=("its command, which was not stopped",))
            hold = self._holds.get(key)
            if hold is not None:
                hold.wait(FAREWELL_S)  # the guardian goes right after its record
            empty, left = guardian_client.purge(attempt, key)
            if not empty:
                return Clean(empty=False, left=tuple(left))
            with self._changed:
                hold = self._holds.pop(key, None)
            if hold is not None:
                hold.close()
            self._launching.close(key)
            trees.remove(attempt)
            self._ports.release(key)
        self._bump()
        return Clean(empty=True)

    def inventory(self) -> list[str]:
        """The attempts that have anything here."""
        return sorted(path.name for path in self._attempts.iterdir())

    # --- what a command left -----------------------------------------------------------------------------------------

    def read_log(self, key: str, offset: int, limit: int) -> LogChunk:
        """A piece of an attempt's log, at most `limit` bytes; `final` once it has ended and nothing follows."""
        attempt = self._attempt(key)
        ended = guardian_client.exit_of(attempt) is not None  # asked first: what it wrote before is then here
        chunk = recorded.log(attempt).read(offset, min(limit, MAX_PIECE_BYTES))
        final = ended and chunk.next_offset >= chunk.size
        return LogChunk(chunk.offset, chunk.data, chunk.next_offset, chunk.size, final)

    def artifacts(self, key: str) -> list[Artifact]:
        """The files that an attempt left to be kept."""
        return harvest.artifacts(self._attempt(key) / "artifacts")

    def read_artifact(self, key: str, path: str, offset: int, limit: int) -> bytes:
        """A piece of an artifact; empty at its end."""
        return harvest.read(self._attempt(key) / "artifacts", path, offset, min(limit, MAX_PIECE_BYTES))

    # ---------------------------------------------------------------------------------------------------------------

    def _attempt(self, key: str) -> Path:
        return self._attempts / _name(key)

    @contextmanager
    def _locked(self, key: str) -> Iterator[None]:
        with locked(self._locks, "attempt", key):
            yield

    def _bump(self) -> None:
        with self._changed:
            self._mark += 1
            self._changed.notify_all()

    def _hold(self, key: str) -> None:
        """Keep the lease of an attempt's guardian, if it lives, and hear of its end."""
        if key in self._holds:
            return
        try:
            hold = guardian_client.hold(self._attempts / key, lambda _: self._bump())
        except GuardianError:
            return  # it lives and does not listen: `status` tries again
        if hold is None:
            return
        with self._changed:
            spare = hold if key in self._holds else None
            self._holds.setdefault(key, hold)
        if spare is not None:
            spare.close()

    def _make_room(self) -> None:
        """Give up caches where the disk is nearly full.

        Raises:
            NodeError: it is full nevertheless.
        """
        if self._free_bytes() >= ROOM_BYTES:
            return
        self._code.evict(self._code_in_use(), everything=True)
        orders = (prepared(self._attempts / key) for key in self.inventory())
        in_use = {order.storage_key for order in orders if order is not None}
        caches = self._root / "caches"
        for cache in sorted(caches.glob("*"), key=lambda path: path.stat().st_mtime):
            if self._free_bytes() < ROOM_BYTES and cache.name not in in_use:
                trees.remove(cache)
        if self._free_bytes() < FULL_BYTES:
            raise NodeError(Cause.DISK_FULL, f"{self._free_bytes()} bytes are left")


def leave(root: Path, grace_s: float) -> None:
    """End every attempt below a node's directory, whose agent has ended for good; the records of it stay."""
    guarded = [path for path in (root / "attempts").glob("*") if guardian_client.exit_of(path) is None]
    for attempt in guarded:
        with suppress(GuardianError):
            guardian_client.stop(attempt, grace_s)
    until = time.monotonic() + grace_s + FAREWELL_S
    while time.monotonic() < until and any(guardian_client.exit_of(attempt) is None for attempt in guarded):
        time.sleep(0.05)
    for attempt in guarded:
        guardian_client.purge(attempt, attempt.name)


def _name(text: str) -> str:
    """The name of one directory of ours, and no path."""
    if not NAME.fullmatch(text):
        raise NodeError(Cause.PREPARATION_FAILED, f"{text!r} is no key: letters, digits, - and _ are wanted")
    return text


@contextmanager
def _told() -> Iterator[None]:
    """Turn what the machine says into what a person is told."""
    try:
        yield
    except OSError as error:
        cause = Cause.DISK_FULL if error.errno in {errno.ENOSPC, errno.EDQUOT} else Cause.PREPARATION_FAILED
        raise NodeError(cause, str(error)) from error
    except GuardianError as error:
        raise NodeError(Cause.PREPARATION_FAILED, str(error)) from error
