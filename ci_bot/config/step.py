"""A step of version 2: its command, and its parameters, inline or in a file of their own. Pure."""

import posixpath
from dataclasses import dataclass, replace
from typing import ClassVar

from ci_bot.config import params, values
from ci_bot.config.checks import Check
from ci_bot.config.filters import Triggers
from ci_bot.config.mask import shown
from ci_bot.config.model import ConfiguredExperiment
from ci_bot.config.nodes import Mapping, Scalar
from ci_bot.config.params import Params, commands
from ci_bot.config.params_files import ParamsFiles
from ci_bot.config.problems import At, Kind, Notes
from ci_bot.config.section import Keys, Section, normal, what
from launcher.experiment import Specification


@dataclass(frozen=True)
class Step:
    """A step as read, before its experiment has its name; `params` is None where one is wrong or unread."""

    KEYS: ClassVar[Keys] = Keys(("name", "command", "params", "paramsFile", "checks", "timeout", "retries"))

    workflow: str
    name: str
    at: At
    line: int
    command: str | None
    params: Params | None
    unread_params_file: str | None
    timeout_s: int | None
    retries: int | None
    triggers: Triggers | None = None
    checks: tuple[Check, ...] = ()
    project: str | None = None

    def with_outer(self, triggers: Triggers | None, checks: tuple[Check, ...], project: str | None) -> "Step":
        """This step with what its surroundings say."""
        return replace(self, triggers=triggers, checks=checks, project=project)

    def experiment(self, name: str) -> ConfiguredExperiment | None:
        """The experiment under its final name; None when something that it needs is wrong."""
        read = self.params
        if self.command is None or (read is None and self.unread_params_file is None):
            return None
        limits = {"timeout_s": self.timeout_s, "retries": self.retries or 0}
        if read is None:
            specification = Specification(name=name, topology=commands()[self.command][0], groups=(), **limits)
        else:
            specification = Specification(
                name=name,
                topology=read.topology,
                groups=read.groups,
                env=read.env,
                ports=read.ports,
                workdir=read.workdir,
                artifacts=read.artifacts,
                model_type=read.model_type,
                model_path=read.model_path,
                timeout_s=self.timeout_s or read.timeout_s,
                retries=(read.retries if self.retries is None else self.retries) or 0,
            )
        return ConfiguredExperiment(
            specification=specification,
            triggers=self.triggers or Triggers(),
            checks=self.checks,
            project=(read.project if read else None) or self.project,
            line=self.line,
            unread_params_file=self.unread_params_file,
        )


def misplaced(section: Section, keys: Keys, belongs: str) -> Section | None:
    """The entries that these keys know and the section does not, as a section of their own, each with a warning."""
    taken = section.take_unknown(keys)
    for key, entry in taken:
        message = f"{shown(section.path(key))} belongs {belongs}; it was read as if it stood there. Move it there."
        section.notes.warning(entry.key.at, Kind.MISPLACED, message, found=f"`{key}`", expected=belongs)
    if not taken:
        return None
    return Section(Mapping(tuple(entry for _, entry in taken), section.start), section.where, keys, section.notes)


def read_step(section: Section, workflow: str, files: ParamsFiles | None, *, alone: bool) -> Step:
    """A step, with every problem in it noted; one that is not alone is to go elsewhere, where it gets another name."""
    name = section.text("name")
    if alone and name is None and not section.has("name"):
        right = shown(f"name: {workflow}")
        message = f"the step has no name, and was given its workflow's. Write, for example, {right}."
        section.notes.warning(section.at("name"), Kind.MISSING, message, found="nothing", expected="`name`")
    name = name or workflow
    command = _command(section)
    read, unread = _params(section, command, name, files)
    section.report_unknown()
    return Step(
        workflow=workflow,
        name=name,
        at=values.value_at(section, "name"),
        line=section.start.line,
        command=command,
        params=read,
        unread_params_file=unread,
        timeout_s=values.timeout(section),
        retries=values.retries(section),
    )


def _command(section: Section) -> str | None:
    known = ", ".join(commands())
    if not section.has("command"):
        section.missing("command", f"`command: experiment.run_single_node`; known are {known}")
        return None
    text = section.text("command") or ""
    command = next((each for each in commands() if normal(each) == normal(text)), None)
    if command is None:
        write = "`command: experiment.run_single_node`, and what is to run as `command` below `params`"
        section.wrong("command", f"one of {known}", write, kind=Kind.TYPE)
    elif command != text:
        message = f"{shown(text)} was read as `{command}`. Write `command: {command}`."
        at = values.value_at(section, "command")
        section.notes.warning(at, Kind.SPELLING, message, found=shown(text), expected=f"`{command}`")
    return command


def _params(
    section: Section, command: str | None, name: str, files: ParamsFiles | None
) -> tuple[Params | None, str | None]:
    """The parameters, or the path of the file that holds them and was not read."""
    loose = misplaced(section, params.KEYS, "in the step's `params`")
    inline = section.mapping("params")
    entries = (*(inline.entries if inline else ()), *(loose.entries if loose else ()))
    written = Mapping(entries, inline.at if inline else section.start)
    if not section.has("paramsFile"):
        if not entries and not section.has("params"):
            section.missing("params", "`params:` and below it `command: python train.py`", is_example=True)
            return None, None
        return _read(Section(written, section.path("params"), params.KEYS, section.notes), command, name), None
    if entries:
        _refuse_both(section, written, command, name)
    path = values.path_within(section, "paramsFile", example=".ps_project/train.yaml", kind=Kind.PARAMS_FILE)
    if path is None:
        return None, None
    path = posixpath.normpath(path)
    if files is None:
        message = f"{shown(path)} was not read: the file is checked alone, and the parameters file is taken on trust."
        at = values.value_at(section, "paramsFile")
        section.notes.warning(at, Kind.PARAMS_FILE, message, found=shown(path))
        return None, path
    return _from_file(section, path, command, name, files=files), None


def _refuse_both(section: Section, written: Mapping, command: str | None, name: str) -> None:
    """Note that there are parameters beside a file of them, and what else is wrong with them.

    What they lack is no problem of theirs: the file may have it.
    """
    message = f"{shown(section.where)} has both `params` and `paramsFile`; one of them is expected. Remove the other."
    section.notes.error(section.at("paramsFile"), Kind.PARAMS_FILE, message, found="both", expected="one of the two")
    apart = Notes(section.notes.path)
    _read(Section(written, section.path("params"), params.KEYS, apart), command, name)
    section.notes.take(each for each in apart.problems if each.kind is not Kind.MISSING)


def _read(section: Section, command: str | None, name: str) -> Params | None:
    if command is None:
        # what kind it is was not understood; a single node's parameters are still read for their own problems
        if not any(section.has(key) for key in params.MULTI):
            params.read_params(section, "experiment.run_single_node", name)
        return None
    return params.read_params(section, command, name)


def _from_file(section: Section, path: str, command: str | None, name: str, *, files: ParamsFiles) -> Params | None:
    file = files.find(path)
    if file is None:
        section.wrong("paramsFile", "a file of this commit", "the path of one that exists", kind=Kind.PARAMS_FILE)
        return None
    root = file.root
    if isinstance(root, Mapping):
        return _read(Section(root, "", params.KEYS, file.notes), command, name)
    if root is not None:
        found = what(root) if not isinstance(root, Scalar) else "a single value"
        message = f"a parameters file is a mapping; found {found}. Write `command: python train.py` and so on."
        file.notes.error(root.at, Kind.PARAMS_FILE, message, found=found, expected="a mapping")
    return None
