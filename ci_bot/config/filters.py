"""Which pushes an experiment is for: regular expressions on branches and tags, matched in linear time. Pure."""

from functools import lru_cache

import re2

from ci_bot.config.mask import shown
from ci_bot.config.nodes import Mapping, Scalar
from ci_bot.config.problems import Kind, Notes
from ci_bot.config.section import Keys, Section
from launcher.experiment import Value

MAX_PATTERN = 1000
MAX_PATTERNS = 100

TRIGGERS = Keys(("branches", "tags"), {"branch": "branches", "tag": "tags"})
FILTERS = Keys(("only", "ignore"), {"include": "only", "exclude": "ignore", "ignores": "ignore"})

_OPTIONS = re2.Options()
_OPTIONS.log_errors = False
_OPTIONS.max_mem = 1 << 22


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> re2._Regexp:
    return re2.compile(pattern, _OPTIONS)


class Filters(Value):
    """Names that are wanted: those that match one of `only`, or those that match none of `ignore`."""

    only: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()

    def allow(self, name: str) -> bool:
        """Whether a name passes; an expression has to match all of it."""
        name = name.encode("utf-8", "replace").decode()  # JSON may bring lone surrogates, which RE2 cannot take
        if self.only:
            return any(_compiled(each).fullmatch(name) for each in self.only)
        return not any(_compiled(each).fullmatch(name) for each in self.ignore)


class Triggers(Value):
    """What a push must be to start an experiment; without filters the default branch, and no tags."""

    branches: Filters | None = None
    tags: Filters | None = None

    def matches_branch(self, name: str, default_branch: str) -> bool:
        """Whether a push to a branch (without `refs/heads/`) starts the experiment."""
        return name == default_branch if self.branches is None else self.branches.allow(name)

    def matches_tag(self, name: str) -> bool:
        """Whether a push of a tag (without `refs/tags/`) starts the experiment."""
        return self.tags is not None and self.tags.allow(name)

    def matches_merge(self, branch: str) -> bool:
        """Whether a pull request or merge group of a branch (its base or head) starts the experiment.

        Without a filter on branches every one does.
        """
        return self.branches is None or self.branches.allow(branch)


def triggers_of(section: Section, key: str) -> Triggers | None:
    """The triggers below a key; `branches` and `tags` beside it instead of below it are accepted with a warning.

    None when nothing is written.
    """
    inner = section.mapping(key)
    entries = inner.entries if inner else ()
    for name, entry in section.take_unknown(TRIGGERS):
        message = f"`{section.path(name)}` belongs below `{key}:`, and was read as if it stood there. Move it there."
        section.notes.warning(entry.key.at, Kind.MISPLACED, message, found=f"`{name}`", expected=f"below `{key}`")
        entries += (entry,)
    if not entries:
        return None
    return read_triggers(Mapping(entries, inner.at if inner else section.start), section.path(key), section.notes)


def read_triggers(node: Mapping, where: str, notes: Notes) -> Triggers:
    """The triggers that a mapping with `branches` and `tags` describes."""
    section = Section(node, where, TRIGGERS, notes)
    _refuse_unknown(section, TRIGGERS)
    found = {}
    for key in TRIGGERS.known:
        inner = section.section(key, FILTERS)
        if inner is not None:
            found[key] = read_filters(inner)
    return Triggers(**found)


def read_filters(section: Section) -> Filters | None:
    """One of the two filters; None when it says nothing, or nothing that can be read."""
    _refuse_unknown(section, FILTERS)
    if section.has("only") and section.has("ignore"):
        message = f"`{section.where}` has both `only` and `ignore`; one of them is expected. Remove the other."
        section.notes.error(section.at("ignore"), Kind.FILTER, message, found="both", expected="only or ignore")
    filters = Filters(only=_patterns(section, "only"), ignore=_patterns(section, "ignore"))
    return filters if filters.only or filters.ignore else None


def _refuse_unknown(section: Section, keys: Keys) -> None:
    """A filter that is not understood would start what nobody wanted: an error, where elsewhere it is a warning."""
    for entry in section.unknown:
        expected = " or ".join(f"`{key}`" for key in keys.known)
        found = shown(entry.key.text)
        message = f"{found} is not a key of `{section.where}`; expected {expected}. Write one of them."
        section.notes.error(entry.key.at, Kind.FILTER, message, found=found, expected=expected)


def _patterns(section: Section, key: str) -> tuple[str, ...]:
    scalars = section.texts(key) or ()
    if len(scalars) > MAX_PATTERNS:
        section.wrong(key, f"at most {MAX_PATTERNS} regular expressions", "fewer, joined by `|`", kind=Kind.FILTER)
        return ()
    return tuple(scalar.text for scalar in scalars if _accepted(scalar, section.path(key), section.notes))


def _accepted(scalar: Scalar, where: str, notes: Notes) -> bool:
    pattern, found = scalar.text, shown(scalar.text)
    why = f"it is longer than {MAX_PATTERN} characters" if len(pattern) > MAX_PATTERN else _refusal(pattern)
    if why:
        message = f"`{where}`: {found} is not a regular expression that RE2 takes: {why}. {_advice(pattern)}"
        notes.error(scalar.at, Kind.FILTER, message, found=found, expected="a regular expression (RE2)")
        return False
    if pattern.endswith("/*") or pattern.endswith("/**"):
        right = f"`{pattern.rstrip('*')}.*`"
        notes.warning(
            scalar.at,
            Kind.FILTER,
            f"`{where}`: {found} is read as a regular expression, where `/*` means any number of slashes. "
            f"If you mean everything below, write {right}.",
            found=found,
            expected=right,
        )
    return True


def _refusal(pattern: str) -> str:
    try:
        _compiled(pattern)
    except (re2.error, ValueError) as error:
        reason = error.args[0] if error.args else ""
        return reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason) or "not understood"
    return ""


def _advice(pattern: str) -> str:
    if "(?=" in pattern or "(?!" in pattern or "(?<" in pattern:
        return "Lookahead and lookbehind do not exist in it; to leave names out, use `ignore`."
    if pattern.startswith("*"):
        return f"For any text write `.*`: {shown('.' + pattern)}."
    return "Put a backslash before a character that is meant literally."
