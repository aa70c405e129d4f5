"""A configuration file's bytes to its experiments, or to every problem with its place. Pure."""

import re

from ci_bot.config import params, version1, version2
from ci_bot.config.document import read
from ci_bot.config.mask import shown
from ci_bot.config.model import Configuration, ConfiguredExperiment
from ci_bot.config.nodes import Mapping, Node, Scalar
from ci_bot.config.params_files import ReadParams
from ci_bot.config.problems import START, Kind, Notes, Problem, Severity, TooManyProblems
from ci_bot.config.section import Keys, Section, normal, what

Version = int | float | str | None

MAX_PROBLEMS = 500
_TOP = Keys(("version", "worker", "workflows"), {"workflow": "workflows"})
_ONLY_OPTIONS = frozenset(map(normal, params.KEYS.known)) - frozenset(map(normal, version1.KEYS.known)) - {"name"}


def parse(source: bytes, *, path: str, repository_name: str, read_params: ReadParams | None) -> Configuration:
    """Everything a configuration file says; it never raises, whatever the bytes.

    Args:
        source: the file.
        path: its path in the repository, for the problems.
        repository_name: the name of a version 1 experiment that gives none.
        read_params: gives a `paramsFile` of the same commit, None when there is no such file. Without it the file
            stands alone: parameters files are taken on trust, with a warning each.
    """
    notes = Notes(path)
    version: Version = None
    experiments: tuple[ConfiguredExperiment, ...] = ()
    try:
        version, experiments = _read(source, repository_name, read_params, notes)
    except TooManyProblems:
        notes.too_many()
    failed = any(each.severity is Severity.ERROR for each in notes.problems)
    return Configuration(
        path=path,
        version=version,
        experiments=() if failed else experiments,
        problems=_presented(notes.problems, path),
    )


def _presented(problems: tuple[Problem, ...], path: str) -> tuple[Problem, ...]:
    """The problems in the file's order; of too many the warnings are left out first, and how many at the end."""
    ordered = sorted(problems, key=lambda each: (each.path != path, each.path, each.line, each.column))
    graver = sorted(ordered, key=lambda each: each.severity is not Severity.ERROR)
    kept, left = frozenset(graver[:MAX_PROBLEMS]), graver[MAX_PROBLEMS:]
    if not left:
        return tuple(ordered)
    more = "1 more problem" if len(left) == 1 else f"{len(left)} more problems"
    message = f"… {more} from here on: only {MAX_PROBLEMS} are listed, errors first. Correct those that are."
    last = left[0].model_copy(update={"kind": Kind.LIMIT, "message": message, "found": None, "expected": None})
    return (*(each for each in ordered if each in kept), last)


def _read(
    source: bytes, repository_name: str, read_params: ReadParams | None, notes: Notes
) -> tuple[Version, tuple[ConfiguredExperiment, ...]]:
    root = read(source, notes)
    if isinstance(root, Mapping):
        return _configuration(root, repository_name, read_params, notes)
    if isinstance(root, Scalar) and root.null:
        notes.error(START, Kind.EMPTY, "the file is empty. Write `version: 1` and so on.", found="nothing")
    elif root is not None:
        message = f"a configuration is a mapping; found {what(root)}. Write `version: 1` and so on, one key a line."
        notes.error(root.at, Kind.SYNTAX, message, found=what(root), expected="a mapping")
    return None, ()


def _configuration(
    root: Mapping, repository_name: str, read_params: ReadParams | None, notes: Notes
) -> tuple[Version, tuple[ConfiguredExperiment, ...]]:
    quiet = Section(root, "", _TOP, Notes(notes.path))  # looked at here only; the version's reader notes the problems
    version = _as_written(quiet.get("version"))
    if version is None and not quiet.has("worker") and not quiet.has("workflows") and _is_options_file(root):
        _refuse_options_file(notes)
        return None, ()
    second = quiet.has("workflows") and not (quiet.has("worker") and version in (0, 1))
    second = second or (version == 2 and not quiet.has("worker"))
    known = _judge_version(quiet, version, second, notes)
    if not known and not quiet.has("worker") and not quiet.has("workflows"):
        return version, ()  # in what shape it should be is not known
    if second:
        return version, version2.read(root, read_params, notes)
    experiment = version1.read(root, repository_name, notes)
    return version, (experiment,) if experiment else ()


def _as_written(node: Node | None) -> Version:
    if not isinstance(node, Scalar):
        return None
    if re.fullmatch(r"[0-9]{1,9}", node.text):
        return int(node.text)
    if re.fullmatch(r"[0-9]{1,9}\.[0-9]{1,9}", node.text):
        return float(node.text)
    return node.text[:80]


def _judge_version(section: Section, version: Version, second: bool, notes: Notes) -> bool:
    """Whether the version, if one is written, is known; notes what is wrong with it."""
    right = f"`version: {2 if second else 1}`"
    node = section.get("version")
    if node is None:
        message = f"`version` is missing. Write {right} as the first line."
        notes.error(section.at("version") if version else START, Kind.VERSION, message, found="nothing", expected=right)
        return True
    found = what(node)
    near = re.fullmatch(r"[vV]?([012])(\.[0-9]{1,9})?", node.text) if isinstance(node, Scalar) else None
    if near is None:
        message = f"{found} is not a known version; expected 0, 1 or 2. Write {right}."
        notes.error(node.at, Kind.VERSION, message, found=found, expected="0, 1 or 2")
    elif (near[1] == "2") != second:
        shape = "`workflows`, which only version 2 has" if second else "no `workflows`, which version 2 needs"
        message = f"the version is {found}, but the file has {shape}; it was read as such. Write {right}."
        notes.warning(node.at, Kind.VERSION, message, found=found, expected=right)
    elif not isinstance(version, int):
        message = f"the version {found} was read as {near[1]}. Write `version: {near[1]}`."
        notes.warning(node.at, Kind.VERSION, message, found=found, expected=near[1])
    return near is not None


def _is_options_file(root: Mapping) -> bool:
    return any(normal(entry.key.text) in _ONLY_OPTIONS for entry in root.entries)


def _refuse_options_file(notes: Notes) -> None:
    message = (
        "this is a file of command-line options and no configuration: it has neither `version` nor `worker` nor "
        f"`workflows`. Keep it under another name, and write a file with `version: 2` whose step has, "
        f"for example, `paramsFile: {shown('.ps_project/train.yaml').strip('`')}`; or put "
        "its lines below the step's `params`."
    )
    notes.error(START, Kind.OPTIONS_FILE, message, found="command-line options", expected="a configuration")
