"""machines.yaml to machine types, or every problem with its line. Pure."""

import difflib
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from launcher.machines import GIB, Machine

KEYS = ("gpus", "cpus", "memory", "disk", "labels")
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?"  # Kubernetes' label syntax, which Ray follows
_LABEL_KEY = re.compile(rf"(?:{_LABEL}/)?{_LABEL}")
_SELECTOR = re.compile(rf"!?{_LABEL}|!?in\({_LABEL}(?:, ?{_LABEL})*\)")


@dataclass(frozen=True)
class Problem:
    """What is wrong with a line of the file; lines and columns count from 1."""

    line: int
    column: int
    message: str

    def at(self, path: str) -> str:
        """The problem as compilers write it."""
        return f"{path}:{self.line}:{self.column}: {self.message}"


def read(text: str) -> dict[str, Machine] | tuple[Problem, ...]:
    """The machine types that a machines.yaml declares, or all that is wrong with it."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        return (Problem(line, column, f"not YAML: {error.problem}"),)
    except yaml.YAMLError as error:
        return (Problem(1, 1, f"not YAML: {error}"),)
    reader = _Reader()
    table = reader.machines(root)
    return tuple(sorted(reader.problems, key=lambda each: (each.line, each.column))) or table


@dataclass
class _Reader:
    problems: list[Problem] = field(default_factory=list)

    def machines(self, root: yaml.Node | None) -> dict[str, Machine]:
        if not isinstance(root, yaml.MappingNode) or not root.value:
            self._problem(root, "the file must map names of machine types to what they have, as in `P4000: {gpus: 1}`")
            return {}
        return {name: self._machine(name, node) for name, _, node in self._items(root)}

    def _machine(self, name: str, node: yaml.Node) -> Machine:
        if not isinstance(node, yaml.MappingNode):
            self._problem(node, f"{name} must be a mapping of {', '.join(KEYS)}, got {_told(node)}")
            return Machine(name)
        found: dict[str, Any] = {}
        known = len(self.problems)
        for key, key_node, value in self._items(node):
            if key == "gpus":
                found["gpus"] = int(self._number(value, f"{name}.gpus", at_least=0, whole=True) or 0)
            elif key == "cpus":
                found["cpus"] = self._number(value, f"{name}.cpus", at_least=0) or 0.0
            elif key in {"memory", "disk"}:
                gib = self._number(value, f"{name}.{key}", at_least=0, unit="GiB", above=True)
                found[f"{key}_bytes"] = int(gib * GIB) if gib else None
            elif key == "labels":
                found["labels"] = self._labels(value, f"{name}.labels")
            else:
                close = difflib.get_close_matches(key, KEYS, 1)
                hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(KEYS)}"
                self._problem(key_node, f"{name} has an unknown key {key!r}; {hint}")
        if len(self.problems) == known and found.get("gpus", 0) == 0 and found.get("cpus", 1) == 0:
            self._problem(node, f"{name} has neither a CPU nor a GPU; give it at least one, as in `cpus: 1`")
        return Machine(name, **found)

    def _labels(self, node: yaml.Node, where: str) -> dict[str, str]:
        if not isinstance(node, yaml.MappingNode):
            self._problem(node, f"{where} must be a mapping of Ray node labels to values, got {_told(node)}")
            return {}
        labels = {}
        for key, key_node, value in self._items(node):
            if not _LABEL_KEY.fullmatch(key):
                self._problem(key_node, f"{where}: {key!r} is not a label's name (letters, digits, - _ .)")
            elif not isinstance(value, yaml.ScalarNode) or not _SELECTOR.fullmatch(value.value):
                self._problem(value, f"{where}.{key} must be a value, `in(a, b)` or `!value`, got {_told(value)}")
            else:
                labels[key] = value.value
        return labels

    def _number(
        self, node: yaml.Node, where: str, *, at_least: float, whole: bool = False, unit: str = "", above: bool = False
    ) -> float | None:
        kind = "a whole number" if whole else "a number"
        of_unit = f" of {unit}, without the unit" if unit else ""
        number = _number_of(node)
        if number is None or not math.isfinite(number) or (whole and number != int(number)):
            self._problem(node, f"{where} must be {kind}{of_unit}, got {_told(node)}")
        elif number < at_least or (above and number == at_least):
            self._problem(node, f"{where} must be {'more than' if above else 'at least'} {at_least}, got {_told(node)}")
        else:
            return number
        return None

    def _items(self, node: yaml.MappingNode) -> Iterator[tuple[str, yaml.Node, yaml.Node]]:
        seen: dict[str, int] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self._problem(key, f"a name must be text, got {_told(key)}")
            elif key.value in seen:
                self._problem(key, f"{key.value} was already given on line {seen[key.value]}; keep one of them")
            else:
                seen[key.value] = key.start_mark.line + 1
                yield key.value, key, value

    def _problem(self, node: yaml.Node | None, message: str) -> None:
        line, column = (node.start_mark.line + 1, node.start_mark.column + 1) if node else (1, 1)
        self.problems.append(Problem(line, column, message))


def _number_of(node: yaml.Node) -> float | None:
    if not isinstance(node, yaml.ScalarNode) or node.tag not in {"tag:yaml.org,2002:int", "tag:yaml.org,2002:float"}:
        return None
    try:
        return float(node.value)
    except ValueError:  # YAML knows more spellings of numbers (0x10, 1_000, 1:30) than are good for a table
        return None


def _told(node: yaml.Node) -> str:
    if isinstance(node, yaml.ScalarNode):
        return repr(node.value[:40]) if node.value else "nothing"
    return "a mapping" if isinstance(node, yaml.MappingNode) else "a list"
