"""A million lines from one command until the last is kept, and how late a line is where a person looks."""

import http.client
import json
import os
import re
import shlex
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import quantiles
from typing import Self

from ci_bot.web.key import KEY, kept_secret
from launcher.state import State
from tests.bench.figures import Figure, Reach, Row, ratio
from tests.bench.ground import alone, ended, file, rounds
from tests.e2e.killing import Victim, find
from tests.e2e.stack import Repo, Stack

ROUNDS = 3
LINES = 1_000_000
LINE_BYTES = 100
WRITER = f"""\
import sys, time
began, write = time.time_ns(), sys.stdout.write
for number in range({LINES}):
    write(f"{{number:07}} {{began}} ".ljust({LINE_BYTES - 1}, "x") + chr(10))
"""
RATE_BYTES = 5_000_000
STREAM_S = 12
TELLER = f"""\
import sys, time
end = time.monotonic() + {STREAM_S}
beat, lines = time.monotonic(), {RATE_BYTES // 100 // LINE_BYTES}
while beat < end:
    for _ in range(lines):
        sys.stdout.write(f"{{time.time_ns()}} ".ljust({LINE_BYTES - 1}, "x") + chr(10))
    sys.stdout.flush()
    beat += 0.01
    time.sleep(max(0, beat - time.monotonic()))
"""
STAMP = re.compile(rb"(?<![0-9])(1[0-9]{18})(?![0-9])")
PARTS = (Victim.WORKER, Victim.DRIVER, Victim.AGENT, Victim.GUARDIAN)
LOOK_S = 0.05


@dataclass
class Use:
    """What our processes took while something ran; a guardian that has ended is known by its last look."""

    stack: Stack
    cpu_s: dict[tuple[Victim, int], tuple[float, float]] = field(default_factory=dict)
    rss_mib: dict[Victim, float] = field(default_factory=dict)
    _done: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    @property
    def by_part(self) -> dict[Victim, float]:
        """Seconds of processors, from the first look to the last."""
        return {
            part: sum(last - first for (whose, _), (first, last) in self.cpu_s.items() if whose is part)
            for part in PARTS
        }

    def _watch(self) -> None:
        known: dict[Victim, list[int]] = {part: list(find(self.stack, part)) for part in PARTS}
        while not self._done.wait(LOOK_S):
            known[Victim.GUARDIAN] = list(find(self.stack, Victim.GUARDIAN)) or known[Victim.GUARDIAN]
            for part, pids in known.items():
                for pid in pids:
                    self._look(part, pid)

    def _look(self, part: Victim, pid: int) -> None:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return  # it has ended
        cpu_s = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        first = 0.0 if part is Victim.GUARDIAN else cpu_s
        self.cpu_s[part, pid] = (self.cpu_s.get((part, pid), (first, 0.0))[0], cpu_s)
        rss_mib = int(fields[21]) * os.sysconf("SC_PAGE_SIZE") / 2**20
        self.rss_mib[part] = max(rss_mib, self.rss_mib.get(part, 0.0))


@dataclass(frozen=True)
class Kept:
    """A million lines, kept."""

    seconds: float
    lost: int
    cpu_s: float
    rss_mib: float = 0.0
    worker_mib: float = 0.0
    parts: str = ""
    """Whose processors it took."""


def ours(stack: Stack, repo: Repo, number: int) -> Kept:
    """Through the guardian, the agent and the worker onto the worker's disk."""
    with Use(stack) as use:
        command = f"python3 -S -c {shlex.quote(WRITER)}"
        done = ended(repo, repo.push({**file(command), "number": str(number)}), timeout_s=300)
    found = done.experiment
    directory = stack.data_dir / "logs" / str(found.id) / str(found.progress.attempt)
    last = max(path.stat().st_mtime for path in directory.rglob("*") if path.is_file())
    return Kept(
        last - _began(done.log),
        _lost(done.log),
        sum(use.by_part.values()),
        rss_mib=sum(use.rss_mib.values()),
        worker_mib=use.rss_mib[Victim.WORKER],
        parts=", ".join(f"{part} {seconds:.2f} s" for part, seconds in use.by_part.items()),
    )


def to_a_file(root: Path) -> Kept:
    """The same command, writing to a file."""
    path = root / "lines"
    before = os.times()
    with path.open("wb") as out:
        subprocess.run(["python3", "-S", "-c", WRITER], stdout=out, check=True)
    after = os.times()
    text = path.read_text()
    seconds = path.stat().st_mtime - _began(text)
    path.unlink()
    cpu_s = after.children_user + after.children_system - before.children_user - before.children_system
    return Kept(seconds, _lost(text), cpu_s)


