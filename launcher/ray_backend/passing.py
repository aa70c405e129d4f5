"""Ends on a node what a `descent run` left: its reservation went with its process, and nobody comes for the rest.

The fence can't tell, since the cluster lives; the guardians can't, since their agent does.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

from launcher.group_names import group_of, is_passing
from launcher.node_types import Clean, NodeError

log = logging.getLogger(__name__)
PERIOD_S = 2.0
OWNERLESS_S = 10.0
"""How long its owner gets to see the reservation gone, and to take with it what the command left."""
GRACE_S = 5.0


class Keeper(Protocol):
    """Who has the attempts of a node."""

    def inventory(self) -> list[str]:
        """The attempts that have anything here."""

    def stop(self, key: str, grace_s: float) -> None:
        """End an attempt's processes."""

    def clean(self, key: str) -> Clean:
        """Prove it empty, and remove what it had."""


@dataclass
class Passing:
    """Watches the attempts that go with their owner, from a thread of its own.

    `gone` says which of these groups are there no more; none where the cluster does not say.
    """

    node: Keeper
    gone: Callable[[Iterable[str]], set[str]]
    _since: dict[str, float] = field(default_factory=dict)

    def start(self) -> None:
        """Begin to watch; the thread ends with the process."""
        threading.Thread(target=self._run, name="passing", daemon=True).start()

    def _run(self) -> None:
        while True:
            try:
                self.look(time.monotonic())
            except Exception:  # the next round tries again: nobody else does
                log.exception("what nobody owns could not be ended")
            time.sleep(PERIOD_S)

    def look(self, now: float) -> None:
        """End what has been without a reservation for long enough."""
        here = [key for key in self.node.inventory() if is_passing(key)]
        gone = self.gone({group_of(key) for key in here}) if here else set()
        self._since = {key: self._since.get(key, now) for key in here if group_of(key) in gone}
        for key, since in self._since.items():
            if now - since >= OWNERLESS_S:
                self._end(key)

    def _end(self, key: str) -> None:
        try:
            self.node.stop(key, GRACE_S)
            self.node.clean(key)  # refused as long as it ends; the next round asks again
        except NodeError as error:
            log.warning("%s could not be cleared: %s", key, error)
