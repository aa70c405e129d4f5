"""A file's bytes to its tree: decoded, repaired where the mistake is known, else diagnosed. Pure."""

from ci_bot.config.nodes import Broken, Node, compose
from ci_bot.config.problems import START, Kind, Notes, TooManyProblems
from ci_bot.config.repair import repair
from ci_bot.config.source import decode
from ci_bot.config.syntax import diagnose

MAX_REPAIRS = 20
MAX_REREAD = 200_000
"""Characters: after each repair the file is read anew, so a large one is repaired less often."""


def read(content: bytes, notes: Notes) -> Node | None:
    """The root of a YAML file, or None after noting why there is none."""
    source = decode(content, notes)
    if source is None:
        return None
    noted_before = notes.noted
    times = min(MAX_REPAIRS, 2 + MAX_REREAD // (len(source.text) + 1))
    for _ in range(times):
        attempt = Notes(notes.path)
        try:
            outcome = compose(source, attempt)
        except TooManyProblems:
            notes.take(attempt.problems)
            raise
        if not isinstance(outcome, Broken):
            notes.take(attempt.problems)
            if outcome is None and notes.noted == noted_before:
                notes.error(
                    START, Kind.EMPTY, "the file is empty, or holds only comments. Write `version: 1` and so on."
                )
            return outcome
        repaired = repair(source, outcome, notes)
        if repaired is None:
            notes.take(attempt.problems)
            diagnose(source, outcome, notes)
            return None
        source = repaired
    message = "the rest was not read, since the file has many mistakes of the same kind. Correct the others first."
    notes.error(START, Kind.SYNTAX, message)
    return None
