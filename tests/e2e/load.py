"""A mixed load of pushes whose commands leave traces, and the truth about all of it afterwards."""

import asyncio
import hashlib
import json
import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from sqlalchemy import func, select

from ci_bot.records import Experiment
from ci_bot.store import experiments
from ci_bot.store.tables import delivery
from launcher.ray_backend import Connection, RayBackend
from launcher.ray_head import Head
from launcher.state import TERMINAL, State
from tests.e2e.stack import Repo, Stack, config

EVERY_BRANCH = {"filters": {"branches": {"only": ".*"}}}
LONG_S = 600  # nobody waits for it: what runs so long is cancelled or superseded
TRACE = """\
# The lock is inherited by everything that this attempt starts: who can't take it is not alone.
token=$1 seconds=$2 code=$3
trace=$PS_JOBSPACE/$token.trace
exec 9>>"$PS_JOBSPACE/$token.lock"
flock -n 9 || echo "overlap $ATTEMPT" >>"$trace"
echo "begin $ATTEMPT" >>"$trace"
echo "hello from $token"
head -c 300000 /dev/urandom >"$ARTIFACTS_DIR/bytes"
sha256sum <"$ARTIFACTS_DIR/bytes" >"$ARTIFACTS_DIR/sum"
sleep "$seconds"
echo "end $ATTEMPT $code" >>"$trace"
echo "the end of $token"
exit "$code"
"""
CONCLUSIONS = {
    State.STOPPED: "success",
    State.FAILED: "failure",
    State.CANCELLED: "cancelled",
    State.ERROR: "failure",
}


class Kind(StrEnum):
    """What is to become of a push."""

    SUCCESS = "success"
    FAILURE = "failure"
    LONG = "long"
    PULL = "pull"
    CANCELLED = "cancelled"
    SUPERSEDED = "superseded"
    BROKEN = "broken"


ENDS = {
    Kind.SUCCESS: State.STOPPED,
    Kind.LONG: State.STOPPED,
    Kind.PULL: State.STOPPED,
    Kind.FAILURE: State.FAILED,
    Kind.CANCELLED: State.CANCELLED,
    Kind.SUPERSEDED: State.CANCELLED,
}


@dataclass
class Pushed:
    """One commit and what it should come to."""

    repo: Repo
    sha: str
    token: str
    kind: Kind
    clicked: bool = False

    @property
    def check_name(self) -> str:
        return "descent/config" if self.kind is Kind.BROKEN else "descent/exp"

    def runs(self) -> list[Any]:
        """Its check runs of that name, as GitHub shows them."""
        runs = self.repo.stack.control.check_runs(self.repo.full_name, self.sha)
        return [run for run in runs if run["name"] == self.check_name]


