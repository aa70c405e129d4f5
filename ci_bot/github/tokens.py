"""Installation tokens: one for each installation, repository and set of permissions, renewed before they expire."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

REFRESH_BEFORE_S = 5 * 60
MAX_SLOTS = 2000

Permissions = frozenset[tuple[str, str]]
READ: Permissions = frozenset({("contents", "read"), ("metadata", "read"), ("pull_requests", "read")})
CHECKS: Permissions = frozenset({("checks", "write"), ("metadata", "read")})
LIST: Permissions = frozenset({("metadata", "read")})


@dataclass(frozen=True)
class Access:
    """What a token is good for; `repository_id` None means all repositories of the installation."""

    installation_id: int
    repository_id: int | None
    permissions: Permissions

    def request(self) -> dict[str, object]:
        """The body of the request for such a token."""
        body: dict[str, object] = {"permissions": dict(sorted(self.permissions))}
        if self.repository_id is not None:
            body["repository_ids"] = [self.repository_id]
        return body


@dataclass(frozen=True)
class Token:
    """A token of any length or form (GitHub has several), never shown."""

    value: str = field(repr=False)
    expires_at: float


@dataclass
class _Slot:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    token: Token | None = None


class Tokens:
    """The tokens in hand; at most one request at a time for each."""

    def __init__(self, create: Callable[[Access], Awaitable[Token]], clock: Callable[[], float]) -> None:
        self._create = create
        self._clock = clock
        self._slots: OrderedDict[Access, _Slot] = OrderedDict()

    async def get(self, access: Access) -> Token:
        """A token that holds for some minutes more."""
        slot = self._slots.setdefault(access, _Slot())
        self._slots.move_to_end(access)
        self._trim()
        async with slot.lock:
            if slot.token is None or slot.token.expires_at - self._clock() < REFRESH_BEFORE_S:
                slot.token = await self._create(access)
            return slot.token

    def refused(self, access: Access, token: Token) -> None:
        """GitHub did not take `token`: the next `get` asks for another, unless someone did already."""
        slot = self._slots.get(access)
        if slot is not None and slot.token is token:
            slot.token = None

    def drop(self, installation_id: int) -> None:
        """Forget every token of an installation that was removed or suspended."""
        for access in [a for a in self._slots if a.installation_id == installation_id]:
            del self._slots[access]

    def _trim(self) -> None:
        while len(self._slots) > MAX_SLOTS:
            self._slots.popitem(last=False)
