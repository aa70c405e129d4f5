"""Reading a mapping whose keys are known: spellings, types, and a problem for whatever does not fit. Pure."""

import re
from collections.abc import Mapping as Table
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cached_property

from ci_bot.config.mask import is_secret_name, shown
from ci_bot.config.nodes import Entry, Mapping, Node, Scalar, Sequence
from ci_bot.config.problems import At, Kind, Notes

MAX_LISTED = 20
MAX_HINTS = 100
"""So many problems, and no more, come with a search for the key that was meant: it is slow."""
MAX_WHERE = 200
_YES = frozenset({"true", "yes", "on", "y"})
_NO = frozenset({"false", "no", "off", "n"})


def normal(word: str) -> str:
    """A key without case, dashes and underscores, so that its spellings meet."""
    return re.sub(r"[-_ ]", "", word).lower()


@dataclass(frozen=True)
class Keys:
    """The keys a mapping may have; `spellings` gives, by normal form, other words for them."""

    known: tuple[str, ...]
    spellings: Table[str, str] = field(default_factory=dict)

    def resolve(self, word: str) -> str | None:
        return word if word in self.known else self._by_normal.get(normal(word))

    @cached_property
    def _by_normal(self) -> dict[str, str]:
        return {**self.spellings, **{normal(key): key for key in reversed(self.known)}}


def what(node: Node) -> str:
    """What a node is, for a message."""
    match node:
        case Scalar():
            return shown(node.text) if not node.null else "nothing"
        case Sequence():
            return "a list" if node.items else "an empty list"
        case Mapping():
            return "a mapping" if node.entries else "an empty mapping"


