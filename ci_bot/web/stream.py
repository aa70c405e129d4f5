"""State and log of an experiment as server-sent events; who reconnects goes on where they were."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from ci_bot.github.errors import GitHubError
from ci_bot.web.live import Frame, Live, Watcher, event
from ci_bot.web.logs import Place
from ci_bot.web.lookup import readable_experiment
from ci_bot.web.rights import LoginAgain
from ci_bot.web.room import place_of, room_of, viewer_of
from ci_bot.web.view import record

HEARTBEAT_S = 15.0
RIGHTS_S = 60.0


async def events(request: Request) -> Response:
    """The stream."""
    room, viewer = room_of(request), viewer_of(request)
    experiment = await readable_experiment(request)
    repository = await room.read(lambda connection: place_of(connection, experiment))
    asked = request.headers.get("Last-Event-ID") or request.query_params.get("after", "")
    start = Place.parse(asked) or Place(experiment.progress.attempt, 0)
    size = await room.in_thread(lambda: room.log_of(experiment.id, start.attempt).size)
    start = Place(start.attempt, min(start.offset, size))  # a place behind the end would never be reached

    async def may_go_on() -> bool:
        try:
            return await viewer.may_read(repository)
        except (GitHubError, LoginAgain):
            return False

    return StreamingResponse(
        _stream(room.live, experiment.id, start, may_go_on),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


async def _stream(
    live: Live, experiment_id: int, start: Place, may_go_on: Callable[[], Awaitable[bool]]
) -> AsyncIterator[bytes]:
    yield b"retry: 1000\n\n"
    asked_at = time.monotonic()
    async with live.watch(experiment_id) as watcher:
        viewer = _Viewer(live, watcher, start)
        while not live.closing:
            changed = watcher.changed
            async for piece in viewer.news():
                yield piece
            if watcher.ended:
                yield event("end", {})
                return
            if time.monotonic() - asked_at > RIGHTS_S:
                asked_at = time.monotonic()
                if not await may_go_on():
                    return
            try:
                await asyncio.wait_for(changed.wait(), HEARTBEAT_S)
            except TimeoutError:
                yield b": still here\n\n"


class _Viewer:
    """How far one stream has come; it takes what it needs, so a slow one delays nobody."""

    def __init__(self, live: Live, watcher: Watcher, start: Place) -> None:
        self._live, self._watcher, self._place = live, watcher, start
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
        return await asyncio.to_thread(self._live.read, experiment, self._place, there)

    async def _rest_of_attempt(self, newest: int) -> Frame | None:
        """What an attempt that is over said since."""
        experiment, place = self._watcher.seen.experiment, self._place
        if experiment is None or not 0 < place.attempt < newest:
            return None
        size = await asyncio.to_thread(lambda: self._live.log_of(experiment.id, place.attempt).size)
        if place.offset >= size:
            return None
        return await asyncio.to_thread(self._live.read, experiment, place, Place(place.attempt, size))
