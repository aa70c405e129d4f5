"""Single values that both versions of the file write: variables, ports, durations, directories, models. Pure."""

import json
import posixpath
import re

from ci_bot.config.mask import shown
from ci_bot.config.nodes import Entry, Scalar
from ci_bot.config.problems import At, Kind, Notes
from ci_bot.config.section import Section, normal, what, whole_number

MODEL_TYPES = ("Tensorflow", "ONNX", "Custom")
MAX_PORT = 65_535
MAX_PORTS = 100
MAX_TIMEOUT_S = 366 * 24 * 3600
MAX_RETRIES = 100

_DURATION = re.compile(r"(?:(\d{1,5})d)?\s*(?:(\d{1,5})h)?\s*(?:(\d{1,6})m)?\s*(?:(\d{1,8})s)?")
_SYSTEM = (
    "/bin",
    "/boot",
    "/dev",
    "/etc",
    "/lib",
    "/lib32",
    "/lib64",
    "/proc",
    "/run",
    "/sbin",
    "/sys",
    "/usr",
    "/var",
)


def environment(section: Section, key: str = "experimentEnv") -> dict[str, str]:
    """The variables of the user's command; values are text exactly as written."""
    node = section.get(key)
    if isinstance(node, Scalar):
        return _json_environment(section, key, node)
    mapping = section.mapping(key)
    variables: dict[str, str] = {}
    for entry in mapping.entries if mapping else ():
        value = _variable(entry, section.path(key), section.notes)
        if value is not None:
            variables[entry.key.text] = value
    return variables


def _json_environment(section: Section, key: str, node: Scalar) -> dict[str, str]:
    """The command-line form: one text that is a JSON object."""
    try:
        parsed = json.loads(node.text, parse_int=str, parse_float=str, parse_constant=str)
    except (ValueError, RecursionError):
        parsed = None
    words = {True: "true", False: "false", None: ""}
    if not isinstance(parsed, dict) or any(isinstance(value, dict | list) for value in parsed.values()):
        section.wrong(key, "a mapping of names to texts", f"`{key}:` and below it `NAME: value`, one a line, indented")
        return {}
    entries = [
        Entry(Scalar(name, False, node.at), Scalar(value if isinstance(value, str) else words[value], False, node.at))
        for name, value in parsed.items()
    ]
    found = ((entry.key.text, _variable(entry, section.path(key), section.notes)) for entry in entries)
    return {name: value for name, value in found if value is not None}


def _variable(entry: Entry, where: str, notes: Notes) -> str | None:
    name, value = entry.key.text, entry.value
    path = f"{where}.{name}"
    if not name or "=" in name or not name.isprintable() or " " in name:
        message = f"{shown(path)}: a variable's name has letters, digits and `_`. Write `NAME: value`."
        notes.error(entry.key.at, Kind.VALUE, message, found=shown(name), expected="a variable's name")
        return None
    if not isinstance(value, Scalar):
        message = f"{shown(path)} must be a text or a number; found {what(value)}. Put it in quotes, as JSON say."
        notes.error(value.at, Kind.VALUE, message, found=what(value), expected="a text or a number")
        return None
    if "\0" in value.text:
        notes.error(
            value.at, Kind.VALUE, f"{shown(path)} holds the character NUL, which no variable can. Remove `\\0`."
        )
        return None
    if value.text.strip().startswith("secret:"):
        message = (
            f"{shown(path)} refers to {shown(value.text)}, and there are no secrets yet. It is never passed on as "
            "text. Remove the line, or have the command read the credential from a file below /storage."
        )
        notes.error(value.at, Kind.SECRET, message, found=shown(value.text), expected="a literal value")
        return None
    if value.null:
        message = f'{shown(path)} has no value and becomes the empty text. Write `{name}: ""` to say so.'
        notes.warning(entry.key.at, Kind.VALUE, message, found="nothing", expected='`""`')
        return ""
    return value.text


