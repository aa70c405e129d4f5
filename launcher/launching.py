"""The node's side of an MPI launch: a socket per attempt, by which its sandbox has daemons started, or is told to.

Whoever connects is the user's code, or beside it, so that nothing it says is trusted: an attempt reaches the nodes of
its own gang, and no other. The node never connects to anything that is inside.
"""

import json
import os
import shutil
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

from launcher import mpi
from launcher.daemons import Daemons, ended_with_the_node, mpirun_gone, recorded
from launcher.guardian import durable
from launcher.guardian_order import Order
from launcher.launch_door import AskPeer, Door
from launcher.node_types import Daemon, Launch, LaunchPeer, NodeError, NodeStatus, StartOrder
from launcher.sandbox import Mount
from launcher.state import Cause

LAUNCH = "launch.json"
PLACE = "launch"
NETWORK_DEVICES = "/sys/class/net"
VIRTUAL_DEVICES = "/sys/devices/virtual/net"


def place(attempt: Path) -> Path:
    """An attempt's launch directory: bound read-only into the sandbox, so that the socket in it can be replaced."""
    return attempt / PLACE


def join(attempt: Path, order: StartOrder, ordered: Order) -> Order:
    """Let a command take part in an MPI launch, if it is to.

    Args:
        attempt: the attempt's directory, which gets a launch directory.
        order: what the agent was told.
        ordered: what its guardian would be told without.

    Returns:
        What its guardian is to be told.
    """
    if order.launch is None:
        return ordered
    seen, generated = mpi.DIRECTORY, mpi.GENERATED
    if ordered.sandbox is None:
        seen, generated = str(place(attempt)), str(attempt / "generated")
    name = order.document.hostname if order.document else ""
    furnish(attempt, name or attempt.name, order.launch, seen=seen)
    env = mpi.variables(seen, ordered.env, generated)
    command = ordered.command
    if order.launch.serves:
        command, env = mpi.serving(seen, command, env)
    box = ordered.sandbox
    if box is not None:
        box = replace(box, mounts=(*box.mounts, Mount(str(place(attempt)), seen), *_network_devices()))
    return replace(ordered, command=command, env=env, sandbox=box)


def _network_devices() -> tuple[Mount, ...]:
    """The host's network interfaces: UCX, by which MPICH goes over the network, finds them there and nowhere else."""
    try:
        found = [os.path.realpath(entry.path) for entry in os.scandir(NETWORK_DEVICES) if entry.is_symlink()]
    except OSError:
        return ()  # no /sys here
    # Virtual ones come and go, so that only their directory is sure to be there when it is mounted.
    places = {VIRTUAL_DEVICES if path.startswith(f"{VIRTUAL_DEVICES}/") else path for path in found}
    return tuple(Mount(path, path) for path in (NETWORK_DEVICES, *sorted(places)))


def furnish(attempt: Path, name: str, launch: Launch, *, seen: str) -> None:
    """Put everything into an attempt's launch directory but the socket, and keep the order for a successor.

    Args:
        attempt: the attempt's directory.
        name: the node's host name inside the gang.
        launch: how it takes part.
        seen: the launch directory as the command sees it.
    """
    directory = place(attempt)
    programs = directory / mpi.PROGRAMS
    for made in (directory, programs, directory / mpi.SHIMS):
        made.mkdir(exist_ok=True)
        made.chmod(0o755)
    for source in Path(mpi.__file__).parent.glob("*.py"):
        shutil.copyfile(source, programs / source.name)
        (programs / source.name).chmod(0o644)
    for path, text in mpi.scripts(seen, os.path.realpath(sys.executable)).items():
        (directory / path).write_text(text)
        (directory / path).chmod(0o755)
    durable.write(str(attempt / LAUNCH), json.dumps({"name": name, **asdict(launch)}).encode())


def furnished(attempt: Path) -> tuple[str, Launch] | None:
    """The node's name and how it takes part; None where it takes no part in an MPI launch."""
    try:
        found = json.loads((attempt / LAUNCH).read_bytes())
    except FileNotFoundError:
        return None
    peers = {name: LaunchPeer(**peer) for name, peer in found["peers"].items()}
    return found["name"], Launch(serves=found["serves"], peers=peers)


class Launching:
    """The doors of all attempts on one node that take part in an MPI launch."""

    def __init__(self, attempts: Path, peer: AskPeer | None, changed: Callable[[], None]) -> None:
        self._attempts, self._peer, self._changed = attempts, peer, changed
        self._doors: dict[str, Door] = {}
        self._lock = threading.Lock()

    def open(self, key: str) -> None:
        """Listen for an attempt, if it takes part; once more is no harm."""
        with self._lock:
            attempt = self._attempts / key
            known = furnished(attempt)
            if known is not None and key not in self._doors:
                name, launch = known
                daemons = Daemons(attempt, self._changed)
                self._doors[key] = Door(place(attempt), name, launch, daemons=daemons, peer=self._peer)

    def take_up(self, key: str) -> None:
        """Listen for an attempt of a predecessor's, which may have been half removed when that went."""
        with suppress(OSError):
            self.open(key)

    def close(self, key: str | None = None) -> None:
        """Stop listening for an attempt, or for all."""
        with self._lock:
            keys = list(self._doors) if key is None else [key]
            doors = [self._doors.pop(each) for each in keys if each in self._doors]
        for door in doors:
            door.close()

    def order(self, key: str, launch_id: str, command: str) -> None:
        """Have the main process of an attempt here start a daemon.

        Raises:
            NodeError: the attempt serves nobody, or it can't be.
        """
        door = self._serving(key)
        if door.daemons.order(launch_id, command):
            door.wake()

    def wait(self, key: str, launch_id: str, timeout_s: float) -> Daemon | None:
        """A daemon here, once it has ended or the time is over; None when it has not begun by then.

        Raises:
            NodeError: the attempt serves nobody.
        """
        return self._serving(key).daemons.wait(launch_id, timeout_s)

    def daemons(self, key: str, status: NodeStatus) -> tuple[Daemon, ...]:
        """The daemons of an attempt here, given where its main process stands."""
        with self._lock:
            door = self._doors.get(key)
        begun = door.daemons.all() if door is not None else tuple(recorded(self._attempts / key).values())
        if not begun or status.phase == "running":
            return begun
        return ended_with_the_node(begun, status.exit.at if status.exit is not None else None)

    def mpirun_gone(self, key: str) -> dict[str, float]:
        """When the mpirun of daemons that were launched from here had gone before their end was known, by their ids."""
        with self._lock:
            door = self._doors.get(key)
        return door.daemons.mpirun_gone if door is not None else mpirun_gone(self._attempts / key)

    def _serving(self, key: str) -> Door:
        with self._lock:
            door = self._doors.get(key)
        if door is None or not door.launch.serves:
            raise NodeError(Cause.DAEMON_LOST, "nothing there waits for an mpirun")
        return door
