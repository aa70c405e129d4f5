"""Bytes of a file to text whose places can be named. Pure."""

import re
from bisect import bisect_right
from dataclasses import dataclass, field
from functools import cached_property

from ci_bot.config.problems import START, At, Kind, Notes

MAX_BYTES = 256 * 1024

# What YAML allows in a file (YAML 1.1 §5.1); everything else is refused here, with its place.
_FORBIDDEN = re.compile("[^\t\n\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True)
class Source:
    """The text of a file, lines ended by a bare line feed.

    `shifts` gives, for lines (from 0) that a repair indented anew, how many columns they lost (or, negative, gained).
    """

    text: str
    shifts: dict[int, int] = field(default_factory=dict)

    @cached_property
    def lines(self) -> list[str]:
        return self.text.split("\n")

    @cached_property
    def _starts(self) -> list[int]:
        starts = [0]
        for line in self.lines[:-1]:
            starts.append(starts[-1] + len(line) + 1)
        return starts

    @cached_property
    def _last(self) -> int:
        return max(len(self.text.rstrip()) - 1, 0)

    def line_of(self, index: int) -> int:
        """The line, from 0, of a character."""
        return bisect_right(self._starts, min(index, self._last)) - 1

    def start_of(self, line: int) -> int:
        """Where a line, from 0, begins in the text."""
        return self._starts[line]

    def at(self, index: int) -> At:
        """Where a character of the text is in the file; never beyond the file's last visible character."""
        index = min(index, self._last)
        line = self.line_of(index)
        column = index - self._starts[line] + self.shifts.get(line, 0)
        return At(line + 1, max(column, 0) + 1)


def decode(content: bytes, notes: Notes) -> Source | None:
    """The text of a file, or None after noting why it is no text that we read."""
    if len(content) > MAX_BYTES:
        notes.error(
            START,
            Kind.SIZE,
            f"the file has more than {MAX_BYTES} bytes, and no more are read. A configuration needs a few hundred: "
            "move what is not configuration elsewhere.",
            found=f"more than {MAX_BYTES} bytes",
            expected=f"at most {MAX_BYTES} bytes",
        )
        return None
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        notes.error(START, Kind.ENCODING, "the file is UTF-16; UTF-8 is expected. Save it as UTF-8.", found="UTF-16")
        return None
    try:
        text = content.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        before = Source(_unified(content[: error.start].decode("utf-8") + "?"))
        found = f"the byte 0x{content[error.start]:02x}"
        notes.error(
            before.at(len(before.text) - 1),
            Kind.ENCODING,
            f"{found} is not UTF-8 text. Save the file as UTF-8.",
            found=found,
            expected="UTF-8",
        )
        return None
    source = Source(_unified(text))
    if bad := _FORBIDDEN.search(source.text):
        found = f"the character U+{ord(bad.group()):04X}"
        notes.error(
            source.at(bad.start()),
            Kind.ENCODING,
            f"{found} may not stand in a configuration file. Remove it.",
            found=found,
            expected="printable text",
        )
        return None
    return source


def _unified(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")
