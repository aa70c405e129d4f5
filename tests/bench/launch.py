"""From an admission, or a push, to the first instruction of the command; and from its end to the finished check run."""

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median

from sqlalchemy import select

from ci_bot.github.pace import INTERVAL_S
from ci_bot.store.tables import delivery
from launcher.state import State
from tests.bench.figures import Figure, Reach, Row, number, ratio
from tests.bench.ground import CLOCK, STAMP, Ended, Ground, ended, file, files, ground, rounds
from tests.e2e.stack import Repo, Stack

ROUNDS = 10
TREE_MIB = 5.0
WRITES = 4
"""Of an experiment at most. In the long run Descent writes once a second, as GitHub asks; that wait is not measured."""
LAUNCH = (State.PROVISIONING, State.PROVISIONED, State.NETWORK_SETUP)
PUSH = (State.CREATED, State.PENDING, State.PROVISIONING)
COMMAND = f"{STAMP}; echo 1 >$ARTIFACTS_DIR/one; sleep 1; {STAMP}"
"""Its last instruction is the second stamp."""


@dataclass
class Samples:
    """What the rounds gave, in seconds."""

    warm: list[float] = field(default_factory=list)
    large: list[float] = field(default_factory=list)
    new: list[float] = field(default_factory=list)
    pushed: list[float] = field(default_factory=list)
    small: list[float] = field(default_factory=list)
    finished: list[float] = field(default_factory=list)
    running: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    floor: list[float] = field(default_factory=list)
    launch_parts: list[tuple[float, ...]] = field(default_factory=list)
    new_parts: list[tuple[float, ...]] = field(default_factory=list)
    small_parts: list[tuple[float, ...]] = field(default_factory=list)
    push_parts: list[tuple[float, ...]] = field(default_factory=list)


def measure() -> Iterator[Row]:
    """The four rows of a single node."""
    with ground() as on:
        repo, small = on.stack.repository("bench"), on.stack.repository("small")
        repo.commit(files(TREE_MIB, 1))
        one_round(on, repo, small, -1)  # makes what is made once
        taken = Samples()
        for number in range(rounds(ROUNDS)):
            each = one_round(on, repo, small, number)
            for name, samples in vars(taken).items():
                samples += getattr(each, name)
    yield from rows_of(taken)


def one_round(on: Ground, repo: Repo, small: Repo, number: int) -> Samples:
    """A commit never seen, one of a small repository, both again, then the peer and the floor."""
    change = {**file(COMMAND), "src/new.py": f"number = {number}\n"}
    (fresh, again), (little, once_more) = twice(on, repo, change), twice(on, small, change)
    peer, floor = on.peer.do("submit"), on.peer.do("floor")
    return Samples(
        warm=[launched(once_more)],
        large=[launched(again)],
        new=[launched(fresh)],
        pushed=[pushed(on, fresh)],
        small=[pushed(on, little)],
        finished=[finished(on, each) for each in (fresh, again, little, once_more)],
        running=[peer["running_s"]],
        first=[peer["first_s"]],
        floor=[floor["first_s"]],
        launch_parts=[parts(once_more, LAUNCH)],
        new_parts=[parts(fresh, LAUNCH)],
        small_parts=[parts(little, PUSH, received_at(on.stack, little.experiment.head_sha))],
        push_parts=[parts(fresh, PUSH, received_at(on.stack, fresh.experiment.head_sha))],
    )


def parts(of: Ended, states: tuple[State, ...], *since: float) -> tuple[float, ...]:
    """Seconds from each state to the next, and from the last to the first instruction."""
    times = [*since, *(of.at(state) for state in states), of.stamps[0]]
    return tuple(later - earlier for earlier, later in pairwise(times))


def told(what: str, names: str, samples: list[tuple[float, ...]]) -> str:
    """Where the time of the medians goes."""
    medians = (median(each) for each in zip(*samples, strict=True))
    spent = ", ".join(f"{name} {number(each)}" for name, each in zip(names.split(", "), medians, strict=True))
    return f"{what}, medians in s: {spent}"


def twice(on: Ground, repo: Repo, change: Mapping[str, str]) -> tuple[Ended, Ended]:
    """A new commit with this change, and its re-run."""
    sha = repo.push(change)
    first = unhurried(repo, sha)
    on.stack.control.rerun(check_run_id=repo.check(sha)["id"])
    return first, unhurried(repo, sha, rerun=1)


