"""The log of one node on its way from there to where it is kept, piece by piece."""

import asyncio
import threading

from launcher.backend import AgentClient
from launcher.guardian.segments import Segments

PIECE_BYTES = 4 << 20


class LogCopy:
    """Takes every byte once, also when a piece that was given up is still being written while the next one comes."""

    def __init__(self, kept: Segments) -> None:
        self._kept = kept
        self._lock = threading.Lock()
        self._closed = False

    async def pull(self, agent: AgentClient, key: str) -> int:
        """Move the next piece; how many bytes it had, 0 when there is nothing new.

        Raises:
            BackendError, NodeError: the node did not give it.
            OSError: it could not be written here.
        """
        chunk = await agent.read_log(key, await asyncio.to_thread(self._size), PIECE_BYTES)
        if chunk.data:
            await asyncio.to_thread(self._put, chunk.offset, chunk.data)
        return len(chunk.data)

    async def pull_rest(self, agent: AgentClient, key: str) -> None:
        """Move all that is left of a log that has ended, and make it durable."""
        while await self.pull(agent, key):
            pass
        await asyncio.to_thread(self._settle)

    def close(self) -> None:
        """Let go of the file; a piece that is still on its way is not taken."""
        with self._lock:
            self._closed = True
            self._kept.close()

    def _size(self) -> int:
        with self._lock:
            return self._kept.size

    def _put(self, offset: int, data: bytes) -> None:
        with self._lock:
            if not self._closed:
                self._kept.put(offset, data)  # what is there already is skipped

    def _settle(self) -> None:
        with self._lock:
            self._kept.close()