class Section:
    """A mapping that is being read; it notes its problems itself, and gives None for what is absent or wrong."""

    def __init__(self, node: Mapping, where: str, keys: Keys, notes: Notes) -> None:
        self.where = where if len(where) <= MAX_WHERE else f"{where[:MAX_WHERE]}…"
        self.notes = notes
        self.start = node.at
        self.unknown: list[Entry] = []
        self._keys = keys
        self._entries: dict[str, Entry] = {}
        for entry in node.entries:
            self._take(entry)

    def _take(self, entry: Entry) -> None:
        written = entry.key.text
        key = self._keys.resolve(written)
        if key is None:
            self.unknown.append(entry)
            return
        if written != key:
            self.notes.warning(
                entry.key.at,
                Kind.SPELLING,
                f"{shown(self.path(written))} was read as `{key}`. Write `{key}`.",
                found=shown(written),
                expected=f"`{key}`",
            )
        if key in self._entries:
            self.notes.error(
                entry.key.at,
                Kind.DUPLICATE_KEY,
                f"{shown(written)} says again what line {self.at(key).line} says as `{key}`. Keep one of them.",
                found=shown(written),
                expected="each key once",
            )
            return
        self._entries[key] = entry

    @property
    def entries(self) -> tuple[Entry, ...]:
        """What it holds under keys that it knows."""
        return tuple(self._entries.values())

    def take_unknown(self, keys: Keys) -> list[tuple[str, Entry]]:
        """The unknown entries that these keys would know, with their right names; they count as known from now on."""
        taken = [(key, entry) for entry in self.unknown if (key := keys.resolve(entry.key.text)) is not None]
        found = {id(entry) for _, entry in taken}
        self.unknown = [entry for entry in self.unknown if id(entry) not in found]
        return taken

    def report_unknown(self) -> None:
        """Warn of the keys that nothing knows."""
        words = {normal(key): key for key in self._keys.known}
        for entry in self.unknown:
            hinted = self.notes.noted < MAX_HINTS
            near = get_close_matches(normal(entry.key.text)[:60], words, n=1, cutoff=0.7) if hinted else []
            few = self._keys.known if len(self._keys.known) <= MAX_LISTED else ()
            known = f"Known here: {', '.join(few)}." if few else "The configuration reference lists those that are."
            hint = f"Did you mean `{words[near[0]]}`?" if near else known
            self.notes.warning(
                entry.key.at,
                Kind.UNKNOWN_KEY,
                f"{shown(self.path(entry.key.text))} is not a known key here; it has no effect. {hint}",
                found=shown(entry.key.text),
                expected=f"`{words[near[0]]}`" if near else None,
            )

    def path(self, key: str) -> str:
        return f"{self.where}.{key}" if self.where else key

    def has(self, key: str) -> bool:
        return self.get(key) is not None

    def get(self, key: str) -> Node | None:
        """The value; a key without a value is as absent."""
        entry = self._entries.get(key)
        if entry is None or (isinstance(entry.value, Scalar) and entry.value.null):
            return None
        return entry.value

    def at(self, key: str) -> At:
        """Where a key stands, or the section where it does not."""
        entry = self._entries.get(key)
        return entry.key.at if entry else self.start

    def missing(self, key: str, write: str, *, is_example: bool = False) -> None:
        """Note that a required key is absent."""
        self.notes.error(
            self.at(key),
            Kind.MISSING,
            f"`{self.path(key)}` is missing. {_advice(write, is_example)}",
            found="nothing",
            expected=write,
        )

    def wrong(
        self,
        key: str,
        expected: str,
        write: str,
        *,
        kind: Kind = Kind.VALUE,
        is_example: bool = False,
        item: Node | None = None,
    ) -> None:
        """Note that a value, or the one item of it that is given, is not what it should be."""
        node = item or self.get(key)
        at = node.at if node else self.at(key)
        found = "nothing" if node is None else what(node)
        if is_secret_name(key) and isinstance(node, Scalar):
            found = shown(node.text, key=key)
        if node is not self.get(key):
            found += " in it"
        message = f"`{self.path(key)}` must be {expected}; found {found}. {_advice(write, is_example)}"
        self.notes.error(at, kind, message, found=found, expected=expected)

    def text(self, key: str) -> str | None:
        node = self.get(key)
        if node is None:
            return None
        if not isinstance(node, Scalar) or not node.text.strip():
            self.wrong(key, "text", f"`{key}: …` on one line")
            return None
        if "\0" in node.text:
            self.wrong(key, "text without the character NUL", "it without `\\0`")
            return None
        return node.text

    def integer(self, key: str, minimum: int, maximum: int, *, kind: Kind = Kind.VALUE) -> int | None:
        node = self.get(key)
        if node is None:
            return None
        value = whole_number(node)
        if value is None or not minimum <= value <= maximum:
            expected = f"a whole number from {minimum} to {maximum}"
            self.wrong(key, expected, f"`{key}: {max(minimum, 1)}`", kind=kind, is_example=True)
            return None
        return value

    def boolean(self, key: str) -> bool | None:
        node = self.get(key)
        if node is None:
            return None
        word = node.text.lower() if isinstance(node, Scalar) else ""
        if word not in _YES | _NO:
            self.wrong(key, "true or false", f"`{key}: true` or `{key}: false`")
            return None
        return word in _YES

    def choice(self, key: str, choices: tuple[str, ...], *, kind: Kind = Kind.VALUE) -> str | None:
        """One of a few words; another case is accepted with a warning."""
        text = self.text(key)
        if text is None or text in choices:
            return text
        for each in choices:
            if normal(each) == normal(text):
                node = self.get(key)
                self.notes.warning(
                    node.at if node else self.at(key),
                    Kind.SPELLING,
                    f"{shown(text)} was read as `{each}`. Write `{key}: {each}`.",
                    found=shown(text),
                    expected=f"`{each}`",
                )
                return each
        self.wrong(key, f"one of {', '.join(choices)}", f"`{key}: {choices[0]}`", kind=kind, is_example=True)
        return None

    def section(self, key: str, keys: Keys) -> "Section | None":
        mapping = self.mapping(key)
        return None if mapping is None else Section(mapping, self.path(key), keys, self.notes)

    def mapping(self, key: str) -> Mapping | None:
        node = self.get(key)
        if node is not None and not isinstance(node, Mapping):
            self.wrong(key, "a mapping", f"its keys below `{key}:`, one a line, indented")
            return None
        return node

    def texts(self, key: str) -> tuple[Scalar, ...] | None:
        """One text or a list of them."""
        node = self.get(key)
        if node is None:
            return None
        scalars = []
        items = node.items if isinstance(node, Sequence) and node.items else (node,)
        for item in items:
            if isinstance(item, Scalar) and item.text and not item.null:
                scalars.append(item)
                continue
            write = f"`{key}: one`, or a list with a text after each `-`"
            self.wrong(key, "a text or a list of texts", write, item=item)
        return tuple(scalars) if len(scalars) == len(items) else None

    def ignored(self, key: str, why: str) -> None:
        """Warn that a key has no effect, unless its value says what happens anyway (false, none)."""
        node = self.get(key)
        if node is None or (isinstance(node, Scalar) and node.text.lower() in _NO | {"none", ""}):
            return
        self.notes.warning(
            self.at(key), Kind.IGNORED, f"`{self.path(key)}` has no effect: {why}. You may remove it.", found=f"`{key}`"
        )


def _advice(write: str, is_example: bool) -> str:
    return f"Write, for example, {write}." if is_example else f"Write {write}."


def whole_number(node: Node) -> int | None:
    """The number that a scalar writes in decimal digits, if it does."""
    text = node.text.strip().replace("_", "") if isinstance(node, Scalar) else ""
    return int(text) if re.fullmatch(r"[+-]?[0-9]{1,9}", text) else None
