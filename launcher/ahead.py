"""Makes ahead of need what the next attempt would wait for, in a thread of its own."""

import logging
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from launcher.disk_room import DiskRoom
from launcher.preparation import Site, make_ahead

log = logging.getLogger(__name__)


class Ahead:
    """The tree of a commit, and an environment; where they can't be made, the next attempt says why it can't."""

    def __init__(self, room: DiskRoom, site: Site) -> None:
        self._room, self._site = room, site
        self._thread = ThreadPoolExecutor(1, "ahead")

    def after(self, code_key: str) -> None:
        """Begin, now that an attempt has gone that had taken them."""
        with suppress(RuntimeError):  # closed: nobody will come
            self._thread.submit(self._make, code_key)

    def close(self) -> None:
        """Finish what was begun, and begin nothing more."""
        self._thread.shutdown(cancel_futures=True)

    def _make(self, code_key: str) -> None:
        try:
            self._room.make_ahead(code_key)
            make_ahead(self._site)
        except Exception as error:
            log.warning("nothing was made ahead of need: %s", error)
