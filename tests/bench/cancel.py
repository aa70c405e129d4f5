"""From "Cancel" pressed until nothing is left of a command that ignores SIGTERM."""

import time
from collections.abc import Iterator

from launcher.state import State
from tests.bench.figures import Figure, Reach, Row
from tests.bench.ground import alone, file, rounds
from tests.e2e.killing import marked
from tests.e2e.load import attempts_on_node
from tests.e2e.stack import Repo, Stack, wait_for

ROUNDS = 8
GRACE_S = 1.0
COMMAND = "trap '' TERM; echo deaf; while :; do sleep 1; done"
LIMIT_S = 60.0
LOOK_S = 0.02


def measure() -> Iterator[Row]:
    """The row of the cancelled."""
    with alone(GRACE_S=f"{GRACE_S:g}") as stack:
        repo = stack.repository("bench")
        cancelled(stack, repo, -1)
        taken = [cancelled(stack, repo, number) for number in range(rounds(ROUNDS))]
    ours = Figure("pressed → no process, file or reservation", "s", tuple(taken))
    mark = Reach(f"seconds ≤ grace + 1 = {GRACE_S + 1:g}", ours.median, GRACE_S + 1)
    note = "pressed on the check run: through the webhook and the question whether who pressed may"
    yield Row("cancel", (ours,), (), (mark,), (note,))


def cancelled(stack: Stack, repo: Repo, number: int) -> float:
    """Seconds from the press until nothing is left of one experiment."""
    sha = repo.push({**file(COMMAND), "number": str(number)})
    found = repo.wait(sha, lambda e: e.state is State.RUNNING)
    wait_for(lambda: "deaf" in repo.log(found), LIMIT_S)
    runs = repo.checks(sha, lambda runs: bool(runs and runs[-1]["actions"]))
    (key,) = (node.key for node in found.held.nodes)
    assert marked(stack, [key])
    pressed = time.time()
    stack.control.click(runs[-1]["id"], "cancel")
    while attempts_on_node(stack) or marked(stack, [key]):
        assert time.time() < pressed + LIMIT_S, attempts_on_node(stack)
        time.sleep(LOOK_S)
    empty = time.time()
    repo.wait(sha, lambda e: e.state is State.CANCELLED)  # recorded after the reservation was given back
    ended = next(each.at for each in stack.timeline(found.id) if each.state is State.CANCELLED)
    return max(empty, ended) - pressed
