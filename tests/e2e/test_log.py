"""The log: nothing lost, nothing hurt."""

from launcher.state import State
from tests.e2e.stack import Repo, Stack


def test_a_million_lines_arrive_whole(repo: Repo, stack: Stack) -> None:
    line = "x" * 59
    sha = repo.run(f"python -c \"\nfor n in range(1000000): print(f'{{n:07d}}{line}')\"")
    assert repo.check(sha, timeout_s=120)["conclusion"] == "success"
    experiment = repo.experiment(sha)
    assert experiment is not None
    lines = repo.log(experiment).splitlines()
    assert len(lines) == 1_000_000
    assert [lines[0][:7], lines[-1][:7]] == ["0000000", "0999999"]


def test_progress_bars_show_their_last_state_only(repo: Repo) -> None:
    bar = "python -c \"\nfor n in range(101): print(f'\\r{n}%', end='')\nprint()\""
    check = repo.check(repo.run(bar))
    assert "100%" in check["output"]["text"]
    assert "37%" not in check["output"]["text"]


def test_log_text_neither_mentions_nor_injects_nor_leaks(repo: Repo) -> None:
    token = "ghs_" + "1234567_" + "eyJ" + "A" * 380
    sha = repo.run(f"printf '%s\\n' '@octocat #1 <!-- x --> ```' '{token}'; exit 1")
    text = repo.check(sha)["output"]["text"]
    assert "A" * 20 not in text
    assert "````" in text


def test_the_log_grows_while_the_command_runs(repo: Repo, stack: Stack) -> None:
    sha = repo.run("echo early; sleep 30")
    experiment = repo.wait(sha, lambda e: e.state is State.RUNNING)
    repo.wait(sha, lambda e: "early" in repo.log(experiment), 5)
    stack.control.click(repo.checks(sha, lambda r: bool(r and r[-1]["actions"]))[-1]["id"], "cancel")
    assert repo.check(sha)["conclusion"] == "cancelled"
