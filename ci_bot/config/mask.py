"""A configuration as it may be shown: without the literal credentials that people write into it. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass

import re2
import yaml

MASK = "•••"
MAX_SHOWN = 80
MAX_DEPTH = 100

# RE2 throughout: its time is linear, whatever the text.
_SECRET_NAME = re2.compile(
    r"(?i)token|passw(or)?d|passphrase|secret|credential|(api|access|private)[_-]?key|(^|[_.-])key([_.-]|$)"
)
_WORDS = r"[\w.-]*(?:token|passw(?:or)?d|passphrase|secret|credential|key)[\w.-]*"
_VALUE = r"""("[^"\n]*"?|'[^'\n]*'?|[^\s,;}"'&|>[{][^\s,;}&|\]]*)"""
_ASSIGNED = re2.compile(rf"""(?i)((?:{_WORDS})["']?[ \t]*[=:][ \t]*){_VALUE}""")
_LINE = re2.compile(rf"""(?im)^([ \t]*(?:-[ \t]+)?["']?(?:{_WORDS})["']?[ \t]*:[ \t]+)(\S.*)$""")
_OPTION = re2.compile(rf"""(?i)(--(?:{_WORDS})[ \t]+){_VALUE}""")
_URL_LOGIN = re2.compile(r"(?i)(\b[a-z][a-z0-9+.-]*://)[^/\s:@]*:[^/\s@]+@")
_KNOWN_TOKEN = re2.compile(r"\b(?:AKIA[0-9A-Z]{16}|gh[opsur]_\w{20,}|github_pat_\w{20,}|glpat-[\w-]{20,})")


def is_secret_name(name: str) -> bool:
    """Whether a key or variable of this name usually holds a credential."""
    return _SECRET_NAME.search(name) is not None


def mask_text(text: str) -> str:
    """Free text (a command, a line that is no YAML) with what looks like a credential masked."""
    for pattern in (_LINE, _ASSIGNED, _OPTION):
        text = pattern.sub(_masked_assignment, text)
    text = _URL_LOGIN.sub(lambda found: f"{found.group(1)}{MASK}@", text)
    return str(_KNOWN_TOKEN.sub(MASK, text))


def _masked_assignment(found: re2._Match) -> str:
    name, value = str(found.group(1)), str(found.group(2))
    reference = name.lower() == "secret:" or not _is_literal(value.strip("\"'")) or value[:1] in {"|", ">"}
    if reference or not is_secret_name(name.strip(" \t=:\"'-")):
        return str(found.group(0))
    return name + MASK


def _is_literal(value: str) -> bool:
    return bool(value) and value != MASK and not value.startswith("secret:")


def shown(text: str, *, key: str = "") -> str:
    """A value as a message may quote it: masked, on one line, short, between backquotes."""
    clean = MASK if is_secret_name(key) else mask_text(text[: 4 * MAX_SHOWN])
    clean = "".join(c if c.isprintable() else " " if c in "\n\t" else "�" for c in clean).strip()
    clean = clean.replace("`", "'")
    return f"`{clean[: MAX_SHOWN - 1]}…`" if len(clean) > MAX_SHOWN else f"`{clean}`"


def mask(source: str) -> str:
    """A configuration or parameters file with its literal credentials masked, readable as YAML or not.

    References (`secret:<name>`) stay: they are no credentials.
    """
    pieces, done = [], 0
    for start, end in _secret_spans(source):
        pieces += [source[done:start], MASK]
        done = start + len(source[start:end].rstrip())  # a block's span holds the line ends behind it
    return mask_text("".join([*pieces, source[done:]]))


@dataclass
class _Collection:
    """A mapping or list that is open while the events pass."""

    mapping: bool
    secret: bool
    key: str | None = None


def _secret_spans(source: str) -> Iterator[tuple[int, int]]:
    """Start and end of every scalar under a key with a secret name, up to where the YAML breaks."""
    stack = [_Collection(mapping=False, secret=False)]
    try:
        for event in yaml.parse(source, Loader=yaml.CSafeLoader):
            if isinstance(event, yaml.CollectionEndEvent):
                stack.pop()
            elif isinstance(event, yaml.NodeEvent) and len(stack) < MAX_DEPTH:
                yield from _span(event, stack)
            elif len(stack) >= MAX_DEPTH:
                return
    except (yaml.YAMLError, ValueError):
        return  # the rest is masked line by line


def _span(event: yaml.NodeEvent, stack: list[_Collection]) -> Iterator[tuple[int, int]]:
    parent = stack[-1]
    if parent.mapping and parent.key is None:
        parent.key = event.value if isinstance(event, yaml.ScalarEvent) else ""
        secret = False
    else:
        secret = parent.secret or is_secret_name(parent.key or "")
        parent.key = None
        literal = isinstance(event, yaml.ScalarEvent) and _is_literal(event.value)
        if secret and literal and event.start_mark and event.end_mark:
            yield event.start_mark.index, event.end_mark.index
    if isinstance(event, yaml.CollectionStartEvent):
        stack.append(_Collection(mapping=isinstance(event, yaml.MappingStartEvent), secret=secret))
