"""Who looks, and what they may see and do: the holder of the key everything, a person what GitHub lets them."""

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from itsdangerous import BadSignature, URLSafeTimedSerializer

from ci_bot.github.answers import User, UserToken
from ci_bot.github.client import GitHub
from ci_bot.github.errors import Unauthorized
from ci_bot.records import Repository
from ci_bot.settings import Settings
from ci_bot.web.key import KEY, SESSION_SECRET, kept_secret

SESSION_S = 7 * 86400
LOGIN_S = 8 * 3600
"""How long a login lasts where GitHub's token does not say."""
READ_S = 60.0
"""How long GitHub's word on read access is believed."""
MOST_REMEMBERED = 10_000
DASHBOARD = "dashboard"
"""Who acts, where nobody has a name: the holder of the key."""


class LoginAgain(Exception):
    """GitHub no longer takes the person's token."""


class Viewer(Protocol):
    """Somebody who has come in."""

    @property
    def id(self) -> str:
        """Of the session."""

    @property
    def name(self) -> str:
        """The login, or "dashboard" for the holder of the key."""

    async def may_read(self, repository: Repository) -> bool:
        """Whether experiments of that repository may be shown."""

    async def may_write(self, repository: Repository) -> bool:
        """Whether they may be cancelled and run again; asked at this moment."""


@dataclass(frozen=True)
class KeyHolder:
    """Whoever has the key runs Descent and may do everything."""

    id: str
    name: str = DASHBOARD

    async def may_read(self, repository: Repository) -> bool:
        """Yes."""
        return True

    async def may_write(self, repository: Repository) -> bool:
        """Yes."""
        return True


@dataclass
class Person:
    """Somebody who logged in with GitHub. The token never leaves this process."""

    id: str
    user_id: int
    name: str
    """The login, which another may have by now."""
    github: GitHub
    token: str = field(repr=False)
    expires_at: float
    clock: Callable[[], float] = time.time
    gone: bool = False
    _read: dict[int, tuple[float, bool]] = field(default_factory=dict)

    async def may_read(self, repository: Repository) -> bool:
        """What GitHub says to the person's own token, remembered for a minute."""
        known = self._read.get(repository.id)
        if known and known[0] > self.clock():
            return known[1]
        try:
            may = await self.github.user_can_read(self.token, repository)
        except Unauthorized as error:
            self.gone = True
            raise LoginAgain(str(error)) from error
        if len(self._read) >= MOST_REMEMBERED:
            self._read.clear()
        self._read[repository.id] = (self.clock() + READ_S, may)
        return may

    async def may_write(self, repository: Repository) -> bool:
        """What GitHub says to the App, now: an old answer proves nothing."""
        role = await self.github.permission(repository, self.name, self.user_id)
        return role.can_write


class Sessions:
    """Cookies, and who comes with them. People log in again after a restart."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.time) -> None:
        self._key = kept_secret(settings.data_dir, KEY)
        self._secret = kept_secret(settings.data_dir, SESSION_SECRET)
        self._clock = clock
        self._people: dict[str, Person] = {}
        self._closed: dict[str, float] = {}
        """Sessions of the key that were ended, and when their cookies are worth nothing anyway."""
        secure = settings.public_url.startswith("https://")
        # Cookies know no ports: another Descent on this host must not take ours away.
        self.cookie = "__Host-descent" if secure else f"descent-{settings.port}"
        self.secure = secure

    def fits(self, key: str) -> bool:
        """Whether it is the key."""
        return hmac.compare_digest(key.encode(), self._key.encode())

    def open_with_key(self) -> str:
        """A cookie for somebody who had the key."""
        return self.sealed("session", {"id": secrets.token_urlsafe(16), "key": self._key_digest()})

    def log_in(self, user: User, token: UserToken, github: GitHub) -> str:
        """A cookie for somebody who logged in."""
        now = self._clock()
        self._people = {id: one for id, one in self._people.items() if one.expires_at > now and not one.gone}
        lasts_s = min(token.expires_in_s or LOGIN_S, SESSION_S)
        session_id = secrets.token_urlsafe(16)
        person = Person(session_id, user.id, user.login, github, token.value, now + lasts_s, self._clock)
        self._people[person.id] = person
        return self.sealed("session", {"id": person.id})

    def log_out(self, viewer: Viewer) -> None:
        """Forget somebody's token, and take their cookie no more."""
        now = self._clock()
        self._people.pop(viewer.id, None)
        self._closed = {id: until for id, until in self._closed.items() if until > now}
        self._closed[viewer.id] = now + SESSION_S

    def viewer(self, cookie: str | None, *, key_is_enough: bool) -> Viewer | None:
        """Who comes with this cookie.

        Args:
            cookie: as the browser sent it.
            key_is_enough: sessions opened with the key count; where people log in with GitHub they don't.
        """
        content = self.unsealed("session", cookie or "", SESSION_S)
        session_id = (content or {}).get("id", "")
        if not content or not session_id or session_id in self._closed:
            return None
        if "key" in content:
            # A new key closes what was opened with the old one.
            return KeyHolder(session_id) if key_is_enough and content["key"] == self._key_digest() else None
        person = self._people.get(session_id)
        return person if person and person.expires_at > self._clock() and not person.gone else None

    def csrf_token(self, viewer: Viewer) -> str:
        """What a form of this session must carry."""
        return hmac.digest(self._secret.encode(), f"csrf:{viewer.id}".encode(), "sha256").hex()

    def is_csrf_token(self, viewer: Viewer, token: str) -> bool:
        """Whether a form came from a page of this session."""
        return hmac.compare_digest(token.encode(), self.csrf_token(viewer).encode())

    def sealed(self, purpose: str, content: dict[str, str]) -> str:
        """A value that a browser may keep and can't change."""
        return str(self._serializer(purpose).dumps(content))

    def unsealed(self, purpose: str, text: str, max_age_s: int) -> dict[str, str] | None:
        """What `sealed` was given, unless it was changed or is too old."""
        try:
            content = self._serializer(purpose).loads(text, max_age=max_age_s)
        except BadSignature:
            return None
        return content if isinstance(content, dict) else None

    def _serializer(self, purpose: str) -> URLSafeTimedSerializer:
        return URLSafeTimedSerializer(self._secret, salt=f"descent.{purpose}")

    def _key_digest(self) -> str:
        return hashlib.sha256(self._key.encode()).hexdigest()[:32]
