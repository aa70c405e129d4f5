"""Metric checks: what a run's metric must be, parsed and validated; they are judged elsewhere. Pure."""

import re
from collections.abc import Callable
from decimal import Decimal
from enum import StrEnum

from ci_bot.config.mask import shown
from ci_bot.config.nodes import Entry, Mapping, Scalar
from ci_bot.config.problems import Kind, Notes
from ci_bot.config.section import Keys, Section, what
from launcher.experiment import Value

SOURCES = ("tensorflow", "onnx", "custom")
AGGREGATES = ("mean", "stddev", "max", "min", "var", "median")
MAX_PRECISION = 15
MAX_CHECKS = 50
MAX_IDENTIFIER = 80

CHECK = Keys(
    ("target", "aggregate", "round", "precision", "only-pulls", "if-not-found", "comment-on-pr"),
    {"aggregation": "aggregate", "onlyprs": "only-pulls"},
)

_NUMBER = re.compile(r"[+-]?(?:[0-9]{1,30}(?:\.[0-9]{1,30})?|\.[0-9]{1,30})(?:[eE][+-]?[0-9]{1,3})?")


class Rounding(StrEnum):
    """Which way a metric's value is rounded before it is compared."""

    UP = "up"
    DOWN = "down"


class Outcome(StrEnum):
    """What a check says when the run has no such metric."""

    SUCCESS = "success"
    FAILURE = "failure"


class Range(Value):
    """Numbers above `low` and below `high`; None is no bound."""

    low: Decimal | None = None
    high: Decimal | None = None


class Check(Value):
    """One metric check, with every default applied; `identifier` is `source:name`."""

    identifier: str
    target: Range
    aggregate: str
    round: Rounding = Rounding.DOWN
    precision: int = 2
    only_pulls: bool = False
    if_not_found: Outcome = Outcome.FAILURE
    comment_on_pr: bool = True


def parse_range(text: str) -> Range | None:
    """The range that `N`, `N..`, `..N` or `A..B` writes; None for anything else."""
    low, dots, high = text.strip().partition("..")
    low, high = low.strip(), high.strip()
    if not low and not high:
        return None
    if any(part and not _NUMBER.fullmatch(part) for part in (low, high)) or (dots and high.startswith(".") and low):
        return None
    return Range(low=Decimal(low) if low else None, high=Decimal(high) if high else None)


def read_checks(node: Mapping, where: str, notes: Notes) -> tuple[Check, ...]:
    """The checks of a `checks` mapping; its `defaults` fill what an identifier leaves out."""
    defaults = _defaults(node, where, notes)
    entries = [entry for entry in node.entries if entry.key.text not in {"defaults", "default"}]
    if len(entries) > MAX_CHECKS:
        message = f"`{where}` has {len(entries)} checks; at most {MAX_CHECKS} are taken. Remove some."
        notes.error(node.at, Kind.CHECK, message, found=str(len(entries)), expected=f"at most {MAX_CHECKS}")
    checks = []
    for entry in entries[:MAX_CHECKS]:
        named = _named_well(entry, where, notes)
        check = _check(entry, where, defaults, notes)
        if named and check is not None:
            checks.append(check)
    return tuple(checks)


def _defaults(node: Mapping, where: str, notes: Notes) -> Section | None:
    section = None
    for entry in node.entries:
        if entry.key.text not in {"defaults", "default"}:
            continue
        if entry.key.text == "default":
            message = f"`{where}.default` was read as `defaults`. Write `defaults`."
            notes.warning(entry.key.at, Kind.SPELLING, message, found="`default`", expected="`defaults`")
        if isinstance(entry.value, Mapping):
            section = Section(entry.value, f"{where}.defaults", CHECK, notes)
            section.report_unknown()
            _judge_defaults(section)
        elif not (isinstance(entry.value, Scalar) and entry.value.null):
            message = (
                f"`{where}.defaults` must be a mapping; found {what(entry.value)}. Write its keys below it, indented."
            )
            notes.error(entry.key.at, Kind.CHECK, message, found=what(entry.value), expected="a mapping")
    return section


