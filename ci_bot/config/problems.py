"""What is wrong with a configuration file, and where; every problem, never only the first. Pure."""

from enum import StrEnum
from typing import NamedTuple

from launcher.experiment import Value


class Severity(StrEnum):
    """Whether the experiments may run all the same."""

    ERROR = "error"
    WARNING = "warning"


class Kind(StrEnum):
    """What sort of problem it is; the reference for users explains each."""

    # The file as a text and as YAML.
    SIZE = "size"
    ENCODING = "encoding"
    SYNTAX = "syntax"
    TEXT_AFTER_QUOTE = "text-after-quote"
    INDENTATION = "indentation"
    LIMIT = "limit"
    TAG = "tag"
    DUPLICATE_KEY = "duplicate-key"
    DOCUMENTS = "documents"
    EMPTY = "empty"
    # The file as a configuration.
    OPTIONS_FILE = "options-file"
    VERSION = "version"
    TYPE = "type"
    NAME = "name"
    STEPS = "steps"
    PARAMS_FILE = "params-file"
    MISSING = "missing"
    VALUE = "value"
    UNKNOWN_KEY = "unknown-key"
    SPELLING = "spelling"
    MISPLACED = "misplaced"
    IGNORED = "ignored"
    UNUSED = "unused"
    MODEL_TYPE = "model-type"
    FILTER = "filter"
    CHECK = "check"
    DATASETS = "datasets"
    SECRET = "secret"  # noqa: S105 - the name of a kind, no password


class At(NamedTuple):
    """A place in a file, both numbers counted from 1."""

    line: int
    column: int


START = At(1, 1)


class Problem(Value):
    """One problem; its message says what was found, what was expected and what to write."""

    path: str
    line: int
    column: int
    severity: Severity
    kind: Kind
    message: str
    found: str | None = None
    expected: str | None = None


class Notes:
    """The problems of one file, collected while it is read."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.problems: list[Problem] = []

    def error(self, at: At, kind: Kind, message: str, *, found: str | None = None, expected: str | None = None) -> None:
        """Note something that keeps the experiments from running."""
        self._add(Severity.ERROR, at, kind, message, found=found, expected=expected)

    def warning(
        self, at: At, kind: Kind, message: str, *, found: str | None = None, expected: str | None = None
    ) -> None:
        """Note something that was read as meant, or that has no effect."""
        self._add(Severity.WARNING, at, kind, message, found=found, expected=expected)

    def _add(
        self, severity: Severity, at: At, kind: Kind, message: str, *, found: str | None, expected: str | None
    ) -> None:
        problem = Problem(
            path=self.path,
            line=at.line,
            column=at.column,
            severity=severity,
            kind=kind,
            message=message,
            found=found,
            expected=expected,
        )
        if problem not in self.problems:  # a node reached through an alias is read, and judged, more than once
            self.problems.append(problem)