def unhurried(repo: Repo, sha: str, *, rerun: int = 0) -> Ended:
    """An experiment that has ended, once its writes to GitHub no longer hold up those of the next one."""
    until = time.monotonic() + WRITES * INTERVAL_S
    done = ended(repo, sha, rerun=rerun)
    time.sleep(max(0.0, until - time.monotonic()))
    return done


def launched(of: Ended) -> float:
    """Seconds from the admission to the command's first instruction."""
    return of.stamps[0] - of.at(State.PROVISIONING)


def pushed(on: Ground, of: Ended) -> float:
    """Seconds from the webhook of a push to the command's first instruction."""
    return of.stamps[0] - received_at(on.stack, of.experiment.head_sha)


def finished(on: Ground, of: Ended) -> float:
    """Seconds from the command's last instruction until GitHub is asked to complete the check run."""
    for request in on.stack.control.requests():
        body = request["request_body"]
        if not isinstance(body, dict) or body.get("external_id") != str(of.experiment.id):
            continue
        if request["method"] in {"POST", "PATCH"} and body.get("status") == "completed":
            return float(request["at"]) - of.stamps[-1]
    raise AssertionError("the check run was not completed")


def received_at(stack: Stack, sha: str) -> float:
    """When web took the webhook of a push, as it wrote down."""
    columns = select(delivery.c.received_at, delivery.c.body).where(delivery.c.event == "push")
    rows = stack.look(lambda c: c.execute(columns.order_by(delivery.c.seq.desc()).limit(50)).all())
    return float(next(row.received_at for row in rows if json.loads(row.body).get("after") == sha))


def rows_of(taken: Samples) -> Iterator[Row]:
    """The samples as rows."""
    peer = Figure("submit_job → RUNNING", "s", tuple(taken.running))
    first = Figure("submit_job → first instruction", "s", tuple(taken.first))
    floor = Figure("placement group + existing actor + sh -c true", "s", tuple(taken.floor))
    beside, of_client = (peer, first, floor), "of the client's"
    trees, tree = ("2 files", f"{TREE_MIB:g} MiB"), f"a tree of {TREE_MIB:g} MiB in 256 files"
    steps = "reserved and prepared, recorded, started"
    warm = "the commit and its environment are on the node; " + told("2 files", steps, taken.launch_parts)
    fresh = f"{tree}, a commit never seen; " + told("it", steps, taken.new_parts)
    for name, limit, note, each in (
        ("launch, warm", 0.10, warm, zip(trees, (taken.warm, taken.large), strict=True)),
        ("launch, new commit", 0.25, fresh, [(trees[1], taken.new)]),
    ):
        ours = [(size, Figure(f"admitted → first instruction, {size}", "s", tuple(samples))) for size, samples in each]
        marks = [ratio(f"{of_client}, {size}", figure, peer, at_most=limit) for size, figure in ours]
        factor = f"{ours[0][1].median / floor.median:.0f} times the floor"
        yield Row(name, tuple(figure for _, figure in ours), beside, tuple(marks), (note, factor, CLOCK))
    pairs = zip(trees, (taken.small, taken.pushed), strict=True)
    pushes = [Figure(f"webhook → first instruction, a tree of {size}", "s", tuple(samples)) for size, samples in pairs]
    marks = [ratio(f"{of_client}, {size}", push, peer, at_most=0.20) for size, push in zip(trees, pushes, strict=True)]
    way = "understood, code fetched, admitted, launched"
    notes = (
        told("2 files", way, taken.small_parts),
        told(trees[1], way, taken.push_parts),
        "the webhook's time is the one that web writes down once the signature is checked",
        "the larger tree is compressed by the local GitHub meanwhile, which is in the time",
    )
    yield Row("push to running", tuple(pushes), (peer, first), tuple(marks), notes)
    done = Figure("last instruction → GitHub is asked to complete the check run", "s", tuple(taken.finished))
    note = "log and artifact are stored before; the local GitHub writes down when the request came"
    yield Row("end to finished check", (done,), (), (Reach("median, s ≤ 0.5", done.median, 0.5),), (note,))
