"""Reading foreign JSON: each access says what was missing, and what it gives is safe to keep. Pure."""

import re
from dataclasses import dataclass
from typing import Any

SHA = re.compile(r"[0-9a-f]{40}")
FULL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*/[A-Za-z0-9._-]+")
MAX_ID = 2**63 - 1  # what a database column holds
MAX_SHOWN = 60


class Unfit(Exception):
    """A payload lacks something that we can't do without; the text says what."""


def shown(value: object) -> str:
    """A foreign word for a sentence of ours: quoted, one line, short."""
    text = value if isinstance(value, str) else repr(value)
    text = "".join(c if c.isprintable() else "?" for c in text[:MAX_SHOWN])
    return f'"{text}"'


def storable(text: str) -> str:
    """`text` without what UTF-8 (lone surrogates) or PostgreSQL (NUL) can't store."""
    return text.encode("utf-8", "replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")


@dataclass(frozen=True)
class Fields:
    """One object of a payload, and where it lies in it."""

    values: dict[str, Any]
    path: str = ""

    def where(self, key: str) -> str:
        """The full name of a field: check_run.app.id."""
        return f"{self.path}.{key}" if self.path else key

    def has(self, key: str) -> bool:
        """Whether `key` holds an object."""
        return isinstance(self.values.get(key), dict)

    def child(self, key: str) -> "Fields":
        """The object under `key`; Unfit when there is none."""
        value = self.values.get(key)
        if not isinstance(value, dict):
            raise Unfit(f"{self.where(key)} is missing")
        return Fields(value, self.where(key))

    def children(self, key: str) -> "tuple[Fields, ...]":
        """The objects of a list; none when the list is absent."""
        value = self.values.get(key)
        items = value if isinstance(value, list) else []
        return tuple(Fields(item, f"{self.where(key)}[{i}]") for i, item in enumerate(items) if isinstance(item, dict))

    def text(self, key: str, default: str | None = None) -> str:
        """A string; `default` when absent or null, Unfit when there is no default."""
        value = self.values.get(key)
        if isinstance(value, str):
            return storable(value)
        if value is None and default is not None:
            return default
        raise Unfit(f"{self.where(key)} is missing" if value is None else f"{self.where(key)} is no text")

    def number(self, key: str) -> int:
        """A positive number that a database can hold."""
        value = self.values.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= MAX_ID:
            raise Unfit(f"{self.where(key)} is missing" if value is None else f"{self.where(key)} is no valid number")
        return value

    def flag(self, key: str, default: bool = False) -> bool:
        """A boolean; `default` when absent."""
        value = self.values.get(key)
        return value if isinstance(value, bool) else default

    def sha(self, key: str) -> str:
        """A commit (or the 40 zeros of none): later part of paths and addresses, so exactly that."""
        value = self.text(key)
        if not SHA.fullmatch(value):
            raise Unfit(f"{self.where(key)} is no commit SHA: {shown(value)}")
        return value

    def full_name(self, key: str = "full_name") -> str:
        """owner/name of a repository: later part of paths and addresses, so nothing else."""
        value = self.text(key)
        if not FULL_NAME.fullmatch(value) or value.endswith(("/.", "/..")):
            raise Unfit(f"{self.where(key)} is no owner/name: {shown(value)}")
        return value
