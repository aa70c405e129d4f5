"""A node's agent as the worker sees it: every method is one request, with the time that it may take."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

from launcher.group_names import is_passing
from launcher.node_types import (
    Artifact,
    Clean,
    Document,
    Extracted,
    LogChunk,
    NodeFacts,
    NodeStatus,
    Peer,
    PrepareOrder,
    StartOrder,
    Unreached,
)

ANSWER_S = 30.0
PREPARE_S = 900.0


@dataclass(frozen=True)
class RayAgent:
    """A node's agent, asked through the driver process."""

    node_id: str
    ask: Callable[..., Any]

    async def facts(self) -> NodeFacts:
        """What the host is and can do."""
        return cast("NodeFacts", await self._call("facts"))

    async def code_offset(self, code_key: str) -> int:
        """How much of the archive the node has; -1 when it has the whole tree."""
        return cast("int", await self._call("code_offset", code_key))

    async def put_code(self, code_key: str, offset: int, chunk: bytes, last: bool) -> Extracted | None:
        """The next piece of the archive; with the last one, what it held."""
        result = await self._call("put_code", code_key, offset, chunk, last, timeout_s=PREPARE_S)
        return cast("Extracted | None", result)

    async def prepare(self, key: str, order: PrepareOrder) -> None:
        """Make an attempt's directories, workspace and environment."""
        await self._call("prepare", key, order, timeout_s=PREPARE_S)

    async def put_artifact(self, key: str, path: str, offset: int, data: bytes, last: bool) -> None:
        """The next piece of an earlier attempt's file, put back into a prepared one."""
        await self._call("put_artifact", key, path, offset, data, last)

    async def reserve_ports(self, key: str, names: Sequence[str]) -> dict[str, int]:
        """A port of the node for each name, the attempt's until it is cleared."""
        return cast("dict[str, int]", await self._call("reserve_ports", key, list(names)))

    async def connect(self, key: str, document: Document, peers: Sequence[Peer]) -> tuple[Unreached, ...]:
        """Have the node keep its network document, and tell which peers it can't reach, and why."""
        return cast("tuple[Unreached, ...]", await self._call("connect", key, document, tuple(peers)))

    async def start(self, key: str, order: StartOrder) -> None:
        """Start an attempt's command."""
        await self._call("start", key, order, timeout_s=2 * ANSWER_S)

    async def status(self, keys: Sequence[str]) -> dict[str, NodeStatus]:
        """Where attempts stand on the node."""
        return cast("dict[str, NodeStatus]", await self._call("status", list(keys)))

    async def watch(self, after: int, timeout_s: float) -> int:
        """Wait until something happened on the node since `after`, or until the timeout; gives the new mark."""
        return cast("int", await self._call("watch", after, timeout_s, timeout_s=timeout_s + ANSWER_S))

    async def read_log(self, key: str, offset: int, limit: int) -> LogChunk:
        """A piece of an attempt's log."""
        return cast("LogChunk", await self._call("read_log", key, offset, limit))

    async def stop(self, key: str, grace_s: float) -> None:
        """SIGTERM to all of an attempt's processes, SIGKILL after the grace."""
        await self._call("stop", key, grace_s, timeout_s=grace_s + ANSWER_S)

    async def artifacts(self, key: str) -> list[Artifact]:
        """The files below an attempt's artifacts directory."""
        return cast("list[Artifact]", await self._call("artifacts", key, timeout_s=2 * ANSWER_S))

    async def read_artifact(self, key: str, path: str, offset: int, limit: int) -> bytes:
        """A piece of an artifact; empty at its end."""
        return cast("bytes", await self._call("read_artifact", key, path, offset, limit))

    async def clean(self, key: str) -> Clean:
        """Prove that no process of an attempt is left, then remove what it had."""
        return cast("Clean", await self._call("clean", key, timeout_s=4 * ANSWER_S))

    async def inventory(self) -> list[str]:
        """The App's attempts that have anything on the node."""
        return [key for key in cast("list[str]", await self._call("inventory")) if not is_passing(key)]

    async def _call(self, method: str, *arguments: Any, timeout_s: float = ANSWER_S) -> Any:
        return await self.ask("agent", self.node_id, method, arguments, timeout_s=timeout_s)
