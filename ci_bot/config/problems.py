"""What is wrong with a configuration file, and where; every problem, never only the first. Pure."""

from collections.abc import Iterable
from enum import StrEnum
from typing import NamedTuple

from launcher.experiment import Value

MAX_NOTED = 2000


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


class TooManyProblems(Exception):
    """Reading has to end here: a file with no end of problems would take no end of time."""


class _Book:
    """What the notes of one reading share; its problems are in the order in which they were noted, each once."""

    def __init__(self) -> None:
        self.problems: dict[Problem, None] = {}
        self.noted = 0


class Notes:
    """The problems of one file, collected while it is read.

    Raises:
        TooManyProblems: from `error` and `warning`, once there were MAX_NOTED, those that came again counted too.
    """

    def __init__(self, path: str, book: _Book | None = None) -> None:
        self.path = path
        self._book = book or _Book()

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What was noted so far, of every file of this reading."""
        return tuple(self._book.problems)

    @property
    def noted(self) -> int:
        """How often something was noted."""
        return self._book.noted

    def of(self, path: str) -> "Notes":
        """The same notes, to be continued for another file."""
        return Notes(path, self._book)

    def take(self, problems: Iterable[Problem]) -> None:
        """Note again what was noted elsewhere."""
        for problem in problems:
            self._keep(problem)

    def too_many(self) -> None:
        """Note that reading had to end."""
        message = f"there are more than {MAX_NOTED} problems, and the rest was not read. Correct the others first."
        self._book.problems[self._problem(Severity.ERROR, START, Kind.LIMIT, message)] = None

    def error(self, at: At, kind: Kind, message: str, *, found: str | None = None, expected: str | None = None) -> None:
        """Note something that keeps the experiments from running."""
        self._keep(self._problem(Severity.ERROR, at, kind, message, found=found, expected=expected))

    def warning(
        self, at: At, kind: Kind, message: str, *, found: str | None = None, expected: str | None = None
    ) -> None:
        """Note something that was read as meant, or that has no effect."""
        self._keep(self._problem(Severity.WARNING, at, kind, message, found=found, expected=expected))

    def _problem(
        self,
        severity: Severity,
        at: At,
        kind: Kind,
        message: str,
        *,
        found: str | None = None,
        expected: str | None = None,
    ) -> Problem:
        return Problem(
            path=self.path,
            line=at.line,
            column=at.column,
            severity=severity,
            kind=kind,
            message=message,
            found=found,
            expected=expected,
        )

    def _keep(self, problem: Problem) -> None:
        self._book.problems[problem] = None  # a node reached through an alias is read, and judged, more than once
        self._book.noted += 1
        if self._book.noted > MAX_NOTED:
            raise TooManyProblems
