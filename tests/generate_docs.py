"""Writes what the documentation takes from the code between its markers: `python -m tests.generate_docs`."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

from ci_bot.settings import TABLE
from launcher.state import (
    FORWARD,
    TERMINAL,
    VERDICTS,
    WAITING,
    WAITING_CAUSES,
    Budget,
    Cause,
    IllegalTransition,
    Progress,
    Signal,
    State,
    advance,
)

DOCS = Path(__file__).parents[1] / "docs"
BLOCK = re.compile(r"(<!-- generated: (?P<name>[a-z]+) -->\n).*?(<!-- end -->)", re.DOTALL)

MEANING = {
    State.CREATED: "decided and stored; its commit is being fetched",
    State.PENDING: "its code is here; it waits in the queue for machines",
    State.PROVISIONING: "an attempt began: its machines are reserved, code and environment are put on them",
    State.PROVISIONED: "every node is ready",
    State.NETWORK_SETUP: "the nodes have told their addresses; the command is being started",
    State.RUNNING: "the command was started",
    State.NETWORK_TEARDOWN: "the attempt ended: processes are ended, log and artifacts stored, machines given back",
    State.STOPPED: "success: the command ended with exit code 0",
    State.FAILED: "the experiment's side: its command, its configuration, its limits",
    State.CANCELLED: "somebody wished so: a person, a newer commit, a deleted branch",
    State.ERROR: "Descent's side: a node, Ray's head, a disk, GitHub; after the retries for that",
}
BUDGET = {
    Budget.USER: "`retries`",
    Budget.INFRASTRUCTURE: "infrastructure",
    Budget.FREE: "always, at no cost",
    Budget.NONE: "none",
}


def edges() -> set[tuple[State, State]]:
    """Every step from one state to another that `advance` can take."""
    found = set()
    for before in _progresses():
        for signal, cause in [(signal, None) for signal in Signal] + [(Signal.ENDED, cause) for cause in Cause]:
            try:
                after = advance(before, signal, cause)
            except IllegalTransition:
                continue
            if after.state is not before.state:
                found.add((before.state, after.state))
    return found


def _progresses() -> Iterator[Progress]:
    for state in State:
        intended = [*TERMINAL, State.PENDING] if state is State.NETWORK_TEARDOWN else [None]
        for each in intended:
            yield Progress(state=state, intended=each)


def diagram() -> str:
    """The state machine as mermaid draws it."""
    order = list(State)
    steps = sorted(edges(), key=lambda edge: (order.index(edge[0]), order.index(edge[1])))
    lines = ["```mermaid", "stateDiagram-v2", "    [*] --> CREATED"]
    lines += [f"    {before} --> {after}" for before, after in steps]
    lines += [f"    {state} --> [*]" for state in order if state in TERMINAL]
    return "\n".join([*lines, "```"])


def states() -> str:
    """Each state with its meaning."""
    return _table(("state", "meaning"), ((f"`{state}`", MEANING[state]) for state in State))


def transitions() -> str:
    """Each fact that moves an experiment."""
    order, facts = list(State), list(Signal)
    forward = sorted(FORWARD, key=lambda pair: (facts.index(pair[1]), order.index(pair[0])))
    rows = [(f"`{before}`", str(signal), f"`{FORWARD[before, signal]}`") for before, signal in forward]
    for state in order:
        if state in WAITING:
            ends: dict[State, list[Cause]] = {}
            for cause in sorted(WAITING_CAUSES[state]):
                ends.setdefault(VERDICTS[cause].end, []).append(cause)
            rows += [(f"`{state}`", f"ended: {', '.join(causes)}", f"`{end}`") for end, causes in ends.items()]
    teardown = State.NETWORK_TEARDOWN
    rows.append((f"`{teardown}`", "released", "the intended end, or `PENDING` for the intended retry"))
    rows.append((f"`{teardown}`", f"ended: {Cause.NOT_PROVEN_CLEAN}", f"`{State.ERROR}`"))
    return _table(("from", "fact", "to"), rows)


def causes() -> str:
    """Each cause with its end, its retries and its sentence."""
    rows = []
    for cause, verdict in VERDICTS.items():
        end = "–" if verdict.budget is Budget.FREE else f"`{verdict.end}`"
        rows.append((cause.value, end, BUDGET[verdict.budget], verdict.sentence))
    return _table(("cause", "end", "retries", "what a person reads"), rows)


def settings() -> str:
    """The environment."""
    rows = ((f"`{row.name}`", row.unit, f"`{row.default}`" if row.default else "", row.meaning) for row in TABLE)
    return _table(("name", "unit", "default", "meaning"), rows)


def _table(headings: tuple[str, ...], rows: Iterator[tuple[str, ...]] | list[tuple[str, ...]]) -> str:
    lines = [headings, tuple("---" for _ in headings), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


BLOCKS: dict[str, Callable[[], str]] = {
    "diagram": diagram,
    "states": states,
    "transitions": transitions,
    "causes": causes,
    "settings": settings,
}


def renewed(text: str) -> str:
    """A page with its generated blocks as the code has them now."""
    return BLOCK.sub(lambda found: f"{found[1]}\n{BLOCKS[found['name']]()}\n\n{found[3]}", text)


if __name__ == "__main__":
    for page in sorted(DOCS.rglob("*.md")):
        page.write_text(renewed(page.read_text()))
