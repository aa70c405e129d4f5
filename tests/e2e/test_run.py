"""`descent run`: the experiments of a local commit, on a Ray head of its own that leaves nothing behind."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from launcher.state import State
from tests.e2e.stack import Repo, Stack, config
from tests.namespace import Network

pytestmark = [pytest.mark.timeout(240)]
ROOT = Path(__file__).parents[2]
ENDS_S = 180.0
"""A Ray head starts and ends in that time, however busy the machine is."""


@dataclass
class Bench:
    """A local repository, and a temporary directory that must be empty in the end."""

    repo: Repo
    temporary: Path
    network: Network | None

    def start(self, *arguments: str, **more: str) -> "subprocess.Popen[str]":
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("GITHUB_", "RAY_", "GIT_"))}
        environment = kept | {"TMPDIR": str(self.temporary), "PYTHONPATH": str(ROOT), "GRACE_S": "1"} | more
        with self.network.entered() if self.network else nullcontext():
            return subprocess.Popen(
                [sys.executable, "-m", "ci_bot.cli", "run", *arguments],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=environment,
                cwd=self.repo.clone,
            )

    def run(self, *arguments: str, **more: str) -> tuple[int, str, str]:
        process = self.start(*arguments, **more)
        out, err = ended(process)
        return process.returncode, out, err

    def left(self) -> list[str]:
        """Files, and processes that name the temporary directory."""
        pids = [name for name in os.listdir("/proc") if name.isdecimal() and name != str(os.getpid())]
        return [path.name for path in self.temporary.iterdir()] + [pid for pid in pids if self._names_us(pid)]

    def _names_us(self, pid: str) -> bool:
        try:
            return os.fsencode(self.temporary) in Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            return False


def ended(process: "subprocess.Popen[str]") -> tuple[str, str]:
    """What it has written once it has ended; one that does not is ended, and what it had written is told."""
    try:
        return process.communicate(timeout=ENDS_S)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
        try:
            said = process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            said = process.communicate()
        raise AssertionError(f"not ended within {ENDS_S:.0f} s: {said}") from None


@pytest.fixture
def bench(tmp_path: Path, network: Network | None) -> Iterator[Bench]:
    clone = tmp_path / "digits"
    clone.mkdir()
    repo = Repo(None, "", clone)  # type: ignore[arg-type]  # it is on no GitHub
    repo.git("init", "--quiet", "--initial-branch", "main")
    with tempfile.TemporaryDirectory(prefix="run-", dir="/tmp") as short:  # Ray's sockets want a short path
        yield Bench(repo, Path(short), network)


def records(out: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.splitlines()]


def test_it_shows_every_state_and_the_log_and_copies_the_artifacts(bench: Bench) -> None:
    first = bench.repo.commit(
        {".descent/config.yaml": config('cat said; echo 7 > "$ARTIFACTS_DIR/result.txt"'), "said": "the first\n"},
        "Say it",
    )
    bench.repo.commit({"said": "the second\n"})
    (bench.repo.clone / "artifacts-exp").mkdir()
    code, out, err = bench.run("--ref", first)
    assert code == 0, out + err
    assert out.startswith(f"exp at {first[:7]} of digits: Say it\n")
    shown = [word for word in out.split() if word in State.__members__]
    assert shown[:5] == ["CREATED", "PENDING", "PROVISIONING", "PROVISIONED", "NETWORK_SETUP"]
    assert shown[5:8] == ["RUNNING", "NETWORK_TEARDOWN", "STOPPED"]
    assert "│ the first\n" in out
    assert "the second" not in out
    assert (bench.repo.clone / "artifacts-exp-2" / "result.txt").read_text() == "7\n"
    assert bench.left() == []


def test_an_experiment_on_several_nodes_runs_on_this_host_alone(bench: Bench) -> None:
    command = 'python -c "import os; print(1 + int(os.environ[\'RANK\']))" | tee "$ARTIFACTS_DIR/result.txt"'
    workers = {"type": "multi-torch", "worker": {"count": 2, "command": command}}
    bench.repo.commit({".descent/config.yaml": config("", **workers)})
    code, out, err = bench.run()
    assert code == 0, out + err
    for rank in (0, 1):
        assert f"  worker {rank} │ {rank + 1}\n" in out
        assert (bench.repo.clone / "artifacts-exp" / f"worker-{rank}" / "result.txt").read_text() == f"{rank + 1}\n"
    assert bench.left() == []


def test_ctrl_c_cancels_what_runs_and_leaves_nothing(bench: Bench) -> None:
    steps = "trap '' TERM; echo ready; while true; do sleep 1; done"
    bench.repo.commit({"config.yaml": config(steps)})
    process = bench.start("--json")
    assert process.stdout is not None
    seen = []
    for line in process.stdout:
        seen.append(json.loads(line))
        if seen[-1]["state"] == "RUNNING":
            process.send_signal(signal.SIGINT)
            break
    rest, err = ended(process)
    seen += records(rest)
    assert process.returncode == 1, err
    assert [each["state"] for each in seen][-2:] == ["NETWORK_TEARDOWN", "CANCELLED"]
    assert {tuple(each) for each in seen} == {("experiment", "attempt", "state", "at", "reason")}
    assert "Ctrl-C" in seen[-2]["reason"]
    assert bench.left() == []


def test_a_plan_starts_nothing_and_masks_values(bench: Bench) -> None:
    text = config("python train.py --api-key hunter22", env={"API_TOKEN": "hunter22", "EPOCHS": "3"})
    bench.repo.commit({".descent/config.yaml": text.replace('"worker": {', '"worker": {"machineType": "P4000", ')})
    code, out, _ = bench.run("--plan")
    assert code == 0
    assert "worker × 1 on P4000: 1 CPU, 1 GPU" in out
    assert "PS_GRADIENT_CI_GIT_REF=refs/heads/main" in out
    assert "hunter22" not in out
    code, out, _ = bench.run("--plan", "--json")
    plan = records(out)[0]
    assert (code, plan["experiment"], plan["nodes"][0]["resources"]) == (0, "exp", {"CPU": 1.0, "GPU": 1.0})
    assert "hunter22" not in out
    assert bench.left() == []


def test_a_broken_configuration_fails_and_is_shown_as_check_shows_it(bench: Bench) -> None:
    bench.repo.commit({".descent/config.yaml": "version: 1\nworker:\n  count: 0\n"})
    code, out, _ = bench.run()
    assert code == 1
    assert ".descent/config.yaml:3:10: error:" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("/proc",), "is in no git repository"),
        (("--ref", "nowhere"), "has no commit 'nowhere'"),
        ((), "has no configuration file; expected one of .descent/config.yaml"),
    ],
)
def test_what_can_not_be_found_is_wrong_usage(bench: Bench, arguments: tuple[str, ...], said: str) -> None:
    bench.repo.commit({"README.md": "nothing to run"})
    code, out, err = bench.run(*arguments)
    assert (code, out) == (2, "")
    assert said in err
    assert "Traceback" not in err


def test_on_a_cluster_that_a_worker_serves_both_run_side_by_side(bench: Bench, repo: Repo, stack: Stack) -> None:
    running = repo.run("sleep 120")
    experiment = repo.wait(running, lambda e: e.state is State.RUNNING)
    attempts = stack.data_dir / "node" / "attempts"
    bench.repo.commit({"config.yaml": config(f"ls {attempts}; echo 7 > $ARTIFACTS_DIR/x")})
    head = stack.record()["ray"]
    shared = {"RAY_ADDRESS": head["address"], "RAY_AUTH_TOKEN_PATH": head["token_path"]}
    code, out, err = bench.run(ISOLATION="none", **shared)
    assert code == 0, out + err
    there = sorted(line.removeprefix("  │ ") for line in out.splitlines() if "│" in line)
    assert there[0] == f"exp-{experiment.id}-a1-n0"
    assert re.fullmatch("run-[0-9a-f]{8}-exp-1-a1-n0", there[1])
    assert (bench.repo.clone / "artifacts-exp" / "x").read_text() == "7\n"
    assert [path.name for path in attempts.iterdir()] == [there[0]]
    code, _, err = bench.run(ISOLATION="none", FENCE_S="77", **shared)
    assert (code, "made with FENCE_S=120 and without STORAGE_DIR; set the same here" in err) == (2, True), err
    still = repo.experiment(running)
    assert still is not None
    assert (still.state, still.progress.attempt) == (State.RUNNING, 1)
    runs = repo.checks(running, lambda runs: any(run["actions"] for run in runs))
    stack.control.click(runs[-1]["id"], "cancel")
    repo.check(running)
    assert bench.left() == []
