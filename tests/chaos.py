"""Kills at length: `python -m tests.chaos --rounds N --seed S [--database sqlite|postgresql] [--no-faults]`.

Each round is a mixed load of pushes, faults of GitHub, and one to three victims at moments that the seed chooses; when
it has settled, everything that must hold is looked at. One line of JSON for each round; exit code 1 if anything was
not as it must be.
"""

import argparse
import json
import random
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pytest

from ci_bot.local_github.control import Control
from launcher.state import TERMINAL
from tests import namespace, postgresql
from tests.e2e import load
from tests.e2e.killing import Victim, find, kill, listening, marked, processes_of
from tests.e2e.load import Load
from tests.e2e.stack import Stack, stack_in, wait_for

SETTLE_S = 420.0
FAULTS: dict[str, tuple[dict[str, Any], ...]] = {
    "502": ({"kind": "status", "status": 502, "count": 6},),
    "slow": ({"kind": "delay", "seconds": 1.5, "count": 8},),
    "403 with Retry-After": ({"kind": "secondary_limit", "status": 403, "retry_after_s": 2, "count": 2},),
    "429 with Retry-After": ({"kind": "secondary_limit", "status": 429, "retry_after_s": 1, "count": 2},),
    "429 without Retry-After": ({"kind": "secondary_limit", "status": 429, "count": 1},),
    "primary limit": ({"kind": "primary_limit", "status": 403, "seconds": 3.0, "count": 2},),
    "connection lost before": ({"kind": "drop", "count": 4},),
    "answer lost": (
        {"kind": "drop_after", "method": "POST", "path": "*/check-runs", "count": 2},
        {"kind": "drop_after", "method": "PATCH", "count": 2},
    ),
    "token refused": ({"kind": "unauthorized", "count": 2},),
    "stale reads": ({"kind": "stale", "method": "GET", "seconds": 3.0, "count": 4},),
    "webhooks lost": ({"kind": "lose", "target": "webhook", "count": 3},),
    "webhooks doubled": ({"kind": "double", "target": "webhook", "count": 4},),
    "webhooks reordered": ({"kind": "hold", "target": "webhook", "count": 3},),
    "webhooks late": ({"kind": "delay", "target": "webhook", "seconds": 2.0, "count": 4},),
}


@dataclass
class Round:
    """What was done in a round, and what came of it."""

    database: str
    number: int
    victims: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    settled_s: float = 0.0
    experiments: int = 0
    attempts: int = 0
    ends: dict[str, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)


@dataclass
class Chaos:
    """Rounds on one stack."""

    stack: Stack
    database: str
    dice: random.Random
    faulty: bool
    deck: list[Victim] = field(default_factory=list)
    """Who has not been drawn since all were: each falls as often as any other."""

    def round(self, number: int) -> Round:
        """Push, hurt, wait, look."""
        done = Round(self.database, number)
        pushes = Load(self.stack.repository(f"round-{number}"), self.dice)
        if self.faulty:
            done.faults = self.dice.sample(sorted(FAULTS), self.dice.randint(1, 4))
            for name in done.faults:
                arm(self.stack.control, name)
        began = time.monotonic()
        pushes.push_mix()
        for victim in self._drawn(self.dice.choice([1, 1, 2, 3])):
            time.sleep(self.dice.uniform(0.0, 4.0))
            done.victims += self._hit(victim)
        try:
            pushes.settle(SETTLE_S)
        except AssertionError as late:
            done.wrong.append(str(late))
        done.settled_s = round(time.monotonic() - began, 1)
        self._look(pushes, done)
        return done

    def _drawn(self, count: int) -> list[Victim]:
        drawn = []
        for _ in range(count):
            self.deck = self.deck or self.dice.sample(list(Victim), len(Victim))
            drawn.append(self.deck.pop())
        return drawn

    def _hit(self, victim: Victim) -> list[str]:
        try:
            wait_for(lambda: any(find(self.stack, victim)), 60)
        except (AssertionError, KeyError):
            return [f"no {victim} to kill"]
        struck = [str(victim)] if kill(self.stack, victim) else []
        if victim is Victim.UP:
            self.stack.start()
        return struck

    def _look(self, pushes: Load, done: Round) -> None:
        self.stack.control.ping(self.stack.app["id"])  # lets go of a webhook that is held back for the next one
        done.wrong += self._within(120, lambda: load.delivery_untruths(self.stack))
        self.stack.control.clear_faults()
        done.wrong += pushes.untruths()
        done.wrong += self._within(90, lambda: [f"{group} is reserved" for group in load.reservations(self.stack)])
        done.wrong += self._within(60, lambda: [f"{key} is on the node" for key in load.attempts_on_node(self.stack)])
        done.wrong += [f"process {pid} is left" for pid in marked(self.stack, load.attempt_keys(self.stack))]
        ended = [e for e in self.stack.look(load.all_experiments) if e.full_name == pushes.repo.full_name]
        done.experiments = len(ended)
        done.attempts = sum(e.progress.attempt for e in ended)
        done.ends = dict(Counter(str(e.state) for e in ended))
        done.wrong += [f"experiment {e.id} is {e.state}" for e in ended if e.state not in TERMINAL]

    def _within(self, limit_s: float, wrong: Callable[[], list[str]]) -> list[str]:
        """What is still wrong after that long."""
        give_up_at = time.monotonic() + limit_s
        while (found := wrong()) and time.monotonic() < give_up_at:
            time.sleep(0.5)
        return found


