"""What an agent does on its host: prepare, start, watch, read and clear attempts. Knows nothing of Ray.

Every method may be repeated, from any thread and, after a restart, by the agent's successor: what counts is on disk.
"""

import errno
import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from launcher import guardian_client, harvest, node_root, recorded, trees
from launcher.ahead import Ahead
from launcher.disk_room import FULL_BYTES as FULL_BYTES
from launcher.disk_room import ROOM_BYTES as ROOM_BYTES
from launcher.disk_room import DiskRoom
from launcher.guardian_client import GuardianError
from launcher.guardians import Guardians
from launcher.guardians import leave as leave
from launcher.launch_door import AskPeer
from launcher.launching import Launching, join
from launcher.locks import locked
from launcher.node_facts import Facts
from launcher.node_types import (
    Artifact,
    Clean,
    Daemon,
    Document,
    Extracted,
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
from launcher.preparation import Site, guardian_order, make_ahead, prepare, prepared, real_uid, write_generated
from launcher.probing import unreached
from launcher.put_back import Place, put_back
from launcher.state import Cause

MAX_PIECE_BYTES = 8 << 20
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
        cluster_id: str = "",
    ) -> None:
        """Find what is there.

        Args:
            root: this node's directory; nobody else writes to it.
            environ: the agent's environment; only `environment.CARRIED` and HOME are used, and Ray's settings told.
            storage_dir: where `/storage` of each repository is, on a file system that all nodes share.
            address: by which other nodes reach this one.
            peer: how to call another node's agent; without it no command here starts anything on other nodes.
            cluster_id: the cluster that this agent serves; an agent of another may work in the same directory.

        Raises:
            NodeError: `root` belongs to somebody else.
        """
        self._root, self._cluster_id = root.absolute(), cluster_id
        self._site = Site(self._root, storage_dir, environ)
        self._locks = self._root / "locks"
        self._attempts = self._root / "attempts"
        node_root.own(self._root)
        self._attempts.mkdir(exist_ok=True)
        trees.scatter(self._attempts)
        with _told():
            root_id = node_root.id_of(self._root)
        with locked(self._locks, "boot", "node"):  # several agents may begin on the same directory at once
            node_root.forget_other_boots(self._root)
            self._room = DiskRoom(self._root, self._locks, self._orders)
        self._ahead = Ahead(self._room, self._site)
        self._facts = Facts(self._site, address=address, root_id=root_id)
        self._changed = threading.Condition()
        self._mark = int(time.time() * 1000)  # goes on rising in the next incarnation
        self._guardians = Guardians(self._attempts, cluster_id, self._bump)
        self._ports = Ports()
        self._launching = Launching(self._attempts, peer, self._bump)
        for key in self.inventory():
            self._launching.take_up(key)
            self._ports.take_again(self._attempts / key)
            self._guardians.hold(key)

    def close(self) -> None:
        """Let go of the guardians: each ends its tree after its lease, unless a successor takes it up. And of ports."""
        self._launching.close()
        self._ports.close()
        self._guardians.close()
        self._ahead.close()

    # --- what this host is -------------------------------------------------------------------------------------------

    def facts(self) -> NodeFacts:
        """What the host is and can do; the first call proves the isolation."""
        return self._facts.told()

    def warm(self) -> None:
        """Do ahead of need what the first attempt would wait for."""
        with _told():
            make_ahead(self._site)
        self.facts()

    # --- code --------------------------------------------------------------------------------------------------------

    def code_offset(self, code_key: str) -> int:
        """How much of the archive the node has; -1 when it has the whole tree."""
        return self._room.code_offset(_name(code_key))

    def put_code(self, code_key: str, offset: int, chunk: bytes, last: bool) -> Extracted | None:
        """The next piece of the archive; what it held, with the last one."""
        with _told():
            return self._room.put_code(_name(code_key), offset, chunk, last)

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
            if recorded.begun(attempt):
                return
            if prepared(attempt) != order:
                self._room.make()
                self._launching.close(key)
                trees.remove(attempt)
                self._ports.release(key)
                prepare(attempt, order, put_code=partial(self._room.take, order.code_key), site=self._site)
            recorded.belong(attempt, self._cluster_id)  # who asks goes on with what a cluster before had prepared
        self._bump()

    def put_artifact(self, key: str, path: str, offset: int, data: bytes, last: bool) -> None:
        """Put back a file of an earlier attempt, piece by piece; with the last one it is there.

        Raises:
            NodeError: it can't be there, the attempt is not prepared, its command has begun, or the disk is full.
        """
        attempt = self._attempt(key)
        with _told(), self._locked(key):
            was = recorded.waiting(attempt)
            self._room.make_for(len(data))
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

    def connect(self, key: str, document: Document, peers: Sequence[Peer]) -> tuple[Unreached, ...]:
        """Keep an attempt's network document for its start; which of its peers this node can't reach, and why.

        Raises:
            NodeError: the attempt is not prepared, or its command has begun.
        """
        attempt = self._attempt(key)
        with _told():
            with self._locked(key):
                recorded.tell(attempt, document)
            return unreached(peers)

    def start(self, key: str, order: StartOrder) -> None:
        """Start an attempt's command; one that runs, or has ended, is left as it is.

        Raises:
            NodeError: it was not prepared, or told of its gang, could not begin, or its guardian was lost.
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
                document = order.document or recorded.told(attempt)
                order = replace(order, document=document)
                ordered = join(attempt, order, guardian_order(attempt, was, order, self._site))
                write_generated(attempt, document.files)
                self._ports.hand_over(attempt)
                self._launching.open(key)
                self._guardians.spawn(key, ordered)
            self._guardians.hold(key)
        self._bump()

    def launch(self, key: str, launch_id: str, command: str) -> None:
        """Have an attempt's command here, which serves an mpirun elsewhere, start a daemon; the same one only once.

        Raises:
            NodeError: the attempt serves nobody here, or does not run.
        """
        phase = self._guardians.status(_name(key)).phase
        if phase != "running":
            raise NodeError(Cause.DAEMON_LOST, f"its command is {phase}")
        self._launching.order(key, launch_id, command)

    def launched(self, key: str, launch_id: str, timeout_s: float) -> Daemon | None:
        """A daemon here, once it has ended or the time is over; None when it has not begun by then.

        Raises:
            NodeError: the attempt serves nobody here, or ended before the daemon began.
        """
        self._launching.wait(key, launch_id, timeout_s)
        status = self._guardians.status(_name(key))
        daemons = {daemon.id: daemon for daemon in self._launching.daemons(key, status)}
        if launch_id not in daemons and status.phase != "running":
            raise NodeError(Cause.DAEMON_LOST, f"its command is {status.phase}")
        return daemons.get(launch_id)

    def status(self, keys: Sequence[str]) -> dict[str, NodeStatus]:
        """Where attempts stand here."""
        found = {}
        for key in keys:
            self._ports.take_again(self._attempt(key))  # what a predecessor still had when this agent began
            status = self._guardians.status(key)
            daemons, gone = self._launching.daemons(key, status), self._launching.mpirun_gone(key)
            found[key] = replace(status, clock=time.time(), daemons=daemons, mpirun_gone=gone)
        return found

    def watch(self, after: int, timeout_s: float) -> int:
        """Wait until an attempt's phase has changed since the mark `after`, at most for the timeout; the new mark."""
        with self._changed:
            self._changed.wait_for(lambda: self._mark > after, timeout=timeout_s)
            return self._mark

    def stop(self, key: str, grace_s: float) -> None:
        """SIGTERM to all processes of an attempt, SIGKILL after the grace; returns at once."""
        self._guardians.stop(_name(key), grace_s)

    def stop_all(self, grace_s: float) -> None:
        """Stop every attempt of this agent's cluster, from which the node was cut off; not of a cluster after it.

        Raises:
            ExceptionGroup: some could not be.
        """
        self._guardians.stop_all(self.inventory(), grace_s)

    def clean(self, key: str) -> Clean:
        """Prove that no process of an attempt is left, and remove its directory. One that still runs is left alone."""
        attempt = self._attempt(key)
        with _told(), self._locked(key):
            if self._guardians.status(key).phase == "running":
                return Clean(empty=False, left=("its command, which was not stopped",))
            clean = self._guardians.purge(key)
            if not clean.empty:
                return clean
            was = prepared(attempt)
            self._launching.close(key)
            trees.remove(attempt)
            self._ports.release(key)
        self._bump()
        if was is not None:
            self._ahead.after(was.code_key)
        return clean

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

    def _orders(self) -> list[PrepareOrder]:
        """What the attempts here were prepared for."""
        orders = (prepared(self._attempts / key) for key in self.inventory())
        return [order for order in orders if order is not None]


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
