"""What `descent check` says of a configuration, for programs and for people. Pure."""

import json
from pathlib import PurePath
from typing import Any

from ci_bot.config.mask import mask_text
from ci_bot.config.model import Configuration, ConfiguredExperiment
from ci_bot.config.parse import parse
from ci_bot.config.problems import Problem


def check_file(path: PurePath, source: bytes) -> Configuration:
    """A file on its own: parameters files are taken on trust, and its folder stands for the repository.

    Args:
        path: where the file is, absolute if the folder's name is to be known; it is not opened.
        source: what it holds.
    """
    folders = [name for name in path.parent.parts if name not in {"/", "..", ".ps_project", ".descent"}]
    name = folders[-1] if folders else "repository"
    return parse(source, path=str(path), repository_name=name, read_params=None)


def result(configuration: Configuration, file: str) -> dict[str, Any]:
    """The answer for one file, as JSON values. A problem in a parameters file also carries that file's `path`."""
    return {
        "file": file,
        "ok": configuration.ok,
        "version": configuration.version,
        "experiments": [_experiment(each) for each in configuration.experiments],
        "problems": [_problem(each, configuration.path) for each in configuration.problems],
    }


def json_line(configuration: Configuration, file: str) -> str:
    """`result` as one line of JSON."""
    return json.dumps(result(configuration, file))


def lines(configuration: Configuration, file: str) -> list[str]:
    """The problems, one a line as compilers write them; "ok" without an error; then the experiments understood."""
    found = []
    for problem in configuration.problems:
        where = file if problem.path == configuration.path else problem.path
        found.append(f"{where}:{problem.line}:{problem.column}: {problem.severity}: {problem.message}")
    if configuration.ok:
        counts = [_plural(len(configuration.experiments), "experiment")]
        counts += [_plural(len(found), "warning")] if found else []
        found.append(f"{file}: ok, {', '.join(counts)}")
    for each in configuration.experiments:
        groups = ", ".join(f"{group.role} × {group.count}" for group in each.specification.groups)
        found.append(f"{file}: {each.name}: {each.specification.topology}" + (f" ({groups})" if groups else ""))
    return found


def _plural(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _experiment(experiment: ConfiguredExperiment) -> dict[str, Any]:
    groups = {
        group.role.value: {
            "count": group.count,
            "machine_type": group.machine_type,
            "container": group.container,
            "command": mask_text(group.command),
        }
        for group in experiment.specification.groups
    }
    return {"name": experiment.name, "type": experiment.specification.topology, "groups": groups}


def _problem(problem: Problem, path: str) -> dict[str, Any]:
    place = {"line": problem.line, "column": problem.column}
    said = {"severity": problem.severity.value, "message": problem.message}
    return {**place, **said} if problem.path == path else {**place, **said, "path": problem.path}
