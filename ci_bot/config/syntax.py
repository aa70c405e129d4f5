"""Why a file is no YAML, in words that say what to write. Pure."""

import re
from collections.abc import Callable

from ci_bot.config.mask import shown
from ci_bot.config.nodes import Broken
from ci_bot.config.problems import Kind, Notes
from ci_bot.config.source import Source


def diagnose(source: Source, broken: Broken, notes: Notes) -> None:
    """Note the one error at which reading had to end."""
    index, opened, words = broken.index, broken.opened, broken.words
    if (conflict := source.text.find("<<<<<<< ")) >= 0:
        index, words = conflict, "merge conflict"
    elif (quote := _runaway_quote(source, broken)) is not None:
        opened, words = quote, "quoted scalar; end of stream"
    elif (keyless := _keyless(source, broken)) is not None:
        opened, words = keyless, "simple key"
    for pattern, explain in _EXPLANATIONS:
        if re.search(pattern, words):
            index, message = explain(source, index, opened)
            break
    else:
        message = f"{_line(source, index)} cannot be read as YAML. Write `key: value`, indented like its neighbours."
    found = _line(source, index)
    notes.error(source.at(index), Kind.SYNTAX, message, found=found, expected="YAML")


Explanation = Callable[[Source, int, int], tuple[int, str]]


def _line(source: Source, index: int) -> str:
    return shown(source.lines[source.line_of(index)].strip())


def _runaway_quote(source: Source, broken: Broken) -> int | None:
    """Where a quoted value of several lines began that ends just before the error: one of its quotes is missing."""
    quoted = broken.before
    if quoted is None or not quoted.quote:
        return None
    near = quoted.end <= broken.index and "\n" not in source.text[quoted.end : broken.index]
    return quoted.start if near and "\n" in source.text[quoted.start : quoted.end] else None


_KEYLESS = re.compile(r"(?:- +)?([\w.-]+(?:[:：]\S.*)?|[\w.-]+：)")


def _keyless(source: Source, broken: Broken) -> int | None:
    """Where the first line of a block is no key, for want of a colon and a space.

    YAML takes it for a text, which the next lines may continue, and notices at a colon further down.
    """
    number = source.line_of(broken.index)
    before = source.text[source.start_of(number) : broken.index]
    continued = "mapping values are not allowed" in broken.words and ": " not in before
    if not continued and not re.search("document start|block mapping", broken.words):
        return None
    first, opener = _first_text(source.lines[:number])
    if first is None:
        return None
    line = source.lines[first]
    column = len(line) - len(line.lstrip(" -"))
    if opener and not _KEYLESS.fullmatch(line.strip()):
        return None  # a text of several words may well be what is meant
    beside = before.startswith(" " * column) if continued else before == " " * column
    return source.start_of(first) + column if beside else None


def _first_text(above: list[str]) -> tuple[int | None, str | None]:
    """The line, from 0, with which a text of lines without keys began, and the key's line whose value it is."""
    first = None
    for i in range(len(above) - 1, -1, -1):
        line = above[i].strip()
        if not line or line.startswith("#"):
            continue
        if line.startswith("---"):
            break
        if line.split(" #")[0].rstrip().endswith((":", " -")) or line == "-":
            return first, line
        if re.search(r":\s", line):
            return None, line  # it has its value already, which goes on here
        first = i
        if line.startswith("- "):
            return first, line
    return first, None


def _conflict(_source: Source, index: int, _opened: int) -> tuple[int, str]:
    return index, "a merge conflict was committed here (`<<<<<<<`). Resolve it."


def _quote_never_closed(source: Source, _index: int, opened: int) -> tuple[int, str]:
    quote = source.text[opened : opened + 1] or '"'
    return opened, f"the quote {quote} that opens here is never closed. Close it on the same line."


def _escape(source: Source, index: int, _opened: int) -> tuple[int, str]:
    start = max(source.text.rfind("\\", 0, index + 1), 0)
    escape = re.match(r"\\(?:x\w{0,2}|u\w{0,4}|U\w{0,8}|.?)", source.text[start:])
    found = shown(escape.group() if escape else "\\")
    return start, (
        f"{found} is not an escape that YAML knows between double quotes. Write \\\\ for a backslash, or put the value "
        "between single quotes."
    )


