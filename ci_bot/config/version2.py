"""Version 2 of the file: workflows, each with one step, each step an experiment. Pure."""

from dataclasses import dataclass

from ci_bot.config.checks import Check, read_checks
from ci_bot.config.filters import Triggers, triggers_of
from ci_bot.config.mask import shown
from ci_bot.config.model import ConfiguredExperiment
from ci_bot.config.names import check_name, unique_names
from ci_bot.config.nodes import Entry, Mapping, Node, Sequence
from ci_bot.config.params_files import ParamsFiles, ReadParams
from ci_bot.config.problems import Kind, Notes
from ci_bot.config.section import Keys, Section, what
from ci_bot.config.step import Step, misplaced, read_step

MAX_EXPERIMENTS = 50

_FILTERS = {"filters": "triggers", "filter": "triggers", "trigger": "triggers"}
TOP = Keys(("version", "workflows"), {"workflow": "workflows"})
WORKFLOW = Keys(("triggers", "steps"), {**_FILTERS, "step": "steps"})
TRIGGERS = Keys(("triggers",), _FILTERS)
CHECKS = Keys(("checks",))
PROJECT = Keys(("projectId",), {"project": "projectId", "projecthandle": "projectId"})


@dataclass(frozen=True)
class _Outer:
    """What stands above the steps although it belongs into them or into their workflows."""

    triggers: Triggers | None
    checks: tuple[Check, ...]
    project: str | None


def read(node: Mapping, read_file: ReadParams | None, notes: Notes) -> tuple[ConfiguredExperiment, ...]:
    """The experiments of the file, those that lack nothing.

    Args:
        node: the file's root.
        read_file: gives a parameters file of the same commit, None when there is none; without it such files are
            taken on trust.
        notes: where the problems go.
    """
    top = Section(node, "", TOP, notes)
    project = misplaced(top, PROJECT, "in each step's `params`")
    outer = _Outer(
        triggers=_triggers(misplaced(top, TRIGGERS, "in each workflow, beside `steps`")),
        checks=_checks(misplaced(top, CHECKS, "in each step, beside `name`")),
        project=project.text("projectId") if project else None,
    )
    top.report_unknown()
    workflows = top.mapping("workflows")
    if workflows is None or not workflows.entries:
        if workflows is not None or not top.has("workflows"):
            top.missing("workflows", "`workflows:` with a workflow below it, and its `steps:` below that")
        return ()
    files = ParamsFiles(read_file, notes) if read_file else None
    steps: list[Step] = []
    for entry in workflows.entries[:MAX_EXPERIMENTS]:
        steps += _workflow(entry, outer, files, room=MAX_EXPERIMENTS - len(steps), notes=notes)
    _judge_number(workflows, notes)
    return _experiments(steps, notes)


def _judge_number(workflows: Mapping, notes: Notes) -> None:
    number = len(workflows.entries)
    if number > MAX_EXPERIMENTS:
        at, expected = workflows.entries[MAX_EXPERIMENTS].key.at, f"at most {MAX_EXPERIMENTS}"
        message = (
            f"`workflows` has {number} workflows; {expected} are taken from one file, and this is one more. "
            "Remove some, or have one command do the work of several."
        )
        notes.error(at, Kind.LIMIT, message, found=f"{number} workflows", expected=expected)


def _triggers(section: Section | None) -> Triggers | None:
    return triggers_of(section, "triggers") if section else None


def _checks(section: Section | None) -> tuple[Check, ...]:
    node = section.mapping("checks") if section else None
    return read_checks(node, section.path("checks"), section.notes) if section and node else ()


def _workflow(entry: Entry, outer: _Outer, files: ParamsFiles | None, *, room: int, notes: Notes) -> list[Step]:
    """The workflow's steps, so many as there is room for."""
    name = entry.key.text
    where = f"workflows.{name}"
    if not isinstance(entry.value, Mapping):
        found = what(entry.value)
        message = f"{shown(where)} must be a mapping with `steps`; found {found}. Write `steps:` below it, indented."
        notes.error(entry.key.at, Kind.VALUE, message, found=found, expected="a mapping")
        return []
    section = Section(entry.value, where, WORKFLOW, notes)
    own = triggers_of(section, "triggers")
    inherited = _checks(misplaced(section, CHECKS, "in the step, beside `name`")) or outer.checks
    section.report_unknown()
    steps: list[Step] = []
    nodes = _steps(section)
    for node in nodes[:room]:
        step = Section(node, section.path("steps"), Step.KEYS, notes)
        inside = misplaced(step, TRIGGERS, "in the workflow, beside `steps`")
        lower = _triggers(inside)
        if own is not None and lower is not None and inside is not None:
            message = f"{shown(where)} has `triggers` already, outside its step. Remove one of the two."
            notes.error(inside.at("triggers"), Kind.DUPLICATE_KEY, message, found="two `triggers`", expected="one")
        checks = _checks(step)
        named = {check.identifier for check in checks}
        checks += tuple(check for check in inherited if check.identifier not in named)
        steps.append(
            read_step(step, name, files, alone=len(nodes) == 1).with_outer(
                own or lower or outer.triggers, checks, outer.project
            )
        )
    return steps


def _steps(section: Section) -> tuple[Mapping, ...]:
    """The workflow's steps; the original ran one, so a second one is an error and not a guess at what it would do."""
    node: Node | None = section.get("steps")
    if node is None:
        section.missing("steps", "`steps:` and below it `- name: train`, with `command` and `params`", is_example=True)
        return ()
    if isinstance(node, Mapping):
        message = (
            f"{shown(section.path('steps'))} is a mapping, and was read as a list of one step. "
            "Write `- ` before its first key, and indent the others like it."
        )
        section.notes.warning(node.at, Kind.STEPS, message, found="a mapping", expected="a list")
        node = Sequence((node,), node.at)
    if not isinstance(node, Sequence) or not node.items:
        section.wrong("steps", "a list with one step", "`- name: train` below it, indented", kind=Kind.STEPS)
        return ()
    for item in node.items[1:]:
        message = (
            f"{shown(section.where)} has a second step here; a workflow has one. Put it into a workflow of its own "
            "(they run side by side), or join the commands of both with `&&`."
        )
        section.notes.error(item.at, Kind.STEPS, message, found=f"{len(node.items)} steps", expected="one step")
    steps = []
    for item in node.items:
        if isinstance(item, Mapping):
            steps.append(item)
            continue
        message = f"a step must be a mapping; found {what(item)}. Write `- name: train`, its other keys below `name`."
        section.notes.error(item.at, Kind.STEPS, message, found=what(item), expected="a mapping")
    return tuple(steps)


def _experiments(steps: list[Step], notes: Notes) -> tuple[ConfiguredExperiment, ...]:
    names = unique_names([(step.workflow, step.name) for step in steps])
    seen: dict[str, str] = {}
    experiments = []
    for step, name in zip(steps, names, strict=True):
        if not check_name(name, step.at, notes, write="`name:` of the step"):
            continue
        if seen.setdefault(name, step.workflow) != step.workflow:  # else it is a second step, and that was said
            message = f"{shown(name)} names two experiments. Give their steps different names."
            notes.error(step.at, Kind.NAME, message, found=shown(name), expected="each name once")
        experiment = step.experiment(name)
        if experiment is not None:
            experiments.append(experiment)
    return tuple(experiments)
