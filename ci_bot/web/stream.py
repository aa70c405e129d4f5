"""State and log of an experiment as server-sent events; who reconnects goes on where they were."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from ci_bot.github.errors import GitHubError
from ci_bot.records import Repository
from ci_bot.web.guard import session_of
from ci_bot.web.live import Frame, Live, Watcher, event
from ci_bot.web.logs import Place
from ci_bot.web.lookup import chosen_rank, readable_experiment
from ci_bot.web.rights import LoginAgain, Viewer
from ci_bot.web.room import place_of, room_of, viewer_of
from ci_bot.web.view import record

HEARTBEAT_S = 15.0
SESSION_S = 1.0
"""How often a stream that flows looks whether its session still is one; a quiet one does with its heartbeat."""
RIGHTS_S = 60.0
"""How often GitHub is asked again what may be read."""


async def events(request: Request) -> Response:
    """The stream."""
    room, viewer = room_of(request), viewer_of(request)
    experiment = await readable_experiment(request)
    repository = await room.read(lambda connection: place_of(connection, experiment))
    asked = request.headers.get("Last-Event-ID") or request.query_params.get("after", "")
    start = Place.parse(asked) or Place(experiment.progress.attempt, 0)
    # Without a choice it is the first node's, whatever happens: who reconnects must not get into another log.
    rank = chosen_rank(request, experiment, unless_chosen=0)
    size = await room.in_thread(lambda: room.log_of(experiment.id, start.attempt, rank).size)
    start = Place(start.attempt, min(start.offset, size))  # a place behind the end would never be reached

    leave = _Leave(viewer, repository, lambda: session_of(request) is not None)
    return StreamingResponse(
        _stream(_Watched(room.live, experiment.id, rank), start, leave),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


class _Leave:
    """Whether a stream may go on: it lasts longer than a session, or a right to read, may."""

    def __init__(self, viewer: Viewer, repository: Repository, has_session: Callable[[], bool]) -> None:
        self._viewer, self._repository, self._has_session = viewer, repository, has_session
        self._looked_at = self._asked_at = time.monotonic()
        self._may = True

    async def holds(self) -> bool:
        """Looked up again when the last answer is too old."""
        now = time.monotonic()
        if self._may and now - self._looked_at > SESSION_S:
            self._looked_at, self._may = now, self._has_session()
        if self._may and now - self._asked_at > RIGHTS_S:
            self._asked_at = now
            try:
                self._may = await self._viewer.may_read(self._repository)
            except (GitHubError, LoginAgain):
                self._may = False
        return self._may


@dataclass(frozen=True)
class _Watched:
    """Which log of which experiment."""

    live: Live
    experiment_id: int
    rank: int


async def _stream(watched: _Watched, start: Place, leave: _Leave) -> AsyncIterator[bytes]:
    live = watched.live
    yield b"retry: 1000\n\n"
    async with live.watch(watched.experiment_id, watched.rank) as watcher:
        viewer = _Viewer(watched, watcher, start)
        while not live.closing:
            changed = watcher.changed
            async for piece in viewer.news():
                if not await leave.holds():
                    return
                yield piece
            if watcher.ended:
                yield event("end", {})
                return
            if not await leave.holds():
                return
            try:
                await asyncio.wait_for(changed.wait(), HEARTBEAT_S)
            except TimeoutError:
                yield b": still here\n\n"


class _Viewer:
    """How far one stream has come; it takes what it needs, so a slow one delays nobody."""

    def __init__(self, watched: _Watched, watcher: Watcher, start: Place) -> None:
        self._live, self._rank, self._watcher, self._place = watched.live, watched.rank, watcher, start
        self._version = 0
        self._partial = ""

    async def news(self) -> AsyncIterator[bytes]:
        """What this stream has not sent yet."""
        experiment = self._watcher.seen.experiment
        if experiment is None:
            return
        if experiment.version != self._version:
            self._version = experiment.version
            yield event("state", record(experiment))
        while frame := await self._next():
            self._place = frame.end
            yield frame.event
        seen = self._watcher.seen
        if seen.partial != self._partial and seen.place == self._place:
            self._partial = seen.partial
            yield event("log", {"attempt": seen.place.attempt, "partial": seen.partial})

    async def _next(self) -> Frame | None:
        watcher, experiment = self._watcher, self._watcher.seen.experiment
        assert experiment is not None  # noqa: S101 - `news` has looked
        newest = watcher.seen.place
        if self._place.attempt != newest.attempt:
            rest = await self._rest_of_attempt(newest.attempt)
            if rest:
                return rest
            self._place = Place(newest.attempt, 0)
        if self._place.offset >= newest.offset:
            return None  # a page may have been drawn since the watcher looked
        there = watcher.following(self._place)
        if isinstance(there, Frame):
            return there
        return await asyncio.to_thread(self._live.read, experiment, self._rank, self._place, there)

    async def _rest_of_attempt(self, newest: int) -> Frame | None:
        """What an attempt that is over said since."""
        experiment, place = self._watcher.seen.experiment, self._place
        if experiment is None or not 0 < place.attempt < newest:
            return None
        size = await asyncio.to_thread(lambda: self._live.log_of(experiment.id, place.attempt, self._rank).size)
        if place.offset >= size:
            return None
        return await asyncio.to_thread(self._live.read, experiment, self._rank, place, Place(place.attempt, size))
