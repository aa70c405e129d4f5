"""Whether web is alive, whether it can accept, and what is to be counted."""

import hmac
from collections.abc import Iterator

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from ci_bot.store import deliveries, marks
from ci_bot.store.counts import Counts, counts
from ci_bot.web.rights import KeyHolder
from ci_bot.web.room import Room, room_of

DISK_FLOOR_BYTES = 512 << 20
"""With less room than this nothing new is accepted: what is accepted must be kept."""
ASKED_S = 1.0
"""Whoever asks more often gets the same answer: a probe must not be a way to keep the disk busy."""


async def healthz(request: Request) -> Response:
    """`/healthz`: the process answers."""
    return PlainTextResponse("alive\n")


class Readiness:
    """`/readyz`: a delivery could be stored now."""

    def __init__(self) -> None:
        self._asked_at = float("-inf")
        self._problem = ""

    async def answer(self, request: Request) -> Response:
        """200, or 503 with the reason."""
        room = room_of(request)
        if not 0 <= room.clock() - self._asked_at < ASKED_S:
            self._problem, self._asked_at = await room.in_thread(lambda: problem(room)), room.clock()
        if self._problem:
            return PlainTextResponse(f"{self._problem}\n", 503, {"Retry-After": "10"})
        return PlainTextResponse("ready\n")


def problem(room: Room) -> str:
    """Why nothing can be accepted now; "" when all is well. Blocks."""
    try:
        free_bytes = room.keep.free_bytes()
    except OSError as error:
        return f"DATA_DIR can't be read: {error.strerror}"
    if free_bytes < DISK_FLOOR_BYTES:
        return f"The disk of DATA_DIR has {free_bytes >> 20} MiB left; at least {DISK_FLOOR_BYTES >> 20} are needed."
    try:
        room.write_now(lambda connection: marks.put(connection, "web-ready-at", str(room.clock())))
    except SQLAlchemyError as error:
        return f"The database can't be written: {type(error).__name__}"  # its text may name users and hosts
    return ""


async def metrics(request: Request) -> Response:
    """`/metrics`, in Prometheus' text format; with the bearer token METRICS_TOKEN, or a session that the key opened.

    The contract says loopback or token. But experiments share the host's loopback, so an address proves nothing; and
    anybody who has a GitHub account can log in.
    """
    room = room_of(request)
    token = room.settings.metrics_token
    given = request.headers.get("Authorization", "").removeprefix("Bearer ")
    with_token = bool(token) and hmac.compare_digest(given.encode(), token.encode())
    if not with_token and not isinstance(request.scope.get("viewer"), KeyHolder):
        or_else = "" if room.by_login else ", or open the dashboard first"
        words = f"Set METRICS_TOKEN and send it as a bearer token{or_else}.\n"
        return PlainTextResponse(words, 401, {"WWW-Authenticate": "Bearer"})

    def look(connection: Connection) -> tuple[Counts, int, float | None]:
        return counts(connection), *deliveries.backlog(connection)

    found, pending, oldest_at = await room.read(look)
    lines = "\n".join(_lines(found, pending, oldest_at, room.clock()))
    return PlainTextResponse(f"{lines}\n", media_type="text/plain; version=0.0.4; charset=utf-8")


def _lines(found: Counts, pending: int, oldest_at: float | None, now: float) -> Iterator[str]:
    oldest_s = max(now - oldest_at, 0.0) if oldest_at is not None else 0.0
    left_s = found.lease_expires_at - now if found.lease_expires_at is not None else 0.0
    yield from _metric("deliveries_received_total", "counter", "Webhook deliveries stored", found.deliveries_received)
    yield from _metric("deliveries_pending", "gauge", "Deliveries received and not processed", pending)
    yield from _metric("deliveries_oldest_pending_seconds", "gauge", "Age of the oldest of them", round(oldest_s, 3))
    yield from _metric("check_runs_undelivered", "gauge", "Check runs GitHub lacks", found.check_runs_undelivered)
    yield from _metric("check_runs_undeliverable", "gauge", "Check runs given up", found.check_runs_undeliverable)
    yield from _metric(
        "worker_lease_seconds", "gauge", "Time left of the worker's lease; negative: none works", round(left_s, 3)
    )
    yield from _head("experiments", "gauge", "Experiments by state")
    for state, number in found.experiments.items():
        yield f'descent_experiments{{state="{state.value}"}} {number}'


def _metric(name: str, kind: str, words: str, value: float) -> Iterator[str]:
    yield from _head(name, kind, words)
    yield f"descent_{name} {value}"


def _head(name: str, kind: str, words: str) -> Iterator[str]:
    yield f"# HELP descent_{name} {words}."
    yield f"# TYPE descent_{name} {kind}"
