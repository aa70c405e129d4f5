"""The product's lines in a terminal: an experiment as it goes, problems of a file. Pure.

Everything from outside is cleaned, so that no log or commit title can steer the terminal.
"""

from collections.abc import Sequence
from typing import Any

from ci_bot.config.problems import Problem
from ci_bot.records import Experiment, Transition
from ci_bot.report import amounts, durations
from ci_bot.report.markdown import Ink
from ci_bot.report.plain import clean, collapse
from ci_bot.report.redact import redact
from ci_bot.report.sentence import sentence
from launcher.experiment import HeldNode
from launcher.state import State

_STATE_WIDTH = max(len(state) for state in State)
_LINE_CHARS = 500


def heading(experiment: Experiment, secrets: tuple[str, ...] = ()) -> str:
    """What begins: "digits at a1b2c3d of octo/digits: Train longer"."""
    ink = Ink(secrets)
    commit = f"{ink.plain(experiment.name)} at {experiment.head_sha[:7]} of {ink.plain(experiment.full_name)}"
    title = ink.plain(experiment.title, 120)
    return f"{commit}: {title}" if title else commit


def state_line(transition: Transition, began_at: float, secrets: tuple[str, ...] = ()) -> str:
    """One transition: time since the beginning, state, attempt from the second on, reason."""
    since = f"+{max(transition.at - began_at, 0):.1f} s"
    attempt = f"attempt {transition.attempt}" if transition.attempt > 1 else ""
    reason = Ink(secrets).plain(transition.reason, _LINE_CHARS)
    more = ", ".join(part for part in (attempt, reason) if part)
    return f"{since:>10}  {transition.state.value:<{_STATE_WIDTH}}  {more}".rstrip()


def node_lines(nodes: Sequence[HeldNode]) -> list[str]:
    """The nodes of a gang, one a line: what it is, where, and how it stands; none for a single node."""
    named = [(f"{node.role} {node.index}", node) for node in nodes if node.role]
    width = max((len(name) for name, _ in named), default=0)
    return [
        f"{'':>10}  {name:<{width}}  rank {node.rank} on {Ink().plain(node.host)}, {_standing(node)}"
        for name, node in named
    ]


def _standing(node: HeldNode) -> str:
    if node.signal:
        return f"{node.state.value} by {Ink().plain(node.signal)}"
    return node.state.value if node.exit_code is None else f"{node.state.value} with exit code {node.exit_code}"


def ending(experiment: Experiment, ran_s: float | None, secrets: tuple[str, ...] = ()) -> str:
    """How it ended: "STOPPED after 3.2 s. The command ended with exit code 0."."""
    cause = experiment.progress.cause
    because = Ink(secrets).plain(sentence(cause, experiment.detail), _LINE_CHARS) if cause else ""
    after = f" after {durations.duration(ran_s)}" if ran_s is not None else ""
    return f"{experiment.state.value}{after}. {because}".rstrip()


def log_lines(text: str, secrets: tuple[str, ...] = (), whose: str = "") -> list[str]:
    """Whole lines of a log, as a terminal would have left them, each marked as the experiment's own, or as a node's."""
    cleaned = collapse(redact(clean(text), secrets)).rstrip("\n")
    return [f"  {whose}│ {line}".rstrip() for line in cleaned.split("\n")] if cleaned else []


def problem_line(problem: Problem) -> str:
    """A problem as compilers write it: "config.yaml:3:5: error: …"."""
    ink = Ink()
    place = f"{ink.plain(problem.path)}:{problem.line}:{problem.column}"
    return f"{place}: {problem.severity.value}: {ink.plain(problem.message, 2000)}"


def artifact_line(path: str, size: int) -> str:
    """One file that the experiment left."""
    return f"  {Ink().plain(path)}  {amounts.size(size)}"


def transition_record(experiment: str, transition: Transition, secrets: tuple[str, ...] = ()) -> dict[str, Any]:
    """One transition for `descent run --json`."""
    return {
        "experiment": experiment,
        "attempt": transition.attempt,
        "state": transition.state.value,
        "at": durations.rfc3339(transition.at),
        "reason": redact(clean(transition.reason), secrets),
    }
