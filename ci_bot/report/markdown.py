"""Text from outside into markdown that says only what the text says. Pure.

GitHub renders markdown first and then looks for mentions and references in what came out, so an entity for `@` would
not help: a zero-width space after it does, as other bots do it.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from ci_bot.report.plain import after_break, clean, collapse, cut, cut_middle, one_line
from ci_bot.report.redact import redact

_ZERO_WIDTH = "&#8203;"
_ENTITIES = {ord(char): f"&#{ord(char)};" for char in '&<>"\\`*_[]|~$^{}!'}
_REFERENCE = re.compile(r"[@#]|://|(?i:\bwww(?=\.)|\bgh(?=-\d))")
_BACKTICKS = re.compile("`+")
_SAFE_URL = re.compile(r"https?://[A-Za-z0-9._~:/?#@!$&'*+,;=%\[\]-]+")

LONGEST_LINE = 2000
"""Characters shown of one line of a log."""


def escape(text: str | bytes) -> str:
    """Text for the middle of a line or of a table's cell: shown as it is, and nothing in it works."""
    return _escaped(one_line(text))


def _escaped(line: str) -> str:
    entities = line.translate(_ENTITIES)
    return _REFERENCE.sub(lambda match: _defuse(match.group()), entities.replace("&#", "\0")).replace("\0", "&#")


def _defuse(reference: str) -> str:
    if reference == "://":
        return f":{_ZERO_WIDTH}//"
    return reference + _ZERO_WIDTH


def code(text: str | bytes) -> str:
    """A name or a path as a code span; with a `|` it would end a table's cell there, so that is only escaped."""
    line = one_line(text)
    if not line:
        return ""
    if "|" in line:
        return escape(line)
    ticks = "`" * (_longest_run(line) + 1)
    pad = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{ticks}{pad}{line}{pad}{ticks}"


def prose(text: str | bytes) -> str:
    """A sentence for the middle of a line; what it quotes between back-ticks becomes a code span."""
    pieces = one_line(text).split("`")
    if len(pieces) % 2 == 0:  # the last one was never closed
        pieces[-2:] = ["`".join(pieces[-2:])]
    last = len(pieces) - 1
    parts = [
        code(piece) if place % 2 else _escaped(piece) or (_ZERO_WIDTH if 0 < place < last else "")
        for place, piece in enumerate(pieces)  # two code spans that touch would be read as one
    ]
    return "".join(parts)


def fence(text: str, language: str = "text") -> str:
    """A fenced block that no line of the text can close."""
    ticks = "`" * max(3, _longest_run(text) + 1)
    return f"{ticks}{language}\n{text}\n{ticks}"


def _longest_run(text: str) -> int:
    return max((len(run) for run in _BACKTICKS.findall(text)), default=0)


def is_url(text: str) -> bool:
    """Whether it is an address that GitHub takes for a link, and nothing else."""
    return _SAFE_URL.fullmatch(text) is not None


def link(words: str, url: str) -> str:
    """A link with our own words; the words alone where the address isn't one that GitHub would open."""
    return f"[{words}]({url})" if is_url(url) else words


def table(headings: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table of cells that are markdown already."""
    names = list(headings)
    lines = [names, ["---"] * len(names), *(list(row) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def details(words: str, block: str) -> str:
    """A block that opens on a click."""
    return f"<details><summary>{words}</summary>\n\n{block}\n\n</details>"


def join_blocks(blocks: Iterable[str], limit_bytes: int, shortened: str) -> str:
    """Blocks, apart from one another, as many as fit; each of them whole, so that no fence or table is left open.

    GitHub speaks of characters; counted in bytes the text is short enough however they are counted.

    Args:
        blocks: markdown; empty ones are left out.
        limit_bytes: for the whole, in UTF-8.
        shortened: the last block where not all of them fit.
    """
    kept: list[str] = []
    room = limit_bytes - _bytes(shortened) - 2
    for block in blocks:
        if not block:
            continue
        room -= _bytes(block) + 2
        if room < 0:
            return "\n\n".join([*kept, shortened])
        kept.append(block)
    return "\n\n".join(kept)


def _bytes(text: str) -> int:
    return len(text.encode())


@dataclass(frozen=True)
class Ink:
    """How text from outside comes into a report: cleaned, then redacted, then cut, then escaped."""

    secrets: tuple[str, ...] = ()

    def plain(self, text: str | bytes, limit: int = 250) -> str:
        """One line of plain text, where GitHub takes no markdown: titles, annotations."""
        return cut(redact(one_line(text), self.secrets), limit)

    def title(self, text: str, limit: int = 250) -> str:
        """A check run's title: plain text, in which backticks would stand as they are."""
        return self.plain(text.replace("`", ""), limit)

    def text(self, text: str | bytes, limit: int = 500) -> str:
        """One line of markdown."""
        return prose(self.plain(text, limit))

    def code(self, text: str | bytes, limit: int = 250) -> str:
        """A code span."""
        return code(self.plain(text, limit))

    def block(self, text: str | bytes, limit: int, language: str = "text") -> str:
        """A fenced block of a file's text, its end cut off where it is too long."""
        return fence(cut(redact(clean(text).replace("\r", "\n"), self.secrets).strip("\n"), limit), language)


@dataclass(frozen=True)
class Tail:
    """The last lines of a log, safe to be put into a fence."""

    text: str
    lines: int
    """How many lines these are."""
    earlier: int
    """How many lines of what was given came before them."""


def tail_lines(
    data: bytes, max_lines: int, max_chars: int, *, secrets: tuple[str, ...] = (), begins_inside: bool = False
) -> Tail:
    """The last lines of a log, as a terminal would have left them, redacted before anything is cut.

    Args:
        data: the end of the log; give more than will be shown (32 KiB more), so that a secret in it is seen whole.
        max_lines: most lines.
        max_chars: most characters, counted in bytes of UTF-8; a line that doesn't fit is left out whole.
        secrets: values to mask besides those known by their form.
        begins_inside: `data` isn't the whole log, so its first line may be the rest of one, and is left out.
    """
    if begins_inside:
        data = after_break(data)
    # The order matters: sequences inside a token are gone, and every state of a progress bar still stands alone.
    text = redact(clean(data), secrets)
    lines = collapse(text).rstrip("\n").split("\n") if text.strip() else []
    shown: list[str] = []
    room = max_chars
    for line in reversed(lines[-max_lines:] if max_lines > 0 else []):
        line = cut_middle(line.rstrip(), min(LONGEST_LINE, max_chars // 4))
        room -= _bytes(line) + 1
        if room < 0:
            break
        shown.append(line)
    return Tail("\n".join(reversed(shown)), len(shown), len(lines) - len(shown))
