"""GitHub's rate limits: the primary one per hour, the secondary ones per minute. Reads no clock of its own."""

import threading
from collections import defaultdict, deque
from dataclasses import dataclass, field

from ci_bot.local_github.calls import Refusal

HOUR_S = 3600
MINUTE_S = 60
WRITES = ("POST", "PATCH", "PUT", "DELETE")
_SECONDARY = (
    "You have exceeded a secondary rate limit. Please wait a few minutes before you try again. "
    "If you reach out to GitHub Support for help, please include the request ID."
)


@dataclass(frozen=True)
class Bounds:
    """How much is allowed; the numbers are GitHub's own.

    Source: https://docs.github.com/rest/using-the-rest-api/rate-limits-for-the-rest-api
    """

    primary_per_hour: int = 5000
    anonymous_per_hour: int = 60
    points_per_minute: int = 900
    content_per_minute: int = 80
    content_per_hour: int = 500
    concurrent: int = 100


@dataclass
class _Window:
    """One hour of one caller."""

    ends_at: float
    used: int = 0


@dataclass
class Limits:
    """The counters of every caller."""

    bounds: Bounds = field(default_factory=Bounds)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _windows: dict[str, _Window] = field(default_factory=dict)
    _points: dict[str, deque[tuple[float, int]]] = field(default_factory=lambda: defaultdict(deque))
    _content: dict[str, deque[float]] = field(default_factory=lambda: defaultdict(deque))
    _open: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def reset(self, bounds: Bounds) -> None:
        """Take other bounds and start to count anew."""
        self.bounds = bounds
        self._windows.clear()
        self._points.clear()
        self._content.clear()

    def _limit(self, key: str) -> int:
        anonymous = key.startswith("anonymous")
        return self.bounds.anonymous_per_hour if anonymous else self.bounds.primary_per_hour

    def _window(self, key: str, now: float) -> _Window:
        window = self._windows.get(key)
        if window is None or window.ends_at <= now:
            window = self._windows[key] = _Window(now + HOUR_S)
        return window

    def overview(self, key: str, now: float) -> dict[str, int]:
        """The primary limit as `GET /rate_limit` shows it."""
        limit, window = self._limit(key), self._window(key, now)
        used = min(window.used, limit)
        return {"limit": limit, "used": used, "remaining": limit - used, "reset": int(window.ends_at) + 1}

    def headers(self, key: str, now: float) -> dict[str, str]:
        """The primary limit as the headers of every answer show it."""
        shown = self.overview(key, now)
        return {f"X-RateLimit-{name.title()}": str(value) for name, value in shown.items()} | {
            "X-RateLimit-Resource": "core"
        }

    def enter(self, key: str) -> None:
        """Count a connection that waits for its answer.

        Raises:
            Refusal: 403, where there are too many.
        """
        with self._lock:
            if self._open[key] >= self.bounds.concurrent:
                raise Refusal(403, _SECONDARY, headers={"Retry-After": "1"})
            self._open[key] += 1

    def leave(self, key: str) -> None:
        """Count a connection that has its answer."""
        with self._lock:
            self._open[key] -= 1

    def admit(self, key: str, method: str, creates: bool, now: float) -> None:
        """Count a request that begins.

        Raises:
            Refusal: 403, with `Retry-After` where a secondary limit is the reason.
        """
        with self._lock:
            self._admit(key, method, creates, now)

    def _admit(self, key: str, method: str, creates: bool, now: float) -> None:
        self._secondary(key, method, creates, now)
        window = self._window(key, now)
        if window.used >= self._limit(key):
            raise Refusal(403, f"API rate limit exceeded for {key}.")
        window.used += 1

    def _secondary(self, key: str, method: str, creates: bool, now: float) -> None:
        points, content = self._points[key], self._content[key]
        while points and points[0][0] <= now - MINUTE_S:
            points.popleft()
        while content and content[0] <= now - HOUR_S:
            content.popleft()
        cost = 5 if method in WRITES else 1
        recent = [at for at in content if at > now - MINUTE_S]
        wait_s = 0.0
        if sum(each for _, each in points) + cost > self.bounds.points_per_minute:
            wait_s = points[0][0] + MINUTE_S - now if points else MINUTE_S
        if creates and len(recent) >= self.bounds.content_per_minute:
            wait_s = max(wait_s, recent[0] + MINUTE_S - now if recent else MINUTE_S)
        if creates and len(content) >= self.bounds.content_per_hour:
            wait_s = max(wait_s, content[0] + HOUR_S - now if content else HOUR_S)
        if wait_s:
            raise Refusal(403, _SECONDARY, headers={"Retry-After": str(int(wait_s) + 1)})
        points.append((now, cost))
        if creates:
            content.append(now)

    def refund(self, key: str, now: float) -> None:
        """Take back the count of a request that was answered 304: it costs nothing."""
        with self._lock:
            self._window(key, now).used -= 1
