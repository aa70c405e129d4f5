"""What a configuration file says: its experiments, or its problems. Pure."""

from ci_bot.config.checks import Check
from ci_bot.config.filters import Triggers
from ci_bot.config.problems import Problem, Severity
from launcher.experiment import Specification, Value


class ConfiguredExperiment(Value):
    """One experiment of a configuration file.

    `line` is where it begins in the file (the step, or `worker`). `unread_params_file` is the parameters file that was
    taken on trust, because there was no way to read it: the specification then has no groups, and cannot be run.
    """

    specification: Specification
    triggers: Triggers = Triggers()
    checks: tuple[Check, ...] = ()
    project: str | None = None
    line: int
    unread_params_file: str | None = None

    @property
    def name(self) -> str:
        return self.specification.name


class Configuration(Value):
    """A configuration file as read; `version` as written. With an error there are no experiments: nothing runs."""

    path: str
    version: int | float | str | None
    experiments: tuple[ConfiguredExperiment, ...]
    problems: tuple[Problem, ...]

    @property
    def ok(self) -> bool:
        """Whether the file has no error; warnings are allowed."""
        return not self.errors

    @property
    def errors(self) -> tuple[Problem, ...]:
        return tuple(each for each in self.problems if each.severity is Severity.ERROR)

    @property
    def warnings(self) -> tuple[Problem, ...]:
        return tuple(each for each in self.problems if each.severity is Severity.WARNING)
