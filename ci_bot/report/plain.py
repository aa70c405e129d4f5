"""Text from outside as plain text: no terminal sequences, no invisible characters, no broken Unicode. Pure."""

import re

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
ELLIPSIS = "…"

# ECMA-48: strings (OSC, DCS, SOS, PM, APC) end with ST or BEL, or else with the line; then CSI; then all the others.
# The parts of each alternative can't match the same characters, so a failure costs one pass.
_ESCAPES = re.compile(
    r"(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c\n\r]*(?:\x07|\x9c|\x1b\\)?"
    r"|(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]?"
    r"|\x1b[ -/]*[0-~]?"
)

_BREAK = re.compile(rb"[\r\n]")

_INVISIBLE = [
    *range(0x01, 0x09),
    *range(0x0B, 0x0D),
    *range(0x0E, 0x20),
    *range(0x7F, 0xA0),  # DEL and C1
    0x00AD,  # soft hyphen
    0x061C,  # bidirectional controls: they make a text read differently from what it is ("Trojan source")
    0x200B,
    0x200E,
    0x200F,
    *range(0x202A, 0x202F),
    *range(0x2060, 0x2070),
    0xFEFF,
    *range(0xFFF9, 0xFFFC),
    *range(0xE0000, 0xE0080),  # tag characters: letters that nobody sees
]
_TABLE: dict[int, str | None] = {
    **dict.fromkeys(_INVISIBLE),
    0x00: REPLACEMENT,
    0x2028: " ",
    0x2029: " ",
}


def clean(text: str | bytes) -> str:
    """The text without terminal sequences and control characters; `\\n`, `\\t` and a lone `\\r` stay.

    Invalid UTF-8, lone surrogates and NUL become U+FFFD.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    else:
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    text = _ESCAPES.sub("", text).replace("\r\n", "\n")
    return text.translate(_TABLE)


def collapse(text: str) -> str:
    """The text as a terminal leaves it: of what `\\r` overwrites in a line, the last state."""
    return "\n".join(_last_state(line) for line in text.split("\n"))


def _last_state(line: str) -> str:
    if "\r" not in line:
        return line
    return next((state for state in reversed(line.split("\r")) if state.strip()), "")


def one_line(text: str | bytes) -> str:
    """The text on one line, with single spaces."""
    return " ".join(clean(text).split())


def cut(text: str, limit: int) -> str:
    """At most `limit` characters, with "…" where something is missing."""
    return text if len(text) <= limit else text[: limit - 1].rstrip() + ELLIPSIS


def cut_middle(text: str, limit: int) -> str:
    """At most `limit` characters of a long line: its beginning, and more of its end."""
    if len(text) <= limit:
        return text
    head = limit // 3
    return text[:head] + f" {ELLIPSIS} " + text[len(text) - (limit - head - 3) :]


def after_break(data: bytes) -> bytes:
    """What follows the first end of a line, `\\n` or `\\r`; nothing where there is none."""
    return _BREAK.split(data, maxsplit=1)[1] if _BREAK.search(data) else b""
