"""Faults on demand: which request or webhook is hit next, and by what. Pure but for the counting."""

import fnmatch
import itertools
from dataclasses import asdict, dataclass, field
from typing import Any

API_KINDS = ("delay", "status", "primary_limit", "secondary_limit", "drop", "drop_after", "unauthorized", "stale")
HOOK_KINDS = ("lose", "vanish", "double", "delay", "hold")


@dataclass(frozen=True)
class Rule:
    """One fault.

    `target` is "api" or "webhook". On "api", `method` and `path` are shell patterns (the path without `/api/v3`) and
    `operation` an operation id or pattern; on "webhook", `event` is a pattern of `event` or `event.action`.
    `skip` requests pass before `count` are hit; without `count` all are.

    Kinds for the API: delay (`seconds`), status (`status`, `retry_after_s`), primary_limit and secondary_limit
    (`status` 403 or 429, `retry_after_s`; the primary one resets after `seconds`), drop (the connection ends before
    anything is done), drop_after (it is done, and the answer lost), unauthorized (401), stale (a read answered as it
    was `seconds` ago).
    Kinds for webhooks: lose (the delivery fails and is logged), vanish (not even logged), double, delay (`seconds`),
    hold (kept back until the next webhook of its repository has been sent: reordering).
    """

    kind: str
    target: str = "api"
    method: str = "*"
    path: str = "*"
    operation: str = "*"
    event: str = "*"
    count: int | None = 1
    skip: int = 0
    seconds: float = 0.0
    status: int = 0
    retry_after_s: int | None = None

    def __post_init__(self) -> None:
        """Refuse what would never hit anything."""
        kinds = {"api": API_KINDS, "webhook": HOOK_KINDS}.get(self.target)
        if kinds is None:
            raise ValueError(f'target must be "api" or "webhook", got {self.target!r}')
        if self.kind not in kinds:
            raise ValueError(f"kind for {self.target} must be one of {', '.join(kinds)}, got {self.kind!r}")

    def fits_call(self, method: str, path: str, operation: str) -> bool:
        """Whether an API request is meant."""
        return (
            self.target == "api"
            and fnmatch.fnmatchcase(method, self.method)
            and fnmatch.fnmatchcase(path, self.path)
            and fnmatch.fnmatchcase(operation, self.operation)
        )

    def fits_event(self, event: str, action: str | None) -> bool:
        """Whether a webhook is meant."""
        names = (event, f"{event}.{action}")
        return self.target == "webhook" and any(fnmatch.fnmatchcase(name, self.event) for name in names)


@dataclass
class _Armed:
    """A rule and how often it was met and has hit."""

    rule: Rule
    met: int = 0
    hit: int = 0

    def strikes(self) -> bool:
        """Count a request that fits; whether it is hit."""
        self.met += 1
        if self.met <= self.rule.skip or (self.rule.count is not None and self.hit >= self.rule.count):
            return False
        self.hit += 1
        return True


@dataclass
class Faults:
    """The rules in force, by number; and whether all of GitHub is down ("503" or "reset")."""

    down: str | None = None
    _rules: dict[int, _Armed] = field(default_factory=dict)
    _ids: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))

    def add(self, rule: Rule) -> int:
        """Put a rule in force; its number."""
        number = next(self._ids)
        self._rules[number] = _Armed(rule)
        return number

    def clear(self) -> None:
        """End every fault."""
        self._rules.clear()
        self.down = None

    def listing(self) -> list[dict[str, Any]]:
        """The rules with how often each was met and has hit."""
        return [
            {"id": number, "met": armed.met, "hit": armed.hit, **asdict(armed.rule)}
            for number, armed in self._rules.items()
        ]

    def for_call(self, method: str, path: str, operation: str) -> list[Rule]:
        """The faults that hit this request; each is counted."""
        fitting = [each for each in list(self._rules.values()) if each.rule.fits_call(method, path, operation)]
        return [each.rule for each in fitting if each.strikes()]

    def for_event(self, event: str, action: str | None) -> list[Rule]:
        """The faults that hit this webhook; each is counted."""
        fitting = [each for each in list(self._rules.values()) if each.rule.fits_event(event, action)]
        return [each.rule for each in fitting if each.strikes()]