@dataclass
class Load:
    """Pushes to one repository, and everything that must hold of them."""

    repo: Repo
    dice: random.Random
    pushed: list[Pushed] = field(default_factory=list)

    def __post_init__(self) -> None:
        """A pull request needs a branch to go to; a commit without a configuration file comes to nothing."""
        self.repo.push({"README.md": "A mixed load."})

    @property
    def stack(self) -> Stack:
        return self.repo.stack

    def push_mix(self) -> list[Pushed]:
        """One of each kind, in a random order."""
        kinds = list(Kind)
        self.dice.shuffle(kinds)
        return [pushed for kind in kinds for pushed in self.push(kind)]

    def push(self, kind: Kind, seconds: float | None = None) -> list[Pushed]:
        """Push what should come to this, after some seconds of running; superseding takes two."""
        branch = f"{kind}-{len(self.pushed)}"
        seconds = self.dice.uniform(0.5, 2.0) + 4 * (kind is Kind.LONG) if seconds is None else seconds
        match kind:
            case Kind.SUCCESS | Kind.LONG:
                return [self._commit(kind, "main", seconds, 0)]
            case Kind.FAILURE:
                return [self._commit(kind, "main", seconds, 3)]
            case Kind.CANCELLED:
                return [self._commit(kind, "main", LONG_S, 0)]
            case Kind.SUPERSEDED:
                older = self._commit(kind, branch, LONG_S, 0, **EVERY_BRANCH)
                return [older, self._commit(Kind.SUCCESS, branch, seconds, 0, **EVERY_BRANCH)]
            case Kind.PULL:
                one = self._commit(kind, branch, seconds, 0)
                self.stack.control.open_pull_request(self.repo.full_name, branch)
                return [one]
            case Kind.BROKEN:
                sha = self.repo.push({".descent/config.yaml": "version: 1\nworker:\n  count: 0\n"})
                return [self._remember(Pushed(self.repo, sha, "", kind))]

    def _commit(self, kind: Kind, branch: str, seconds: float, code: int, **more: Any) -> Pushed:
        token = f"{self.repo.clone.name}-{len(self.pushed)}-{kind}"
        command = f"sh train.sh {token} {seconds:.2f} {code}"
        files = {".descent/config.yaml": config(command, **more), "train.sh": TRACE}
        sha = self.repo.push(files, branch=branch, message=token)
        if branch != "main":  # a pull request ends when its commit gets into the main branch
            self.repo.git("reset", "--quiet", "--hard", "HEAD~1")
        return self._remember(Pushed(self.repo, sha, token, kind))

    def _remember(self, pushed: Pushed) -> Pushed:
        self.pushed.append(pushed)
        return pushed

    # --- until everything has ended ---

    def settle(self, timeout_s: float) -> None:
        """Wait until every check run is completed; presses the cancel buttons on the way."""
        give_up_at = time.monotonic() + timeout_s
        while open_ones := [one for one in self.pushed if not self._done(one)]:
            if time.monotonic() > give_up_at:
                raise AssertionError(f"not settled within {timeout_s:.0f} s: {[self._shown(one) for one in open_ones]}")
            time.sleep(0.1)

    def _done(self, one: Pushed) -> bool:
        runs = one.runs()
        if runs and runs[-1]["status"] == "completed":
            return True
        if not runs and self._came_too_late(one):
            return True
        if runs and one.kind is Kind.CANCELLED and not one.clicked and runs[-1]["actions"]:
            self.stack.control.click(runs[-1]["id"], "cancel")
            one.clicked = True
        return False

    def _came_too_late(self, one: Pushed) -> bool:
        """Whether its webhook was lost, and the branch had moved on when it was recovered: on record, and no more."""
        moved_on = delivery.c.processed_at.is_not(None) & delivery.c.outcome.contains("has moved on to")
        bodies = self.stack.look(lambda c: c.scalars(select(delivery.c.body).where(moved_on)).all())
        return one.kind is Kind.SUPERSEDED and any(json.loads(body).get("after") == one.sha for body in bodies)

    def shown(self) -> str:
        """How far everything has come."""
        return str([self._shown(one) for one in self.pushed])

    def _shown(self, one: Pushed) -> Any:
        experiment = self.repo.experiment(one.sha)
        state = experiment and (experiment.state, experiment.progress, experiment.wish, experiment.held)
        return one.token, [(run["status"], run["conclusion"], run["output"]["title"]) for run in one.runs()], state

    # --- what must hold ---

    def untruths(self) -> list[str]:
        """Everything that is not as it must be, in sentences."""
        return [f"{one.token or one.kind}: {text}" for one in self.pushed for text in self._untruths_of(one)]

    def _untruths_of(self, one: Pushed) -> Iterator[str]:
        runs = one.runs()
        if not runs and self._came_too_late(one):
            return
        if len(runs) != 1:
            yield f"{len(runs)} check runs"
        if not runs or runs[-1]["status"] != "completed":
            yield "the check run is not completed"
            return
        found = [e for e in self.stack.look(all_experiments) if e.head_sha == one.sha]
        if one.kind is Kind.BROKEN:
            if found or runs[-1]["conclusion"] != "failure":
                yield f"a broken file gave {len(found)} experiments and {runs[-1]['conclusion']}"
            return
        if len(found) != 1:
            yield f"{len(found)} experiments"
        for experiment in found:
            yield from self._untruths_of_experiment(one, experiment, runs[-1])

    def _untruths_of_experiment(self, one: Pushed, experiment: Experiment, run: Any) -> Iterator[str]:
        state, progress = experiment.state, experiment.progress
        if state not in TERMINAL:
            yield f"is {state}"
            return
        if run["conclusion"] != CONCLUSIONS[state]:
            yield f"is {state}, and the check run says {run['conclusion']}"
        spent = progress.infrastructure_retries_used >= progress.infrastructure_retries
        if state is not ENDS[one.kind] and not (state is State.ERROR and spent):
            yield f"is {state}: {progress}, {experiment.detail}"
        trace = self._trace(one)
        if any(line.startswith("overlap") for line in trace):
            yield f"two attempts ran at once: {trace}"
        code = {State.STOPPED: 0, State.FAILED: 3}.get(state)
        if code is not None:
            if f"end {progress.tries} {code}" not in trace:
                yield f"is {state}, and its command did not end so: {trace}, {progress}"
            yield from self._not_kept(one, experiment)

    def _trace(self, one: Pushed) -> list[str]:
        found = list((self.stack.data_dir / "node" / "storage").glob(f"*/{one.token}.trace"))
        return found[0].read_text().splitlines() if found else []

    def _not_kept(self, one: Pushed, experiment: Experiment) -> Iterator[str]:
        """Log and artifacts of what ended by itself are whole."""
        if f"the end of {one.token}" not in self.repo.log(experiment):
            yield "the end of its log is missing"
        kept = self.stack.data_dir / "artifacts" / str(experiment.id) / str(experiment.progress.attempt)
        names = {path.name for path in kept.glob("*")}
        if names != {"bytes", "sum"}:
            yield f"its artifacts are {names}"
        elif hashlib.sha256((kept / "bytes").read_bytes()).hexdigest() not in (kept / "sum").read_text():
            yield "its artifacts are not whole"


