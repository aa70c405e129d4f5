"""A log as a few files named by offset: whole up to a cap, then head and tail; read and written by logical offset."""

from __future__ import annotations

import os
from typing import NamedTuple

_SEGMENTS = 16
_MAX_SEGMENT_BYTES = 64 << 20
_SUFFIX = ".log"


class Chunk(NamedTuple):
    """Bytes of a log; `offset` lies past the one asked for where the middle was cut."""

    offset: int
    data: bytes
    next_offset: int
    size: int


class Segment(NamedTuple):
    """One file of the log."""

    start: int
    length: int

    @property
    def end(self) -> int:
        """The offset after its last byte."""
        return self.start + self.length


class Segments:
    """A log in a directory, written by one process and read by any; its whole state is the names and sizes of files.

    At most `max_bytes` lie on disk: the first half stays for ever, of the rest the oldest gives way to the newest.
    Files begin at multiples of `segment_bytes`, or after a gap, and never reach beyond the next multiple.
    """

    def __init__(self, directory: str | os.PathLike[str], max_bytes: int) -> None:
        if max_bytes < 1:
            raise ValueError(f"max_bytes must be at least 1, got {max_bytes}")
        self.directory = os.fspath(directory)
        self.max_bytes = max_bytes
        self.segment_bytes = max(1, min(max_bytes // _SEGMENTS, _MAX_SEGMENT_BYTES))
        self.head_bytes = max_bytes // 2 // self.segment_bytes * self.segment_bytes
        self._written: list[Segment] | None = None
        self._fd = -1

    @property
    def size(self) -> int:
        """Logical length: every byte ever written and every one skipped, cut or not."""
        found = self._list() if self._written is None else self._written
        return found[-1].end if found else 0

    def append(self, data: bytes) -> None:
        """Write at the end."""
        self.put(self.size, data)

    def put(self, offset: int, data: bytes) -> None:
        """Write at an offset; what is there already is skipped, what lies between stays a gap.

        Raises:
            OSError: the disk refused; `size` says how much was written.
        """
        if self._written is None:
            os.makedirs(self.directory, 0o700, exist_ok=True)
            self._written = self._list()
        size = self.size
        rest = memoryview(data)[max(0, size - offset) :]
        position = max(offset, size)
        while rest:
            room = self.segment_bytes - position % self.segment_bytes
            count = self._write(self._written, position, rest[:room])
            position += count
            rest = rest[count:]

    def _write(self, written: list[Segment], position: int, piece: memoryview) -> int:
        """Write within one segment and return how much of it was taken."""
        self._make_room(written, len(piece))
        begins = not written or position % self.segment_bytes == 0 or written[-1].end != position
        start = position if begins else written[-1].start
        if begins or self._fd < 0:
            self._let_go()
            path = os.path.join(self.directory, f"{start:020d}{_SUFFIX}")
            self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        count = os.write(self._fd, piece)
        if begins:
            written.append(Segment(start, count))
        else:
            written[-1] = Segment(start, written[-1].length + count)
        return count

    def _make_room(self, written: list[Segment], coming: int) -> None:
        stored = sum(segment.length for segment in written)
        while stored + coming > self.max_bytes:
            oldest = next((s for s in written if s.start >= self.head_bytes), None)
            if oldest is None:
                return
            if oldest is written[-1]:
                self._let_go()
            os.unlink(os.path.join(self.directory, f"{oldest.start:020d}{_SUFFIX}"))
            written.remove(oldest)
            stored -= oldest.length

    def close(self) -> None:
        """Make the newest file durable and let go of it; a later write opens it again."""
        try:
            if self._fd >= 0:
                os.fdatasync(self._fd)
        finally:
            self._let_go()

    def _let_go(self) -> None:
        # Older files reach the disk by themselves; waiting for that here would hold the command up.
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)

    def read(self, offset: int, limit: int) -> Chunk:
        """The bytes from `offset` on, at most `limit`; from the next stored byte where those were cut."""
        while True:
            found = self._list()
            try:
                return self._read(found, offset, limit)
            except FileNotFoundError:
                continue  # the writer cut this file meanwhile: the next listing is without it

    def _read(self, found: list[Segment], offset: int, limit: int) -> Chunk:
        size = found[-1].end if found else 0
        first = next((s for s in found if s.end > offset), None)
        if first is None:
            return Chunk(offset, b"", offset, size)
        begin = position = max(offset, first.start)
        pieces: list[bytes] = []
        for segment in found:
            if limit <= 0 or not segment.start <= position < segment.end:
                continue
            data = self._read_segment(segment, position, min(limit, segment.end - position))
            pieces.append(data)
            position += len(data)
            limit -= len(data)
        return Chunk(begin, b"".join(pieces), position, size)

    def _read_segment(self, segment: Segment, position: int, count: int) -> bytes:
        with open(os.path.join(self.directory, f"{segment.start:020d}{_SUFFIX}"), "rb") as file:
            file.seek(position - segment.start)
            return file.read(count)

    def _list(self) -> list[Segment]:
        found: list[Segment] = []
        try:
            with os.scandir(self.directory) as entries:
                for entry in entries:
                    name, suffix = os.path.splitext(entry.name)
                    if suffix == _SUFFIX and name.isdecimal():
                        found.append(Segment(int(name), entry.stat().st_size))
        except FileNotFoundError:
            return self._list() if os.path.isdir(self.directory) else []
        return sorted(segment for segment in found if segment.length)


def cut_mark(asked: int, chunk: Chunk) -> bytes:
    """The line a reader puts where the log was cut before this chunk; empty where nothing is missing."""
    missing = chunk.offset - asked
    return b"\n[\xe2\x80\xa6 %d bytes cut \xe2\x80\xa6]\n" % missing if missing > 0 and chunk.data else b""
