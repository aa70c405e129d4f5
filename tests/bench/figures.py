"""What was measured: samples, what stands beside them, and what was to be reached. Pure."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any


@dataclass(frozen=True)
class Figure:
    """Samples of one thing, in one unit (`s`, `ms`, `/s`, `MiB`, or none for a count)."""

    what: str
    unit: str
    samples: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle one, which the table shows."""
        return median(self.samples)

    def words(self) -> str:
        """Median, and minimum to maximum where there were several: `0.021 s [0.018–0.040]`."""
        unit = f" {self.unit}" if self.unit else ""
        if len(self.samples) == 1:
            return f"{number(self.median)}{unit}"
        return f"{number(self.median)}{unit} [{number(min(self.samples))}–{number(max(self.samples))}]"


@dataclass(frozen=True)
class Reach:
    """A mark: what was to be reached, and what was."""

    words: str
    value: float
    limit: float
    at_least: bool = False

    @property
    def reached(self) -> bool:
        """Whether the value is on the right side of the limit."""
        return self.value >= self.limit if self.at_least else self.value <= self.limit


@dataclass(frozen=True)
class Row:
    """One row of the table: ours, what stands beside it, and the marks."""

    name: str
    ours: tuple[Figure, ...]
    beside: tuple[Figure, ...] = ()
    reaches: tuple[Reach, ...] = ()
    notes: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Everything, samples too."""

        def figures(some: Sequence[Figure]) -> list[dict[str, Any]]:
            return [{**asdict(each), "median": each.median} for each in some]

        return {
            "row": self.name,
            "ours": figures(self.ours),
            "beside": figures(self.beside),
            "reach": [{**asdict(each), "reached": each.reached} for each in self.reaches],
            "notes": list(self.notes),
        }


def ratio(words: str, ours: Figure, beside: Figure, *, at_most: float) -> Reach:
    """The mark of a median that is to be at most so many times the median beside it."""
    return Reach(f"{words} ≤ {number(at_most)} ×", ours.median / beside.median, at_most)


def number(value: float) -> str:
    """Three digits that count, without an exponent."""
    if value == int(value) and abs(value) < 1e6:
        return str(int(value))
    size = abs(value)
    digits = 0 if size >= 100 else 1 if size >= 10 else 2 if size >= 1 else 3 if size >= 0.1 else 4
    return f"{value:,.{digits}f}"


def table(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table."""
    lines = ["| row | measured | beside it | reach |", "|---|---|---|---|"]
    for row in rows:
        cells = (
            row.name,
            "<br>".join(f"{each.what}: {each.words()}" for each in row.ours),
            "<br>".join(f"{each.what}: {each.words()}" for each in row.beside) or "–",
            "<br>".join(
                f"{each.words}: {number(each.value)} ({'reached' if each.reached else 'NOT reached'})"
                for each in row.reaches
            )
            or "stated",
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