def all_experiments(connection: Any) -> list[Experiment]:
    return experiments.listed(connection, limit=100_000)


def delivery_untruths(stack: Stack) -> list[str]:
    """Deliveries that GitHub has sent, or tried to, and that were not acted on exactly once."""
    columns = select(delivery.c.guid, delivery.c.processed_at, delivery.c.outcome)
    rows = stack.look(lambda c: c.execute(columns).all())
    times = Counter(row.guid for row in rows)
    done = {row.guid for row in rows if row.processed_at is not None}
    sent = {each["guid"]: each["event"] for each in stack.control.deliveries()}
    return [
        *(f"delivery {guid} is on record {count} times" for guid, count in times.items() if count != 1),
        *(f"delivery {guid} ({event}) was not acted on" for guid, event in sent.items() if guid not in done),
    ]


def undelivered(stack: Stack) -> int:
    """How many deliveries wait to be acted on."""
    waiting = select(func.count()).where(delivery.c.processed_at.is_(None))
    return int(stack.look(lambda c: c.execute(waiting).scalar_one()))


def attempt_keys(stack: Stack) -> list[str]:
    """The keys of every attempt that there ever was."""
    return [
        f"exp-{e.id}-a{number}-n0" for e in stack.look(all_experiments) for number in range(1, e.progress.attempt + 1)
    ]


def reservations(stack: Stack) -> list[str]:
    """The placement groups that Ray knows now."""

    async def ask() -> list[str]:
        head = Head.load(stack.record()["ray"])
        where = Connection(head.address, head.token_path)
        backend = RayBackend(lambda: where, environment=os.environ, fence_s=120)
        await backend.connect()
        try:
            return await backend.reservations()
        finally:
            await backend.close()

    return asyncio.run(ask())


def attempts_on_node(stack: Stack) -> list[str]:
    """The attempts that have anything on the node."""
    return sorted(path.name for path in (stack.data_dir / "node" / "attempts").glob("*"))


def parts(root: Path) -> list[str]:
    """Files that were begun and never finished."""
    return [str(path.relative_to(root)) for path in root.rglob("*.part") if "clones" not in path.parts]
