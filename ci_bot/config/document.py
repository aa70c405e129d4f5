"""A file's bytes to its tree: decoded, repaired where the mistake is known, else diagnosed. Pure."""

from ci_bot.config.nodes import Broken, Node, compose
from ci_bot.config.problems import START, Kind, Notes
from ci_bot.config.repair import repair
from ci_bot.config.source import decode
from ci_bot.config.syntax import diagnose

MAX_REPAIRS = 20


def read(content: bytes, notes: Notes) -> Node | None:
    """The root of a YAML file, or None after noting why there is none."""
    source = decode(content, notes)
    if source is None:
        return None
    errors_before = len(notes.problems)
    for _ in range(MAX_REPAIRS):
        attempt = Notes(notes.path)
        outcome = compose(source, attempt)
        if not isinstance(outcome, Broken):
            notes.problems += attempt.problems
            if outcome is None and len(notes.problems) == errors_before:
                notes.error(
                    START, Kind.EMPTY, "the file is empty, or holds only comments. Write `version: 1` and so on."
                )
            return outcome
        repaired = repair(source, outcome, notes)
        if repaired is None:
            notes.problems += attempt.problems
            diagnose(source, outcome, notes)
            return None
        source = repaired
    notes.error(START, Kind.SYNTAX, f"the file has more than {MAX_REPAIRS} mistakes of the same kind; see the others.")
    return None
