"""A YAML document as a tree of plain values that know their place; built with limits that hostile files meet. Pure.

Scalars stay text: who reads one knows what it should be, so none of YAML 1.1's guesses (`on`, `1:30`, `0.10`) happens.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import yaml

from ci_bot.config.mask import shown
from ci_bot.config.problems import START, At, Kind, Notes
from ci_bot.config.source import Source

MAX_DEPTH = 40
MAX_NODES = 20_000
MAX_DIRECTIVES = 3

_STANDARD_TAGS = frozenset(
    {"!", *(f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "map", "seq"))}
)


@dataclass(frozen=True, slots=True)
class Scalar:
    """Text; `plain` if it stood without quotes."""

    text: str
    plain: bool
    at: At

    @property
    def null(self) -> bool:
        return self.plain and self.text in {"", "~", "null", "Null", "NULL"}


@dataclass(frozen=True, slots=True)
class Sequence:
    """A list."""

    items: tuple["Node", ...]
    at: At


@dataclass(frozen=True, slots=True)
class Entry:
    """A key and its value."""

    key: Scalar
    value: "Node"


@dataclass(frozen=True, slots=True)
class Mapping:
    """Keys and values, each key once."""

    entries: tuple[Entry, ...]
    at: At


Node = Scalar | Sequence | Mapping


@dataclass(frozen=True)
class Written:
    """A scalar as it stands in the text, quotes included: from `start` to before `end`."""

    text: str
    quote: str
    start: int
    end: int


@dataclass(frozen=True)
class Broken:
    """How libyaml gave up, at which character, and where the construct began that it was in.

    `before` is the last scalar it had read.
    """

    words: str
    index: int
    opened: int
    before: Written | None

    @classmethod
    def of(cls, error: yaml.MarkedYAMLError, before: Written | None) -> "Broken":
        index = index_of(error.problem_mark or error.context_mark)
        opened = index_of(error.context_mark or error.problem_mark)
        return cls(f"{error.context or ''}; {error.problem or ''}", index, opened, before)


def index_of(mark: yaml.error.Mark | yaml._yaml.Mark | None) -> int:
    """The character that a mark of PyYAML means."""
    return mark.index if mark else 0


class Refused(Exception):
    """A limit was met; the problem has been noted."""


def compose(source: Source, notes: Notes) -> Node | Broken | None:
    """The one document of a file, or the first; only it is read.

    Returns:
        its root, None when the file holds nothing or was refused (`notes` then has the error), or Broken when it is
        no YAML, for a repair or a diagnosis.
    """
    composer = _Composer(source, notes)
    if sum(line.startswith("%") for line in source.lines) > MAX_DIRECTIVES:
        notes.error(START, Kind.LIMIT, "the file has many lines that begin with `%`; a configuration needs none.")
        return None
    try:
        for event in yaml.parse(source.text, Loader=yaml.CSafeLoader):
            composer.take(event)
            if composer.ended:
                break
    except yaml.MarkedYAMLError as error:
        return Broken.of(error, composer.last_scalar)
    except Refused:
        return None
    return composer.root


@dataclass
class _Open:
    """A collection whose end has not come yet; for a mapping, items are key, value, key, value…"""

    event: yaml.CollectionStartEvent
    items: list[Node] = field(default_factory=list)
    size: int = 1
    height: int = 1


@dataclass(frozen=True)
class _Anchored:
    node: Node
    size: int
    height: int


class _Composer:
    """Events to nodes, without recursion; sizes count what aliases would expand to."""

    def __init__(self, source: Source, notes: Notes) -> None:
        self.root: Node | None = None
        self.ended = False
        self.last_scalar: Written | None = None
        self._source = source
        self._notes = notes
        self._open: list[_Open] = []
        self._anchors: dict[str, _Anchored] = {}

    def take(self, event: yaml.Event) -> None:
        match event:
            case yaml.DocumentStartEvent():
                self._document(event)
            case yaml.ScalarEvent():
                tagged = self._refuse_tag(event)
                quote = event.style if event.style in {"'", '"'} else ""
                start, end = index_of(event.start_mark), index_of(event.end_mark)
                self.last_scalar = Written(event.value, quote or "", start, end)
                plain = not event.style and (event.implicit[0] or tagged)
                self._finish(event, Scalar(event.value, plain, self._at(event)), 1, 0)
            case yaml.AliasEvent():
                self._alias(event)
            case yaml.CollectionStartEvent():
                self._refuse_tag(event)
                self._open.append(_Open(event))
                if len(self._open) > MAX_DEPTH:
                    self._refuse(event, Kind.LIMIT, f"lists and mappings are nested more than {MAX_DEPTH} deep here.")
            case yaml.CollectionEndEvent():
                closed = self._open.pop()
                self._finish(closed.event, self._collection(closed), closed.size, closed.height)

    def _at(self, event: yaml.Event) -> At:
        return self._source.at(index_of(event.start_mark))

    def _refuse(self, event: yaml.Event, kind: Kind, message: str, found: str | None = None) -> None:
        self._notes.error(self._at(event), kind, message, found=found)
        raise Refused

    def _document(self, event: yaml.DocumentStartEvent) -> None:
        if self.root is not None:
            message = "a second YAML document begins here (`---`); one is expected. Remove it, or the line `---`."
            self._notes.error(self._at(event), Kind.DOCUMENTS, message, found="---")
            self.ended = True

    def _refuse_tag(self, event: yaml.ScalarEvent | yaml.CollectionStartEvent) -> bool:
        """Whether it has a tag that is none of ours, after noting it; the value counts as if it had none."""
        tag: str | None = event.tag
        if tag is None or tag in _STANDARD_TAGS:
            return False
        found = shown(tag.replace("tag:yaml.org,2002:", "!!"))
        message = f"{found} is a YAML tag; tags are not accepted. Write the value alone, in quotes if a `!` begins it."
        self._notes.error(self._at(event), Kind.TAG, message, found=found)
        return True

    def _alias(self, event: yaml.AliasEvent) -> None:
        name = event.anchor or ""
        anchored = self._anchors.get(name)
        if anchored is None:
            inside = any(parent.event.anchor == name for parent in self._open)
            why = "stands inside what it repeats" if inside else "repeats an anchor that is not defined above"
            message = f"`*{name}` {why}. A value that begins with `*` (a regular expression, for example) needs quotes."
            self._refuse(event, Kind.SYNTAX, message, f"*{name}")
            return
        self._finish(event, anchored.node, anchored.size, anchored.height)

    def _finish(self, event: yaml.NodeEvent, node: Node, size: int, height: int) -> None:
        """Hang a finished node into what holds it."""
        if event.anchor and not isinstance(event, yaml.AliasEvent):
            self._anchors[event.anchor] = _Anchored(node, size, height)
        if not self._open:
            self.root = node
            return
        parent = self._open[-1]
        parent.items.append(node)
        parent.size += size
        parent.height = max(parent.height, height + 1)
        if sum(each.size for each in self._open) > MAX_NODES:
            message = f"the file holds more than {MAX_NODES} values, aliases counted as what they repeat."
            self._refuse(event, Kind.LIMIT, message)
        if len(self._open) + height > MAX_DEPTH:
            self._refuse(event, Kind.LIMIT, f"aliases nest lists and mappings more than {MAX_DEPTH} deep here.")

    def _collection(self, closed: _Open) -> Node:
        at = self._at(closed.event)
        if isinstance(closed.event, yaml.SequenceStartEvent):
            return Sequence(tuple(closed.items), at)
        return Mapping(tuple(self._entries(closed.items)), at)

    def _entries(self, items: list[Node]) -> Iterator[Entry]:
        """Each key once: those written here, then those that `<<` brings."""
        seen: dict[str, Entry] = {}
        merged: list[Entry] = []
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, Scalar):
                self._notes.error(key.at, Kind.SYNTAX, "a list or mapping cannot be a key. Write `key: value`.")
            elif key.text == "<<" and key.plain:
                merged += self._merged(key, value)
            elif key.text in seen:
                name, first = shown(key.text), seen[key.text].key.at.line
                self._notes.error(
                    key.at,
                    Kind.DUPLICATE_KEY,
                    f"{name} is here for the second time; the first is in line {first}. Keep one of the two lines.",
                    found=name,
                    expected="each key once",
                )
            else:
                seen[key.text] = Entry(key, value)
        for entry in merged:
            seen.setdefault(entry.key.text, entry)
        yield from seen.values()

    def _merged(self, key: Scalar, value: Node) -> list[Entry]:
        parts = value.items if isinstance(value, Sequence) else (value,)
        entries: list[Entry] = []
        for part in parts:
            if isinstance(part, Mapping):
                entries += part.entries
            else:
                self._notes.error(key.at, Kind.VALUE, "`<<` takes a mapping, as in `<<: *name`.", expected="a mapping")
        return entries