def arm(control: Control, name: str) -> None:
    """Put one of the faults in force."""
    for rule in FAULTS[name]:
        control.fault(**rule)


def left_behind(stack: Stack, temporary: Path, ports_before: set[int], *, alone: bool) -> list[str]:
    """What a stack that was stopped has left."""
    return [
        *(f"process {words}" for words in processes_of(stack)),
        *(f"process {pid}" for pid in marked(stack, load.attempt_keys(stack))),
        *(f"attempt {key}" for key in load.attempts_on_node(stack)),
        *(f"file {name}" for name in load.parts(stack.root)),
        *(f"temporary {path.name}" for path in temporary.iterdir()),
        *(f"port {port}" for port in (listening() - ports_before if alone else ())),
    ]


@contextmanager
def settings_for(database: str) -> Iterator[dict[str, str]]:
    """What makes a stack use a database, which goes with it."""
    if database == "sqlite":
        yield {}
        return
    with postgresql.serving() as server:
        yield {"DATABASE_URL": server.create()}


@contextmanager
def directories() -> Iterator[tuple[Path, Path]]:
    """For a stack and for its temporary files; short names, for Ray's sockets lie below."""
    root, temporary = (Path(tempfile.mkdtemp(prefix=prefix, dir="/tmp")) for prefix in ("chaos-", "c-"))
    root.chmod(0o755)
    try:
        yield root, temporary
    finally:
        for path in (root, temporary):
            shutil.rmtree(path, ignore_errors=True)


def rounds(database: str, arguments: argparse.Namespace, *, alone: bool) -> list[Round]:
    """All rounds on one database, each told as it ends."""
    done = []
    with ExitStack() as stacked:
        root, temporary = stacked.enter_context(directories())
        settings = stacked.enter_context(settings_for(database))
        stack = stacked.enter_context(stack_in(root, TMPDIR=str(temporary), **settings))
        ports_before = listening()
        stack.start()
        chaos = Chaos(stack, database, random.Random(f"{arguments.seed} {database}"), arguments.faults)
        for number in range(1, arguments.rounds + 1):
            done.append(chaos.round(number))
            print(json.dumps(asdict(done[-1])), flush=True)
        stack.stop()
        left = left_behind(stack, temporary, ports_before, alone=alone)
        done[-1].wrong += left
        print(json.dumps({"database": database, "left": left}), flush=True)
        if any(each.wrong for each in done) and arguments.keep:
            shutil.copytree(root, arguments.keep, dirs_exist_ok=True, ignore_dangling_symlinks=True)
    return done


def summary(done: list[Round]) -> dict[str, Any]:
    """All rounds in one line."""
    settled = [each.settled_s for each in done]
    return {
        "rounds": len(done),
        "kills": dict(Counter(victim for each in done for victim in each.victims)),
        "faults": dict(Counter(name for each in done for name in each.faults)),
        "experiments": sum(each.experiments for each in done),
        "attempts": sum(each.attempts for each in done),
        "ends": dict(sum((Counter(each.ends) for each in done), Counter[str]())),
        "settled_s": {"median": statistics.median(settled), "most": max(settled)},
        "wrong": sum(len(each.wrong) for each in done),
    }


def main() -> int:
    """Run the rounds; 1 if anything was wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--database", choices=["sqlite", "postgresql"], action="append")
    parser.add_argument("--faults", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--keep", type=Path, help="where to copy a stack's directory to if anything was wrong")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what was started ends with us
    print(f"SEED={arguments.seed}", flush=True)
    shared = namespace.enter()
    if shared:
        print(shared, flush=True)
    done: list[Round] = []
    for database in arguments.database or ["sqlite", "postgresql"]:
        try:
            done += rounds(database, arguments, alone=not shared)
        except pytest.skip.Exception as skipped:
            print(f"{database}: {skipped}", flush=True)
    if not done:
        return 1
    print(json.dumps(summary(done)), flush=True)
    return 1 if any(each.wrong for each in done) else 0


if __name__ == "__main__":
    sys.exit(main())
