"""What it takes up: memory of each process, the time to say its version, the size of what is installed."""

import os
import subprocess
import sys
import time
from collections.abc import Collection, Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from sqlalchemy import Connection, func, select

from ci_bot.store.tables import experiment
from launcher import guardian_client, ray_head
from launcher.ray_head import Head
from launcher.state import State
from tests.bench.figures import Figure, Reach, Row
from tests.bench.ground import BRANCHES, UNLIMITED, cluster_in, ended, file, place, rounds
from tests.e2e.killing import Victim, find, marked
from tests.e2e.stack import Repo, Stack, stack_in, wait_for

ROUNDS = 7
RUNNING = 100
LOOKS = 3
PAUSE_S = 1.0
LIMIT_S = 240.0
SLEEP_S = 3600
VERSION_S = 0.2
PSS, RSS = "Pss:", "Rss:"
WORKER = (Victim.WORKER, Victim.DRIVER)


def measure() -> Iterator[Row]:
    """The row."""
    figures, beside = _memory()
    with place() as root, cluster_in(root) as cluster:
        time.sleep(PAUSE_S)
        ray_alone = ray_head.remains(cluster.head)
        beside += [looked_at("Ray's own processes without us, a head with its job server", ray_alone)]
    ours_s, python_s, ray_s = _versions()
    figures += [ours_s, Figure("installed packages", "MiB", (installed_mib("descent"),))]
    beside += [python_s, ray_s, Figure("installed packages of Ray alone", "MiB", (installed_mib("ray"),))]
    yield Row(
        "footprint",
        tuple(figures),
        tuple(beside),
        (Reach(f"`descent --version` ≤ {VERSION_S} s", ours_s.median, VERSION_S),),
        (
            "Memory is PSS (/proc/PID/smaps_rollup): a page that several processes share counts for each by its part. "
            "RSS, which counts it whole for each, is in the words where it differs much.",
            f"{_busy()} experiments run `sleep`, each enclosed as ever; the worker is one process of ours and its Ray "
            "driver. Ray's processes beside us have no dashboard; alone they have one, as `submit_job` needs it.",
            "Installed: the files of the distribution and of all that it requires, without extras.",
        ),
    )


