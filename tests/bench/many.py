"""Hundreds of short experiments pushed together, beside Ray's jobs of the same length."""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, func, select

from ci_bot.store.tables import delivery, experiment
from launcher import ray_head
from launcher.state import TERMINAL, State
from tests.bench import machine
from tests.bench.figures import Figure, Reach, Row, number
from tests.bench.ground import BRANCHES, CPUS, Ground, ended, file, ground
from tests.e2e.killing import Victim, find
from tests.e2e.stack import Repo, Stack

COUNT = 500
JOBS = 40
"""Ray's jobs are so many times slower that a sample of them has to do; their rate does not depend on how many."""
AT_ONCE = CPUS
COMMAND = "sleep 1"
LIMIT_S = 600.0
LOOK_S = 0.5


def measure() -> Iterator[Row]:
    """The row of the many."""
    count, jobs = scaled(COUNT), scaled(JOBS)
    with ground(cpus=AT_ONCE) as on:
        repo = on.stack.repository("bench")
        sha = repo.push({**file(COMMAND), "train.py": "print('one second')\n"})
        ended(repo, sha)
        before = on.peer.do("many", count=jobs // 2, at_once=AT_ONCE)
        branches = made(repo, count)
        idle, idle_cpus = Used.by(on.stack), cpus_of(on)
        took, wrong = run_all(on, repo, branches)
        used, cpus = Used.by(on.stack), cpus_of(on)
        after = on.peer.do("many", count=jobs - jobs // 2, at_once=AT_ONCE)
    ours = Figure("experiments", "/s", (count / took,))
    peer = Figure("submit_job", "/s", (jobs // 2 / before["seconds"], (jobs - jobs // 2) / after["seconds"]))
    notes = [
        f"{count} branches in one `git push`, {AT_ONCE} at once, {took:.0f} s from the first webhook to the last end",
        f"Ray's jobs: {jobs // 2} before and {jobs - jobs // 2} after, {AT_ONCE} at once",
        f"a command of 1 s, {AT_ONCE} at once: nothing can be faster than {AT_ONCE} /s",
    ]
    spent = ", ".join(f"{name} {number((cpus[name] - idle_cpus[name]) / count)}" for name in cpus)
    notes += [f"seconds of a processor for each experiment: {spent}"]
    notes += [f"{wrong} did not succeed"] if wrong else []
    yield Row(
        "many at once",
        (
            ours,
            Figure("worker's CPU per experiment, Ray driver included", "s", ((used.cpu_s - idle.cpu_s) / count,)),
            Figure("worker's memory at most, Ray driver included", "MiB", (used.peak_mib,)),
        ),
        (peer,),
        (Reach("of submit_job's rate ≥ 5 ×", ours.median / peer.median, 5.0, at_least=True),),
        tuple(notes),
    )


def scaled(usual: int) -> int:
    """As ROUNDS says: a percentage here, for trying out."""
    return max(4, usual * min(100, int(os.environ.get("ROUNDS", "100"))) // 100)


def made(repo: Repo, count: int) -> list[str]:
    """As many branches, each with a commit of its own."""
    branches = [f"b{each}" for each in range(count)]
    for branch in branches:
        repo.commit({**file(COMMAND, **BRANCHES), "train.py": f"print('one second', '{branch}')\n"})
        repo.git("branch", "--force", branch)
    return branches


def run_all(on: Ground, repo: Repo, branches: list[str]) -> tuple[float, int]:
    """Push branches at once and wait until all have ended: seconds, and how many did not succeed."""
    pushed = time.time()
    repo.git("push", "--quiet", "origin", *branches)
    give_up_at = time.monotonic() + LIMIT_S
    while (counts := on.stack.look(states)) and sum(counts.get(s, 0) for s in TERMINAL) < len(branches) + 1:
        assert time.monotonic() < give_up_at, counts
        time.sleep(LOOK_S)
    began, last = on.stack.look(lambda c: times(c, pushed))
    return last - began, len(branches) + 1 - counts.get(State.STOPPED, 0)


def states(connection: Connection) -> dict[State, int]:
    """How many experiments are in each state."""
    rows = connection.execute(select(experiment.c.state, func.count()).group_by(experiment.c.state)).all()
    return {State(state): number for state, number in rows}


def times(connection: Connection, pushed: float) -> tuple[float, float]:
    """When the first delivery of them came in, and when the last experiment ended."""
    ours = experiment.c.ref.startswith("refs/heads/b")
    last = connection.execute(select(func.max(experiment.c.ended_at)).where(ours)).scalar_one()
    first = select(func.min(delivery.c.received_at)).where(delivery.c.event == "push", delivery.c.received_at > pushed)
    return float(connection.execute(first).scalar_one()), float(last)


@dataclass(frozen=True)
class Used:
    """What the worker and its Ray driver have used so far."""

    cpu_s: float
    peak_mib: float

    @classmethod
    def by(cls, stack: Stack) -> "Used":
        """As the kernel says."""
        pids = [*find(stack, Victim.WORKER), *find(stack, Victim.DRIVER)]
        return cls(sum(map(_cpu_s, pids)), sum(map(_peak_mib, pids)))


def cpus_of(on: Ground) -> dict[str, float]:
    """Seconds that processors have worked for each of our processes, and for all: commands, Ray, the local GitHub."""
    ours = {each.value: list(find(on.stack, each)) for each in (Victim.WORKER, Victim.DRIVER, Victim.WEB)}
    ours["agent"] = [pid for pid in ray_head.remains(on.cluster.head) if _is_agent(pid)]
    return {name: sum(map(_cpu_s, pids)) for name, pids in ours.items()} | {"all": machine.busy_s()}


def _is_agent(pid: int) -> bool:
    return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"ray::NodeAgent")


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _peak_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024
