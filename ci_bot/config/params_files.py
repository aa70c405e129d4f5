"""The parameters files that a configuration's steps name, each fetched and parsed once. Pure."""

from collections.abc import Callable
from dataclasses import dataclass

from ci_bot.config.document import read
from ci_bot.config.nodes import Node
from ci_bot.config.problems import Notes

ReadParams = Callable[[str], bytes | None]


@dataclass(frozen=True)
class ParamsFile:
    """A file that the commit has; its root is None where it is no YAML, which its notes say."""

    root: Node | None
    notes: Notes


class ParamsFiles:
    """The parameters files of one commit."""

    def __init__(self, fetch: ReadParams, notes: Notes) -> None:
        self._fetch = fetch
        self._notes = notes
        self._known: dict[str, ParamsFile | None] = {}

    def find(self, path: str) -> ParamsFile | None:
        """The file of a path, None where the commit has none."""
        if path not in self._known:
            self._known[path] = self._read(path)
        return self._known[path]

    def _read(self, path: str) -> ParamsFile | None:
        content = self._fetch(path)
        if content is None:
            return None
        notes = self._notes.of(path)
        return ParamsFile(read(content, notes), notes)
