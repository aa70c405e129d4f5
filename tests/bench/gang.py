"""A gang of four on four Ray nodes of this machine, beside a single node on the same cluster."""

from collections.abc import Iterator, Mapping
from typing import Any

from launcher.state import State
from tests.bench import machine
from tests.bench.figures import Figure, Row, ratio
from tests.bench.ground import STAMP, Ground, ended, file, ground, rounds
from tests.e2e.stack import Repo

ROUNDS = 8
NODES = 4
MACHINES = "first: {cpus: 1, labels: {node: n0}}\ndefault: {cpus: 1}\n"
"""A single node is always the same one, which then has the code."""
GANG: dict[str, Any] = {"type": "multi-torch", "worker": {"count": NODES}}
SINGLE: dict[str, Any] = {"worker": {"machine-type": "first"}}


def measure() -> Iterator[Row]:
    """The row of the gang."""
    with ground(more_nodes=NODES - 1, machines=MACHINES) as on:
        gang, single = on.stack.repository("gang"), on.stack.repository("single")
        warm(on, gang, -1, GANG)  # makes on each node what is made once
        warm(on, single, -1, SINGLE)
        gangs, singles = [], []
        for number in range(rounds(ROUNDS)):
            gangs.append(warm(on, gang, number, GANG))
            singles.append(warm(on, single, number, SINGLE))
    ours, busy = figures(f"admitted → first instruction on the last of {NODES} nodes", gangs)
    beside, busy_one = figures("one node, warm", singles)
    mark = ratio("of one node's", ours, beside, at_most=2)
    notes = (
        f"{NODES} Ray nodes on one machine: its cores prepare all of them at once; ports, peers and network included",
        f"the whole machine's processors, from the re-run to its end: {busy.words()}; for one node {busy_one.words()}",
    )
    yield Row(f"launch, {NODES} nodes", (ours,), (beside,), (mark,), notes)


def figures(what: str, samples: list[tuple[float, float]]) -> tuple[Figure, Figure]:
    """Time, and processors' time."""
    launched, busy = zip(*samples, strict=True)
    return Figure(what, "s", launched), Figure("processors", "s", busy)


def warm(on: Ground, repo: Repo, number: int, keys: Mapping[str, Any]) -> tuple[float, float]:
    """Seconds from the admission to the last node's first instruction, of the re-run of a commit; and of processors."""
    sha = repo.push({**file(STAMP, **keys), "number": str(number)})
    ended(repo, sha)
    before = machine.busy_s()
    on.stack.control.rerun(check_run_id=repo.check(sha)["id"])
    done = ended(repo, sha, rerun=1)
    return max(done.stamps) - done.at(State.PROVISIONING), machine.busy_s() - before
