"""The guardians of a host's attempts: started, asked, ended, and each kept alive by its lease while the agent lives."""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from launcher import guardian_client, recorded
from launcher.fork_server import ForkServer
from launcher.guardian_client import GuardianError, Hold, Order
from launcher.node_types import Clean, NodeStatus

FAREWELL_S = 1.0
_STOPPED_AT_ONCE = 64


class Guardians:
    """Those below one directory of attempts. One whose lease nobody holds ends its tree after a while."""

    def __init__(self, attempts: Path, cluster_id: str, changed: Callable[[], None]) -> None:
        """Hold no lease yet.

        Args:
            attempts: the directory of all attempts, by their keys.
            cluster_id: the cluster whose attempts are held; those of one before it are to end.
            changed: called, from any thread, when a guardian has ended.
        """
        self._attempts, self._cluster_id, self._changed = attempts, cluster_id, changed
        self._server = ForkServer()
        self._lock = threading.Lock()
        self._holds: dict[str, Hold] = {}

    def spawn(self, key: str, order: Order) -> None:
        """Start an attempt's guardian.

        Raises:
            GuardianError: it could not begin.
        """
        attempt = self._attempts / key
        try:
            guardian_client.spawn(attempt, order, self._server)
        except GuardianError:
            if guardian_client.find(attempt) is None and not recorded.begun(attempt):
                raise
            # a predecessor died while it spawned this one

    def hold(self, key: str) -> None:
        """Keep the lease of an attempt's guardian, if it lives, and hear of its end; once more is no harm.

        Not of another cluster's: whose head is gone must end, and would not if the agents of the next one kept it.
        """
        if key in self._holds or not recorded.is_of(self._attempts / key, self._cluster_id):
            return
        try:
            hold = guardian_client.hold(self._attempts / key, lambda _: self._changed())
        except GuardianError:
            return  # it lives and does not listen: `status` tries again
        if hold is None:
            return
        with self._lock:
            spare = hold if key in self._holds else None
            self._holds.setdefault(key, hold)
        if spare is not None:
            spare.close()

    def status(self, key: str) -> NodeStatus:
        """Where an attempt stands, by its guardian or by what that left."""
        attempt, found = self._attempts / key, None
        if guardian_client.exit_of(attempt) is None:
            try:
                found = guardian_client.find(attempt)
            except GuardianError:
                return NodeStatus("running")  # it lives and is busy; `stop` is the one that insists
        if found is None:
            return recorded.unguarded(attempt)
        self.hold(key)
        return NodeStatus(
            "running", log_size=found.log_size, memory_bytes=found.memory_bytes, started_at=found.started_at
        )

    def stop(self, key: str, grace_s: float) -> None:
        """SIGTERM to all processes of an attempt, SIGKILL after the grace; returns at once."""
        attempt = self._attempts / key
        try:
            guardian_client.stop(attempt, grace_s)
        except GuardianError:
            guardian_client.purge(attempt, key)  # it hangs; nobody else would end its tree
            self._changed()

    def stop_all(self, keys: Sequence[str], grace_s: float) -> None:
        """Stop the attempts of this cluster among these.

        All at once, since each one that hangs takes its time; one that can't be stopped keeps none of the others.

        Raises:
            ExceptionGroup: some could not be.
        """
        with ThreadPoolExecutor(_STOPPED_AT_ONCE, thread_name_prefix="stop") as pool:
            stopped = [pool.submit(self._stop_ours, key, grace_s) for key in keys]
        failed = [error for each in stopped if isinstance(error := each.exception(), Exception)]
        if failed:
            raise ExceptionGroup("not every attempt could be stopped", failed)

    def _stop_ours(self, key: str, grace_s: float) -> None:
        if recorded.is_of(self._attempts / key, self._cluster_id):
            self.stop(key, grace_s)

    def purge(self, key: str) -> Clean:
        """End what is left of an attempt whose command does not run any more."""
        hold = self._holds.get(key)
        if hold is not None:
            hold.wait(FAREWELL_S)  # the guardian goes right after its record
        empty, left = guardian_client.purge(self._attempts / key, key)
        if not empty:
            return Clean(empty=False, left=tuple(left))
        with self._lock:
            hold = self._holds.pop(key, None)
        if hold is not None:
            hold.close()
        return Clean(empty=True)

    def close(self) -> None:
        """Let go of all leases: each guardian ends its tree after its own, unless a successor takes it up."""
        self._server.close()
        with self._lock:
            holds, self._holds = self._holds, {}
        for hold in holds.values():
            hold.close()


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
