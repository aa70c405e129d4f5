"""Pieces of a log for the eye: whole lines by offset, coloured, redacted; the line that is being written apart."""

import html
from dataclasses import dataclass

from ci_bot.report import amounts
from ci_bot.report.plain import after_break
from ci_bot.report.redact import redact
from ci_bot.web.ansi import to_html
from launcher.guardian.segments import Segments

PIECE_BYTES = 256 << 10
"""What one piece holds at most."""
SKIP_BYTES = 1 << 20
"""Who is further behind than this is taken to the end: no browser shows, and nobody reads, so much a second."""
TAIL_BYTES = 64 << 10
"""How much of the end a page begins with."""
LINE_BYTES = 16 << 10
"""A line that is longer is broken; log lines have no right to be held for ever."""


@dataclass(frozen=True)
class Place:
    """A place in the logs of an experiment; as text it is the id of a server-sent event."""

    attempt: int = 0
    offset: int = 0

    def __str__(self) -> str:
        return f"{self.attempt}-{self.offset}"

    @classmethod
    def parse(cls, text: str) -> "Place | None":
        """A place as it was written, or None."""
        attempt, dash, offset = text.partition("-")
        numbers = all(part.isascii() and part.isdigit() and len(part) < 19 for part in (attempt, offset))
        return cls(int(attempt), int(offset)) if dash and numbers else None


@dataclass(frozen=True)
class Piece:
    """Some lines of a log as HTML."""

    start: int
    end: int
    """Where to go on: the beginning of the line that is being written."""
    html: str
    partial: str
    """What there is of that line."""
    size: int
    """Bytes of the whole log."""


def read_piece(
    log: Segments, offset: int, *, secrets: tuple[str, ...] = (), limit: int = PIECE_BYTES, final: bool = False
) -> Piece:
    """The lines from an offset on, at most `limit` bytes of them.

    Args:
        log: of one attempt.
        offset: the beginning of a line.
        secrets: values to mask besides those known by their form.
        limit: most bytes.
        final: what is there ends here, line end or not.
    """
    chunk = log.read(offset, limit)
    data = chunk.data
    at_gap = len(data) < limit and chunk.next_offset < chunk.size  # the line that is cut there never ends
    whole = at_gap or (final and (chunk.next_offset >= chunk.size or len(data) >= limit))
    lines, rest, dropped = (data, b"", 0) if whole else _split(data)
    mark = _mark(chunk.offset - offset, "cut here, the log had become too long") if data else ""
    shown, _ = to_html(_text(lines, secrets))
    partial, _ = to_html(_text(rest, secrets))
    return Piece(offset, chunk.offset + len(lines) + dropped, mark + shown, partial, chunk.size)


def behind(offset: int, log: Segments) -> tuple[int, str]:
    """Where to read on, and what to say about what is left out, for somebody who may be far behind."""
    size = log.size
    if size - offset <= SKIP_BYTES:
        return offset, ""
    start = line_start(log, size - TAIL_BYTES)
    return start, _mark(start - offset, "not shown here; the whole log has them")


def line_start(log: Segments, offset: int) -> int:
    """The beginning of a line behind an offset; the offset itself where no line ends in reach."""
    if offset <= 0:
        return 0
    chunk = log.read(offset, LINE_BYTES)
    rest = after_break(chunk.data)
    return chunk.next_offset - len(rest) if rest else chunk.offset


def _split(data: bytes) -> tuple[bytes, bytes, int]:
    """Whole lines, the line behind them, and how many bytes between are overwritten or broken off."""
    end = data.rfind(b"\n") + 1
    lines, rest = data[:end], data[end:]
    if len(rest) <= LINE_BYTES:
        return lines, rest, 0
    overwritten = rest.rfind(b"\r", 0, len(rest) - 1) + 1  # a progress bar: only its last state counts
    rest = rest[overwritten:]
    if len(rest) <= LINE_BYTES:
        return lines, rest, overwritten
    cut = len(rest)
    while cut > len(rest) - 4 and rest[cut - 1] & 0xC0 == 0x80:
        cut -= 1  # not within a character
    cut -= 1 if rest[cut - 1] & 0x80 else 0
    return data[:end] + data[end + overwritten :][:cut], rest[cut:], overwritten


def _text(data: bytes, secrets: tuple[str, ...]) -> str:
    return redact(data.decode("utf-8", "replace"), secrets) if data else ""


def _mark(missing: int, why: str) -> str:
    return f'<span class="mark">… {html.escape(amounts.size(missing))} {why} …</span>\n' if missing > 0 else ""
