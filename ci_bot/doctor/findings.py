"""What an examination found: one line each, with what to do about it. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from ci_bot.report.plain import cut, one_line
from ci_bot.report.redact import redact

_LONGEST = 600


class Level(StrEnum):
    """How much a finding matters; only a problem keeps Descent from doing its work."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True)
class Finding:
    """One fact about the set-up; `todo` says what to do about it, where something is to be done."""

    level: Level
    what: str
    text: str
    todo: str = ""


def ok(what: str, text: str) -> Finding:
    """As it should be."""
    return Finding(Level.OK, what, text)


def warning(what: str, text: str, todo: str = "") -> Finding:
    """It works, and somebody should know."""
    return Finding(Level.WARNING, what, text, todo)


def problem(what: str, text: str, todo: str = "") -> Finding:
    """It does not work."""
    return Finding(Level.PROBLEM, what, text, todo)


def line(finding: Finding, secrets: tuple[str, ...] = ()) -> str:
    """A finding for a terminal, on one line, without anything secret."""
    text = f"{finding.text} → {finding.todo}" if finding.todo else finding.text
    return f"{finding.level.value:<8} {finding.what:<12} {cut(one_line(redact(text, secrets)), _LONGEST)}"


def failed(findings: Iterable[Finding]) -> bool:
    """Whether there is a problem among them."""
    return any(finding.level is Level.PROBLEM for finding in findings)


def told(error: Exception) -> str:
    """An exception as a sentence: its first line, or at least its name."""
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}"
    lines = str(error).strip().splitlines()
    return f"{lines[0]} ({type(error).__name__})" if lines else type(error).__name__