def _busy() -> int:
    """As ROUNDS says: a fraction of it for trying out."""
    return max(3, RUNNING * rounds(ROUNDS) // ROUNDS)


# --- memory ---


def kib(pids: Collection[int], what: str = PSS) -> float:
    """What these processes have together; one that has ended has nothing."""
    found = 0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        found += sum(int(line.split()[1]) for line in lines if line.startswith(what))
    return float(found)


def looked_at(what: str, pids: Collection[int]) -> Figure:
    """The memory of processes together, looked at a few times."""
    samples, rss = [], 0.0
    for _ in range(LOOKS):
        samples.append(kib(pids) / 1024)
        rss = max(rss, kib(pids, RSS) / 1024)
        time.sleep(PAUSE_S / LOOKS)
    return Figure(f"{what} (RSS {rss:.0f})", "MiB", tuple(samples))


def _memory() -> tuple[list[Figure], list[Figure]]:
    busy = _busy()
    with place() as root, stack_in(root, TMPDIR=str(root)) as stack:
        stack.cpus = RUNNING
        stack.control.limits(**UNLIMITED)
        stack.start()
        repo = stack.repository("bench")
        ended(repo, repo.push(file("true")))
        time.sleep(PAUSE_S)
        figures = [
            looked_at("web", [*find(stack, Victim.WEB)]),
            looked_at("worker and driver, idle", _of(stack, *WORKER)),
            looked_at("agent and its fork server, idle", _agent(stack)),
        ]
        head = Head.load(stack.record()["ray"])
        rays = sorted(set(ray_head.remains(head)) - set(_of(stack, Victim.AGENT)))
        beside = [looked_at("Ray's own processes with us, idle", rays)]
        keys = _run(stack, repo, busy)
        figures += [
            looked_at(f"worker and driver, {busy} running", _of(stack, *WORKER)),
            looked_at(f"agent and its fork server, {busy} running", _agent(stack)),
            *_of_attempts(stack, keys),
        ]
    return figures, beside


def _of(stack: Stack, *victims: Victim) -> list[int]:
    return [pid for victim in victims for pid in find(stack, victim)]


def _agent(stack: Stack) -> list[int]:
    """The agent and what it has started for itself."""
    agents = _of(stack, Victim.AGENT)
    children = (path for pid in agents for path in Path(f"/proc/{pid}/task").glob("*/children"))
    return [*agents, *(int(pid) for path in children for pid in path.read_text().split())]


def _run(stack: Stack, repo: Repo, count: int) -> list[str]:
    """So many run; the keys of their attempts."""
    for number in range(count):
        repo.commit({**file(f"sleep {SLEEP_S}", **BRANCHES), "number": str(number)})
        repo.git("branch", "--force", f"b{number}")
    repo.git("push", "--quiet", "origin", *(f"b{number}" for number in range(count)))
    wait_for(lambda: stack.look(_running) >= count, LIMIT_S, lambda: f"{stack.look(_running)} of {count} run")
    time.sleep(PAUSE_S)
    return sorted(path.name for path in (stack.data_dir / "node" / "attempts").glob("exp-*"))


def _running(connection: Connection) -> int:
    rows = select(func.count()).where(experiment.c.state == State.RUNNING)
    return int(connection.execute(rows).scalar_one())


def _of_attempts(stack: Stack, keys: list[str]) -> list[Figure]:
    """What one attempt adds on its node, by those that run."""
    attempts = stack.data_dir / "node" / "attempts"
    found = [guardian_client.find(attempts / key) for key in keys]
    guardians = [each.pid for each in found if each]
    rss = max(kib([pid], RSS) for pid in guardians) / 1024
    whole = [kib({*marked(stack, [key]), guardian}) / 1024 for key, guardian in zip(keys, guardians, strict=True)]
    return [
        Figure(f"guardian (RSS {rss:.0f})", "MiB", tuple(kib([pid]) / 1024 for pid in guardians)),
        Figure("an attempt: guardian, enclosure and its `sleep`", "MiB", tuple(whole)),
    ]


# --- the version ---


def _versions() -> tuple[Figure, Figure, Figure]:
    commands = {
        "`descent --version`": [str(Path(sys.executable).with_name("descent")), "--version"],
        "Python that does nothing": [sys.executable, "-c", "pass"],
        "`ray --version`": [str(Path(sys.executable).with_name("ray")), "--version"],
    }
    took: dict[str, list[float]] = {name: [] for name in commands}
    for number in range(1 + rounds(ROUNDS)):
        for name, argv in commands.items():
            began = time.perf_counter()
            subprocess.run(argv, check=True, capture_output=True)
            if number:  # the first one has nothing in the disk's cache
                took[name].append(time.perf_counter() - began)
    ours, python, ray = (Figure(name, "s", tuple(samples)) for name, samples in took.items())
    return ours, python, ray


# --- what is installed ---


def installed_mib(name: str) -> float:
    """The files of a distribution and of all that it requires."""
    return sum(_bytes(each) for each in _required(name, {})) / 2**20


def _required(name: str, seen: dict[str, None]) -> dict[str, None]:
    key = name.lower().replace("_", "-")
    if key in seen:
        return seen
    try:
        requires = distribution(name).requires or []
    except PackageNotFoundError:
        return seen  # not for this platform
    seen[key] = None
    for line in requires:
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            _required(requirement.name, seen)
    return seen


def _bytes(name: str) -> int:
    if name == "descent":  # installed as it is edited
        root = Path(__file__).parents[2]
        files = [path for room in ("ci_bot", "launcher") for path in (root / room).rglob("*")]
        return sum(os.path.getsize(path) for path in files if path.is_file() and "__pycache__" not in path.parts)
    files = [Path(str(each.locate())) for each in distribution(name).files or ()]
    return sum(os.path.getsize(path) for path in files if path.is_file() and path.suffix != ".pyc")