def _began(text: str) -> float:
    return int(text.split(" ", 2)[1]) / 1e9


def _lost(text: str) -> int:
    whole = {int(line[:7]) for line in text.splitlines() if len(line) == LINE_BYTES - 1 and line[:7].isdigit()}
    return LINES - len(whole)


# --- the viewer ---


def seen(stack: Stack, repo: Repo) -> tuple[list[float], int]:
    """How late each line was that a viewer saw while the command ran, and how many lines were written."""
    sha = repo.push({**file(f"python3 -S -c {shlex.quote(TELLER)}"), "number": "stream"})
    found = repo.wait(sha, lambda each: each.state is State.RUNNING)
    late_s = list(_watched(stack, found.id))
    done = ended(repo, sha, timeout_s=300)
    return late_s, len(done.log.splitlines())


def _watched(stack: Stack, experiment_id: int) -> Iterator[float]:
    """Reads the event stream as a browser does: each line's lateness when its event is whole."""
    port = int(stack.environment["PORT"])
    web = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    web.request("GET", f"/?key={kept_secret(stack.data_dir, KEY)}")
    answer = web.getresponse()
    cookie = answer.getheader("Set-Cookie", "").partition(";")[0]
    answer.read()
    web.request("GET", f"/experiments/{experiment_id}/events", headers={"Cookie": cookie})
    stream = web.getresponse()
    assert stream.status == 200, stream.status
    name = b""
    for line in iter(stream.readline, b""):
        field_name, _, value = line.rstrip(b"\r\n").partition(b": ")
        if field_name == b"event":
            name = value
        elif field_name == b"data" and name == b"log" and b'"html"' in value:
            now = time.time()
            json.loads(value)
            yield from (now - int(stamp) / 1e9 for stamp in STAMP.findall(value))
        if name == b"end":
            break
    web.close()


def measure() -> Iterator[Row]:
    """The row."""
    kept, files, late, written = [], [], [], 0
    with alone() as stack:
        repo = stack.repository("log")
        ended(repo, repo.push(file("true")))
        for number in range(rounds(ROUNDS)):
            kept.append(ours(stack, repo, number))
            files.append(to_a_file(stack.root))
        late, written = seen(stack, repo)
    yield _row(kept, files, late, written)


def _row(kept: list[Kept], files: list[Kept], late_s: list[float], written: int) -> Row:
    seconds = Figure("first line to all kept", "s", tuple(each.seconds for each in kept))
    beside = Figure("the command writing to a file", "s", tuple(each.seconds for each in files))
    lost = max(each.lost for each in kept)
    p95_s = quantiles(late_s, n=20)[-1]
    ours_figures = (
        seconds,
        Figure("lines lost", "", tuple(float(each.lost) for each in kept)),
        Figure("processors, all our processes", "s", tuple(each.cpu_s for each in kept)),
        Figure("memory at most, all our processes", "MiB", tuple(each.rss_mib for each in kept)),
        Figure("memory at most, the worker", "MiB", tuple(each.worker_mib for each in kept)),
        Figure("lines shown to a viewer", "%", (100 * len(late_s) / written,)),
        Figure("a viewer's delay, median", "s", (quantiles(late_s, n=2)[0],)),
        Figure("a viewer's delay, p95", "s", (p95_s,)),
    )
    return Row(
        "log",
        ours_figures,
        (beside, Figure("processors, the command alone", "s", tuple(each.cpu_s for each in files))),
        (
            Reach("lines lost", lost, 0),
            ratio("of the time", seconds, beside, at_most=1.5),
            Reach("p95 delay ≤ 1 s", p95_s, 1.0),
        ),
        (
            f"{LINES:,} lines of {LINE_BYTES} bytes, from the command's own time at its first line to the modification "
            "time of the last file that keeps them.",
            "Processors and memory (RSS) are those of worker, driver, agent and guardian, looked at every "
            f"{1000 * LOOK_S:.0f} ms; pages that they share are counted in each. Processors: {kept[-1].parts}.",
            f"The viewer reads the event stream at {RATE_BYTES / 1e6:g} MB/s for {STREAM_S} s; each line carries its "
            f"own time. It was shown {len(late_s):,} of {written:,} lines: who is more than 1 MiB behind is taken to "
            "the end, and told how much is left out; the delay is of the lines that were shown.",
        ),
    )