def _alias(source: Source, index: int, opened: int) -> tuple[int, str]:
    character = source.text[opened : opened + 1]
    return opened, (
        f"a value that begins with `{character}` needs quotes: in YAML `{character}` has a meaning of its own. "
        f"Found {_line(source, index)}."
    )


def _bad_start(source: Source, index: int, _opened: int) -> tuple[int, str]:
    character = source.text[index : index + 1]
    if character == "\t":
        return index, "this line is indented with a tab; YAML takes spaces only. Replace each tab by spaces."
    return index, f"a value may not begin with `{character}`. Put it in quotes. Found {_line(source, index)}."


def _second_colon(source: Source, index: int, _opened: int) -> tuple[int, str]:
    number = source.line_of(index)
    before = source.text[source.start_of(number) : index]
    line = _line(source, index)
    if ": " in before:
        key = before.split(":")[0].strip(" -")
        return index, (
            f"{line} has a second `: `, which YAML takes for a key inside the value of `{key}`. "
            "Put the whole value in quotes."
        )
    return index, (
        f"{line} is indented like a part of the line before it, which has its value already or lacks its colon. "
        "Indent it like its neighbours, or write `key:` above it."
    )


def _no_colon(source: Source, _index: int, opened: int) -> tuple[int, str]:
    line = source.lines[source.line_of(opened)].strip().removeprefix("- ").strip()
    if re.match(r"[\w.-]+：", line):
        right = re.sub("： *", ": ", line, count=1).strip()
        return opened, f"{shown(line)} has a full-width colon, which is none to YAML. Write {shown(right)}."
    if re.match(r"[\w.-]+:[^\s]", line):
        right = line.replace(":", ": ", 1)
        return opened, f"{shown(line)} has no space after its colon. Write {shown(right)}."
    return opened, f"{shown(line)} is not `key: value`. Write a colon and a space after the key."


def _bracket(source: Source, index: int, opened: int) -> tuple[int, str]:
    character = source.text[opened : opened + 1]
    closing = {"[": "]", "{": "}"}.get(character, "]")
    return opened, (
        f"the `{character}` that opens here is not closed where YAML expects it. Separate what is inside by commas "
        f"and close it with `{closing}`; if it is part of a text, quote that text. Stopped at {_line(source, index)}."
    )


def _indentation(source: Source, index: int, opened: int) -> tuple[int, str]:
    number = source.line_of(index)
    column, expected = source.at(index).column - 1, source.at(opened).column - 1
    line = _line(source, index)
    if source.text[source.start_of(number) : index].strip():
        return index, f"{line}: what stands here does not belong to the value before it. Put the value in quotes."
    if source.text[index : index + 2] in {"- ", "-\n"}:
        return index, f"{line} is an item of a list, and stands where a key is expected. Indent it below its key."
    if column == expected:
        return index, (
            f"{line} stands in the column of the `-` of a list, but is not an item of it. Begin it with `- `, or "
            "indent it like the key that it belongs beside."
        )
    return index, (
        f"{line} is indented to column {column + 1}, which fits nothing above it; the block it would belong to begins "
        f"in column {expected + 1}. Indent it exactly like its neighbours."
    )


def _after_end(source: Source, index: int, _opened: int) -> tuple[int, str]:
    return index, f"{_line(source, index)} follows the end of the document. Write everything as `key: value`."


def _content(source: Source, index: int, _opened: int) -> tuple[int, str]:
    return index, f"a value is missing, or begins with a character that needs quotes: {_line(source, index)}."


def _directive(source: Source, index: int, opened: int) -> tuple[int, str]:
    return (
        opened,
        f"a line that begins with `%` is an instruction to YAML. Put the value in quotes: {_line(source, index)}.",
    )


_EXPLANATIONS: tuple[tuple[str, Explanation], ...] = (
    # left: libyaml's words (scanner.c, parser.c), "context; problem"
    (r"merge conflict", _conflict),
    (r"quoted scalar.*(end of stream|document indicator)", _quote_never_closed),
    (r"quoted scalar.*(escape|hexdecimal|Unicode)", _escape),
    (r"scanning an? (alias|anchor)", _alias),
    (r"cannot start any token|found a tab character", _bad_start),
    (r"mapping values are not allowed", _second_colon),
    (r"simple key", _no_colon),
    (r"flow (sequence|mapping)", _bracket),
    (r"document start", _after_end),
    (r"block (mapping|collection|sequence)|block entries|indicator", _indentation),
    (r"(block|flow) node|node content", _content),
    (r"directive", _directive),
)
