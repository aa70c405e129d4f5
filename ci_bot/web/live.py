"""What happens to an experiment while people watch: one watcher for each log, however many look."""

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import structlog

from ci_bot.records import Experiment
from ci_bot.web.logs import PIECE_BYTES, TAIL_BYTES, Piece, Place, behind, line_start, read_piece
from launcher.guardian.segments import Segments

TICK_S = 0.25
KEPT_BYTES = 1 << 20
"""Of rendered pieces, for those who are a little behind; who is further behind reads the disk."""
MOST_PIECES = 8
"""In one tick: the rest comes with the next one."""
BEGINNING = Place()
log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Frame:
    """One server-sent event of the log."""

    start: Place
    end: Place
    event: bytes


@dataclass(frozen=True)
class Seen:
    """What one look at the database and the disk found."""

    experiment: Experiment | None
    frames: tuple[Frame, ...] = ()
    place: Place = BEGINNING
    partial: str = ""


def event(name: str, content: Any, *, id: Place | None = None) -> bytes:
    """A server-sent event with JSON in one line."""
    head = f"id: {id}\n" if id is not None else ""
    return f"{head}event: {name}\ndata: {json.dumps(content, separators=(',', ':'))}\n\n".encode()


class Watcher:
    """Looks at one experiment, and the log of one of its nodes, every quarter of a second while somebody watches."""

    def __init__(self, look: Callable[[Place, Experiment | None], Seen]) -> None:
        self._look = look
        self.seen = Seen(None)
        self.frames: deque[Frame] = deque()
        self.changed = asyncio.Event()
        self.viewers = 0
        self.ended = False
        self.gone = False
        self.looked = False

    async def run(self) -> None:
        """Look until it has ended or nobody watches any more."""
        while not self.ended:
            try:
                found = await asyncio.to_thread(self._look, self.seen.place, self.seen.experiment)
            except Exception as error:  # a full disk or a restarting database: viewers keep what they have
                log.warning("an experiment could not be looked at", why=str(error).partition("\n")[0])
                await asyncio.sleep(4 * TICK_S)
                continue
            self._take(found)
            await asyncio.sleep(TICK_S)

    def _take(self, found: Seen) -> None:
        before, self.seen, first = self.seen, found, not self.looked
        self.looked = True
        for frame in found.frames:
            if self.frames and frame.start.attempt != self.frames[-1].start.attempt:
                self.frames.clear()
            self.frames.append(frame)
        while len(self.frames) > 1 and sum(len(frame.event) for frame in self.frames) > KEPT_BYTES:
            self.frames.popleft()
        self.gone = found.experiment is None
        self.ended = self.gone or (found.experiment is not None and found.experiment.ended_at is not None)
        old = before.experiment.version if before.experiment else None
        new = found.experiment.version if found.experiment else None
        if first or old != new or found.frames or found.partial != before.partial:
            self.wake()

    def wake(self) -> None:
        """Let everybody who waits look."""
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()

    def following(self, place: Place) -> Frame | Place:
        """What comes at a place: the very frame, or else up to where the log must be read from the disk."""
        for frame in self.frames:
            if frame.start.attempt == place.attempt and frame.start.offset >= place.offset:
                return frame if frame.start == place else frame.start
        return self.seen.place


@dataclass
class Live:
    """All watchers."""

    experiment: Callable[[int], Experiment | None]
    """Reads the row; blocks."""
    log_of: Callable[[int, int, int], Segments]
    """The log of an experiment's attempt and rank."""
    secrets_of: Callable[[Experiment], tuple[str, ...]]
    closing: bool = False
    _watchers: dict[tuple[int, int], tuple[Watcher, asyncio.Task[None]]] = field(default_factory=dict)
    """By experiment and rank."""

    @asynccontextmanager
    async def watch(self, experiment_id: int, rank: int) -> AsyncIterator[Watcher]:
        """The watcher of an experiment and of the log of one of its nodes, from its first look on."""
        key = (experiment_id, rank)
        if key not in self._watchers:
            watcher = Watcher(lambda place, known: self._look(key, place, known))
            self._watchers[key] = (watcher, asyncio.create_task(watcher.run()))
        watcher, task = self._watchers[key]
        watcher.viewers += 1
        try:
            changed = watcher.changed
            if not watcher.looked:
                await changed.wait()
            yield watcher
        finally:
            watcher.viewers -= 1
            if not watcher.viewers:
                del self._watchers[key]
                task.cancel()

    def wake(self) -> None:
        """Let every stream look whether it may go on."""
        for watcher, _ in self._watchers.values():
            watcher.wake()

    def close(self) -> None:
        """End all streams."""
        self.closing = True
        self.wake()

    def read(self, experiment: Experiment, rank: int, start: Place, until: Place) -> Frame:
        """A piece of the log for somebody who is behind, up to where the others are; blocks."""
        segments = self.log_of(experiment.id, start.attempt, rank)
        offset, mark = behind(start.offset, segments)
        if offset >= until.offset:
            offset = until.offset
        limit = min(PIECE_BYTES, until.offset - offset)
        if limit <= 0:
            return _frame(Piece(start.offset, until.offset, mark, "", 0), until.attempt)
        reaches = limit == until.offset - offset
        piece = read_piece(segments, offset, secrets=self.secrets_of(experiment), limit=limit, final=reaches)
        # Where the middle was cut, what comes next may lie behind the frame that was aimed for.
        stuck = piece.end <= start.offset
        end = max(until.offset, piece.end) if stuck or reaches else piece.end
        return _frame(Piece(start.offset, end, mark + piece.html, "", piece.size), until.attempt)

    def _look(self, key: tuple[int, int], place: Place, known: Experiment | None) -> Seen:
        experiment_id, rank = key
        experiment = self.experiment(experiment_id)
        if experiment is None:
            return Seen(None, place=place)
        secrets = self.secrets_of(experiment)
        attempt = experiment.progress.attempt
        segments = self.log_of(experiment_id, attempt, rank)
        if known is None:
            place = Place(attempt, line_start(segments, segments.size - TAIL_BYTES))
        elif place.attempt != attempt:
            place = Place(attempt, 0)
        more, place, partial = _frames(segments, place, secrets, final=experiment.ended_at is not None)
        return Seen(experiment, tuple(more), place, partial)


def _frames(
    segments: Segments, place: Place, secrets: tuple[str, ...], *, final: bool
) -> tuple[list[Frame], Place, str]:
    """What has come since, where that ends, and what there is of the line behind it."""
    frames: list[Frame] = []
    partial = ""
    offset, mark = behind(place.offset, segments)
    for _ in range(MOST_PIECES):
        piece = read_piece(segments, offset, secrets=secrets, final=final)
        partial = piece.partial
        if piece.end > place.offset:
            frame = _frame(Piece(place.offset, piece.end, mark + piece.html, "", piece.size), place.attempt)
            frames.append(frame)
            mark = ""
        advanced = piece.end > offset
        place, offset = Place(place.attempt, piece.end), piece.end
        if not advanced or piece.end >= piece.size:
            break
    return frames, place, partial


def _frame(piece: Piece, attempt: int) -> Frame:
    end = Place(attempt, piece.end)
    return Frame(Place(attempt, piece.start), end, event("log", {"attempt": attempt, "html": piece.html}, id=end))