def _judge_defaults(defaults: Section) -> None:
    """What is wrong with them whichever check takes them; a check that does says no more."""
    if defaults.has("target"):
        _target(defaults, defaults)
    aggregate = defaults.text("aggregate")
    if aggregate is not None and not aggregate.startswith("/"):  # else for `custom:` metrics
        defaults.choice("aggregate", AGGREGATES, kind=Kind.CHECK)
    _options(lambda _: defaults)


def _named_well(entry: Entry, where: str, notes: Notes) -> bool:
    source, colon, name = entry.key.text.partition(":")
    printable = entry.key.text.isprintable() and len(entry.key.text) <= MAX_IDENTIFIER
    if colon and name.strip() and source in SOURCES and printable:
        return True
    found = shown(entry.key.text)
    expected = f"`source:name`, the source one of {', '.join(SOURCES)}, at most {MAX_IDENTIFIER} printable characters"
    message = f"{found} in `{where}` names no metric; expected {expected}. Write, for example, `tensorflow:loss:`."
    notes.error(entry.key.at, Kind.CHECK, message, found=found, expected=expected)
    return False


def _check(entry: Entry, where: str, defaults: Section | None, notes: Notes) -> Check | None:
    identifier = entry.key.text
    if not isinstance(entry.value, Mapping):
        found = what(entry.value)
        message = (
            f'`{where}.{identifier}` must be a mapping; found {found}. Write `target: "0.0..0.5"` and '
            "`aggregate: mean` below it, indented."
        )
        notes.error(entry.key.at, Kind.CHECK, message, found=found, expected="a mapping")
        return None
    section = Section(entry.value, f"{where}.{identifier}", CHECK, notes)
    section.report_unknown()

    def chosen(key: str) -> Section:
        return section if section.has(key) or defaults is None or not defaults.has(key) else defaults

    target = _target(section, chosen("target"))
    aggregate = _aggregate(section, chosen("aggregate"), identifier)
    options = _options(chosen)
    if target is None or aggregate is None:
        return None
    written = {key: value for key, value in options.items() if value is not None}
    return Check.model_validate({"identifier": identifier, "target": target, "aggregate": aggregate, **written})


def _options(chosen: Callable[[str], Section]) -> dict[str, object]:
    return {
        "round": chosen("round").choice("round", tuple(Rounding), kind=Kind.CHECK),
        "precision": chosen("precision").integer("precision", 0, MAX_PRECISION, kind=Kind.CHECK),
        "only_pulls": chosen("only-pulls").boolean("only-pulls"),
        "if_not_found": chosen("if-not-found").choice("if-not-found", tuple(Outcome), kind=Kind.CHECK),
        "comment_on_pr": chosen("comment-on-pr").boolean("comment-on-pr"),
    }


def _target(section: Section, holder: Section) -> Range | None:
    text = holder.text("target")
    if text is None:
        if not holder.has("target"):
            section.missing("target", '`target: "0.0..0.5"`', is_example=True)
        return None
    target = parse_range(text)
    if target is None:
        expected = "a range: `N` or `N..` (greater), `..N` (less), `A..B` (between)"
        holder.wrong("target", expected, '`target: "0.0..0.5"`', kind=Kind.CHECK, is_example=True)
        return None
    if target.low is not None and target.high is not None and target.low >= target.high:
        right = f'`target: "{target.high}..{target.low}"`' if target.low > target.high else "two different bounds"
        holder.wrong("target", "a range with the smaller number first", right, kind=Kind.CHECK)
        return None
    return target


def _aggregate(section: Section, holder: Section, identifier: str) -> str | None:
    custom = identifier.startswith("custom:")
    if not holder.has("aggregate"):
        write = "`aggregate: /loss/mean`, a JSON pointer" if custom else "`aggregate: mean`"
        section.missing("aggregate", write, is_example=True)
        return None
    if not custom:
        return holder.choice("aggregate", AGGREGATES, kind=Kind.CHECK)
    text = holder.text("aggregate")
    if text is not None and not text.startswith("/"):
        expected = "a JSON pointer (RFC 6901), which begins with `/`, for a `custom:` metric"
        holder.wrong(
            "aggregate",
            expected,
            f"`aggregate: /{identifier.removeprefix('custom:')}/{text}`",
            kind=Kind.CHECK,
            is_example=True,
        )
        return None
    return text
