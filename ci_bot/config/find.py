"""Which file of a commit is its configuration. Pure."""

import re
from collections.abc import Collection

from ci_bot.config.document import read
from ci_bot.config.nodes import Mapping, Scalar
from ci_bot.config.problems import Notes, TooManyProblems

SEARCH_ORDER = (".descent/config.yaml", ".ps_project/config.yaml", ".ps_project/config.yml", "config.yaml")
BARE = "config.yaml"
"""A name that many programs use: ours only if `is_ours` says so."""

_VERSION_LINE = re.compile(r"^ {0,8}version\s*:\s*[\"']?[012](\.\d+)?[\"']?\s*(#.*)?$", re.MULTILINE)
_SHAPE_LINE = re.compile(r"^ {0,8}(worker|workflows)\s*:\s*(#.*)?$", re.MULTILINE)


def candidates(paths: Collection[str]) -> tuple[str, ...]:
    """Those of a commit's paths that may be its configuration, the first to be preferred."""
    return tuple(path for path in SEARCH_ORDER if path in paths)


def is_ours(content: bytes) -> bool:
    """Whether a bare `config.yaml` is meant for us: `version` 0 to 2, and `worker` or `workflows`.

    One that is no YAML is ours if its lines say so, for then its author should hear what is wrong with it.
    """
    try:
        root = read(content, Notes(BARE))
    except TooManyProblems:
        root = None
    if isinstance(root, Mapping):
        keys = {entry.key.text: entry.value for entry in root.entries}
        version = keys.get("version")
        known = isinstance(version, Scalar) and re.fullmatch(r"[012](\.\d+)?", version.text) is not None
        return known and not keys.keys().isdisjoint({"worker", "workflows"})
    if root is not None:
        return False
    text = content[: 256 * 1024].decode("utf-8", "replace")
    return bool(_VERSION_LINE.search(text) and _SHAPE_LINE.search(text))