def ports(section: Section) -> tuple[int, ...]:
    """The ports of `ports`: numbers, or `host:container` of which the container's counts, listed or with commas."""
    found: list[int] = []
    for scalar in section.texts("ports") or ():
        parts = [part.rpartition(":")[2] for part in re.split(r"[,\s]+", scalar.text) if part]
        numbers = [number for part in parts if (number := whole_number(Scalar(part, True, scalar.at))) is not None]
        if len(numbers) < len(parts) or not all(1 <= number <= MAX_PORT for number in numbers):
            expected = f"port numbers from 1 to {MAX_PORT}"
            section.wrong("ports", expected, '`ports: "5000"`', is_example=True, item=scalar)
        found += numbers
    if len(found) > MAX_PORTS:
        section.wrong("ports", f"at most {MAX_PORTS} port numbers", '`ports: "5000"`', is_example=True)
    return tuple(dict.fromkeys(found))


def timeout(section: Section) -> int | None:
    """The time limit of `timeout` in seconds: a whole number of them, or `30m`, `2h`, `1h30m`, `1d`."""
    text = section.text("timeout")
    if text is None:
        return None
    node = section.get("timeout")
    seconds = whole_number(node) if node else None
    match = _DURATION.fullmatch(text.strip().lower())
    if seconds is None and match and text.strip():
        units = zip(match.groups(), (24 * 3600, 3600, 60, 1), strict=True)
        seconds = sum(int(count) * unit for count, unit in units if count)
    if seconds is None or not 1 <= seconds <= MAX_TIMEOUT_S:
        section.wrong(
            "timeout", "a time of 1 second to 366 days", "`timeout: 3600` (seconds), `30m` or `2h`", is_example=True
        )
        return None
    return seconds


def retries(section: Section) -> int | None:
    """How often a failed command is tried again."""
    return section.integer("retries", 0, MAX_RETRIES)


def path_within(section: Section, key: str, *, example: str, kind: Kind = Kind.VALUE) -> str | None:
    """A file's path in the repository, as written."""
    text = section.text(key)
    if text is None:
        return None
    path = posixpath.normpath(text)
    if text.startswith("/") or path == "." or path.split("/")[0] == ".." or "\\" in text or not text.isprintable():
        expected = "a file's path within the repository, with `/`"
        section.wrong(key, expected, f"`{key}: {example}`", kind=kind, is_example=True)
        return None
    return text


def directory(section: Section, key: str, *, example: str = "/home/me") -> str | None:
    """An absolute directory inside the experiment's container or sandbox."""
    text = section.text(key)
    if text is None:
        return None
    clean = posixpath.normpath(text)
    parts = text.split("/")
    if not text.startswith("/") or ".." in parts or not text.isprintable():
        section.wrong(
            key,
            "an absolute directory without `..`",
            f"`{key}: {example}`; to run in a folder of the repository, begin the command with `cd folder && `",
            is_example=True,
        )
        return None
    if clean in {"/", "//"} or any(clean == each or clean.startswith(f"{each}/") for each in _SYSTEM):
        section.wrong(key, "a directory that hides nothing of the system", f"`{key}: {example}`", is_example=True)
        return None
    return text


def model_type(section: Section, key: str = "type") -> str | None:
    """One of the original's model types; any other word is taken as `Custom`, with a warning."""
    text = section.text(key)
    if text is None or text in MODEL_TYPES:
        return text
    known = next((each for each in MODEL_TYPES if normal(each) == normal(text)), None)
    right = known or "Custom"
    reason = "" if known else " (models of no other type are parsed)"
    write = f"`{key}: {known}`" if known else f"one of {', '.join(MODEL_TYPES)}"
    message = f"the model type {shown(text)} was read as `{right}`{reason}. Write {write}."
    kind = Kind.SPELLING if known else Kind.MODEL_TYPE
    section.notes.warning(value_at(section, key), kind, message, found=shown(text), expected=", ".join(MODEL_TYPES))
    return right


def value_at(section: Section, key: str) -> At:
    """Where a key's value stands."""
    node = section.get(key)
    return node.at if node else section.at(key)
