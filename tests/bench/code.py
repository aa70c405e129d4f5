"""A large commit onto three nodes: how often it is downloaded, and when the last node has it."""

import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from launcher.state import State
from tests.bench.figures import Figure, Reach, Row
from tests.bench.ground import Ground, ended, file, files, ground, rounds
from tests.e2e.stack import Repo

ROUNDS = 3
NODES = 3
MEBIBYTES = 100
GANG: dict[str, Any] = {"type": "multi-torch", "worker": {"count": NODES}}
DOWNLOAD = "codeload"
"""What the local GitHub calls an archive that is sent; the request before it only says where that lies."""


def ours(on: Ground, repo: Repo, number: int) -> tuple[float, int]:
    """Seconds from CREATED until the tree is whole on the last node, and the downloads."""
    before = max((int(each["id"]) for each in on.stack.control.requests()), default=0)
    sha = repo.push({**file("true", **GANG), "number": str(number)})
    done = ended(repo, sha, timeout_s=300)
    whole = [path for path in on.root.rglob(f"*{sha}.json") if "code" in path.parts]
    assert len(whole) == NODES, whole
    sent = [each for each in on.stack.control.requests(before) if each["operation"] == DOWNLOAD]
    return max(path.stat().st_mtime for path in whole) - done.at(State.CREATED), len(sent)


def by_themselves(on: Ground, repo: Repo) -> float:
    """Seconds until as many have each downloaded the same commit's archive and unpacked it."""
    url = f"{on.stack.control.api_url}/repos/{repo.full_name}/tarball/{repo.git('rev-parse', 'HEAD')}"
    failures: list[BaseException] = []

    def download(directory: Path) -> None:
        try:
            directory.mkdir()
            archive = directory / "code.tar.gz"
            urllib.request.urlretrieve(url, archive)
            subprocess.run(["tar", "-xzf", str(archive), "-C", str(directory)], check=True)
        except BaseException as error:
            failures.append(error)

    directories = [on.root / f"alone-{number}" for number in range(NODES)]
    threads = [threading.Thread(target=download, args=(each,)) for each in directories]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - began
    subprocess.run(["rm", "-rf", *map(str, directories)], check=True)
    if failures:
        raise failures[0]
    return seconds


def measure() -> Iterator[Row]:
    """The row."""
    with ground(more_nodes=NODES - 1) as on:
        repo = on.stack.repository("large", private=False)
        repo.push(file("true", **GANG))
        ended(repo, repo.git("rev-parse", "HEAD"))
        repo.commit(files(MEBIBYTES, seed=1))
        taken, alone = [], []
        for number in range(rounds(ROUNDS)):
            taken.append(ours(on, repo, number))
            alone.append(by_themselves(on, repo))
    downloads = Figure("downloads from GitHub", "", tuple(float(count) for _, count in taken))
    seconds = Figure(f"CREATED → whole on the last of {NODES} nodes", "s", tuple(each for each, _ in taken))
    beside = Figure("each node downloading by itself", "s", tuple(alone))
    yield Row(
        "code to nodes",
        (downloads, seconds),
        (beside, Figure("its downloads", "", (float(NODES),))),
        (Reach("1 download", max(downloads.samples), 1.0),),
        (
            f"{MEBIBYTES} MB of text in files of 20 KiB, each time another commit; {NODES} Ray nodes, the local GitHub "
            "and the worker share one machine: nothing here is slowed by a network, which is what one download saves.",
            "Ours includes the worker's look through the archive, the reservation and our own strict extraction; "
            "beside it `tar` unpacks what three threads have downloaded.",
        ),
    )
