"""The parts of a running local GitHub, held together; and its log of requests."""

import itertools
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from ci_bot.local_github.api import Api
from ci_bot.local_github.contents import Archives
from ci_bot.local_github.faults import Faults
from ci_bot.local_github.limits import Limits
from ci_bot.local_github.state import Json, World
from ci_bot.local_github.webhooks import Courier

LOG_LENGTH = 20_000


class Journal:
    """Every request to the API and to the archive host, in the order in which they were answered."""

    def __init__(self) -> None:
        """Start empty."""
        self._entries: deque[Json] = deque(maxlen=LOG_LENGTH)
        self._ids = itertools.count(1)
        self._lock = threading.Lock()

    def add(self, entry: Json) -> None:
        """Write an entry; it gets the next id."""
        with self._lock:
            self._entries.append({"id": next(self._ids), **entry})

    def since(self, number: int) -> list[Json]:
        """The entries after an id."""
        with self._lock:
            return [entry for entry in self._entries if entry["id"] > number]


class Hub:
    """What the routes work on."""

    def __init__(self, root: Path, url: str, control_token: str, clock: Callable[[], float] = time.time) -> None:
        """Build the parts.

        Args:
            root: directory of the bare repositories.
            url: address under which the server is reached, without a slash at the end.
            control_token: what `/_local` asks for.
            clock: gives the present time in seconds.
        """
        self.world = World(root, url, clock)
        self.pushing = threading.Lock()
        """Pushes come one after the other; taken before the world's lock, never after it."""
        self.limits = Limits()
        self.faults = Faults()
        self.journal = Journal()
        self.api = Api(self.world, self.limits)
        self.archives = Archives(self.world)
        self.courier = Courier(self.world, self.faults)
        self.control_token = control_token
        # the hooks of the repositories have a token that opens nothing else
        self.hook_token = secrets.token_hex(20)
