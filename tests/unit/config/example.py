"""Small configurations that the tests start from."""

from collections.abc import Mapping

from ci_bot.config import Configuration, ConfiguredExperiment, Kind, Problem, Severity, parse

FILE = ".descent/config.yaml"
ONE_NODE = "version: 1\ntype: single\nworker:\n  command: python train.py\n"
STEP = """\
version: 2
workflows:
  train:
    steps:
      - name: mnist
        command: experiment.run_single_node
        params:
          command: python train.py
"""


def read(text: str | bytes, files: Mapping[str, bytes] | None = None) -> Configuration:
    """A configuration with the parameters files of its commit; without any, every such file is absent."""
    content = text.encode() if isinstance(text, str) else text
    return parse(content, path=FILE, repository_name="repo", read_params=(files or {}).get)


def only(text: str, files: Mapping[str, bytes] | None = None) -> ConfiguredExperiment:
    """The one experiment of a configuration without errors."""
    configuration = read(text, files)
    assert configuration.ok, configuration.problems
    (experiment,) = configuration.experiments
    return experiment


def kinds(configuration: Configuration) -> list[tuple[int, Severity, Kind]]:
    """Line, severity and kind of each problem."""
    return [(each.line, each.severity, each.kind) for each in configuration.problems]


def problem(text: str | bytes, files: Mapping[str, bytes] | None = None) -> Problem:
    """The one problem of a configuration."""
    (found,) = read(text, files).problems
    return found
