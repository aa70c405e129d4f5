"""Mistakes of the original's own templates, read as meant: each repair keeps every line where it was. Pure."""

import re
from dataclasses import replace

from ci_bot.config.mask import shown
from ci_bot.config.nodes import Broken, Written
from ci_bot.config.problems import Kind, Notes
from ci_bot.config.source import Source

_BLOCK = re.compile(r"( *)(triggers|filters|checks)\s*:")
_STEPS = re.compile(r"( *)steps\s*:\s*(#.*)?$")
_DASH = re.compile(r"( *)-(?:( +)(?=[^\s#]))?")


def repair(source: Source, broken: Broken, notes: Notes) -> Source | None:
    """The text with the mistake at which YAML broke put right, or None when it is none that we know."""
    return _reindent(source, broken, notes) or _cut_after_quote(source, broken, notes)


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip(" "))


def _blank(line: str) -> bool:
    return not line.strip() or line.lstrip().startswith("#")


def _reindent(source: Source, broken: Broken, notes: Notes) -> Source | None:
    """`triggers:` or `checks:` in the column of the dashes of `steps`, as the original's template for version 2 has it.

    `triggers` belongs to the workflow, so to the column of `steps`; `checks` to the step, so to the column of its keys.
    """
    first = source.line_of(broken.index)
    block = _BLOCK.match(source.lines[first])
    if block is None:
        return None
    dash_column, key = len(block[1]), block[2]
    steps_column, key_column = _columns(source.lines[:first], dash_column)
    target = key_column if key == "checks" else steps_column
    if target is None or steps_column is None:
        return None
    belongs = "the step: indent it like the step's keys" if key == "checks" else "the workflow: indent it like `steps`"
    notes.warning(
        source.at(source.start_of(first) + dash_column),
        Kind.INDENTATION,
        f"`{key}` stands in the column of the step's dash, which is not YAML. It was read as belonging to {belongs}, "
        f"by {target} spaces, and what is below it likewise.",
        found=f"{dash_column} spaces",
        expected=f"{target} spaces",
    )
    return _shifted(source, first, target - dash_column)


def _columns(above: list[str], dash_column: int) -> tuple[int | None, int | None]:
    """The columns of `steps` and of the keys of its last step, when the dashes stand in this column."""
    key_column: int | None = None
    for i in range(len(above) - 1, -1, -1):
        if _blank(above[i]):
            continue
        dash = _DASH.match(above[i])
        if key_column is None and dash is not None and len(dash[1]) == dash_column:
            inner = next((_indent(line) for line in above[i + 1 :] if not _blank(line)), None)
            key_column = dash.end() if dash[2] else inner
        elif _indent(above[i]) < dash_column:
            steps = _STEPS.match(above[i])
            return (len(steps[1]) if steps and key_column is not None else None), key_column
    return None, None


def _shifted(source: Source, first: int, by: int) -> Source:
    """The block that begins in a line, moved left or right; lines are counted from 0."""
    lines, shifts = list(source.lines), dict(source.shifts)
    column = _indent(lines[first])
    for i in range(first, len(lines)):
        if i > first and not _blank(lines[i]) and _indent(lines[i]) <= column:
            break
        if by < 0 and not lines[i].startswith(" " * -by):
            continue  # an empty line, or a comment: no move needed
        lines[i] = " " * by + lines[i] if by > 0 else lines[i][-by:]
        shifts[i] = shifts.get(i, 0) - by
    return Source("\n".join(lines), shifts)


def _cut_after_quote(source: Source, broken: Broken, notes: Notes) -> Source | None:
    """Text behind a closing quote: an error, but what follows is still read, for its own problems."""
    quoted = broken.before
    if quoted is None or not quoted.quote:
        return None
    start, end = quoted.start, quoted.end
    line_end = source.text.find("\n", end)
    line_end = len(source.text) if line_end < 0 else line_end
    rest = source.text[end:line_end]
    if "\n" in source.text[start:end] or not end <= broken.index < line_end or not rest.strip() or rest[:1] == ":":
        return None
    key = source.lines[source.line_of(start)].split(":")[0].strip(" -\"'")
    found = shown(rest.strip(), key=key)
    notes.error(
        source.at(end + len(rest) - len(rest.lstrip())),
        Kind.TEXT_AFTER_QUOTE,
        f"the quoted value {shown(quoted.text, key=key)} ended at its second {quoted.quote}, and {found} follows. "
        + _after_quote(quoted, rest.strip(), found),
        found=found,
        expected="the end of the line",
    )
    return replace(source, text=source.text[:end] + source.text[line_end:])


def _after_quote(quoted: Written, rest: str, found: str) -> str:
    if quoted.quote not in rest:
        return f"A comment comes after a space and `#`: write `# {found.strip('`')}`, or remove it."
    if quoted.quote == '"' and "'" not in quoted.text + rest:
        return 'If the quotes inside are meant, put the whole value between \' instead of ", or write \\" inside.'
    inside = '\\"' if quoted.quote == '"' else "''"
    return f"If the quotes inside are meant, write {inside} for each of them."
