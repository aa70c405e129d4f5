"""A push becomes a finished check run, whatever the commit holds."""

import re

from launcher.state import State
from tests.e2e.stack import Repo, Stack, config


def test_a_push_runs_its_experiment_and_completes_its_check_run(repo: Repo, stack: Stack) -> None:
    sha = repo.push(
        {
            ".descent/config.yaml": config('python train.py && cp result.txt "$ARTIFACTS_DIR/"'),
            "train.py": "import os; print('sha', os.environ['PS_GRADIENT_CI_GIT_SHA'])\n"
            "open('result.txt', 'w').write('7')",
        }
    )
    check = repo.check(sha)
    assert check["conclusion"] == "success", check
    experiment = repo.experiment(sha)
    assert experiment is not None
    states = [transition.state for transition in stack.timeline(experiment.id)]
    assert states == [
        State.CREATED,
        State.PENDING,
        State.PROVISIONING,
        State.PROVISIONED,
        State.NETWORK_SETUP,
        State.RUNNING,
        State.NETWORK_TEARDOWN,
        State.STOPPED,
    ]
    assert f"sha {sha}" in repo.log(experiment)
    kept = stack.data_dir / "artifacts" / str(experiment.id) / "1" / "result.txt"
    assert kept.read_text() == "7"
    assert "result.txt" in check["output"]["summary"] + check["output"]["text"]


def test_a_failing_command_fails_the_check_with_its_last_lines(repo: Repo) -> None:
    check = repo.check(repo.run("echo the last words; exit 3"))
    assert check["conclusion"] == "failure"
    assert "exit code 3" in check["output"]["title"]
    assert "the last words" in check["output"]["text"]


def test_a_broken_configuration_is_annotated_on_its_lines_and_runs_nothing(repo: Repo) -> None:
    sha = repo.push({".descent/config.yaml": "version: 1\nworker:\n  count: 0\n"})
    check = repo.check(sha, "descent/config")
    assert check["conclusion"] == "failure"
    assert repo.experiment(sha) is None


def test_a_commit_without_a_configuration_file_gets_nothing(repo: Repo, stack: Stack) -> None:
    quiet = repo.push({"README.md": "nothing here"})
    repo.check(repo.run("true"))
    assert stack.control.check_runs(repo.full_name, quiet) == []


def test_a_newer_push_to_a_branch_cancels_the_older_experiment(repo: Repo) -> None:
    branches = {"filters": {"branches": {"only": ".*"}}}
    older = repo.run("sleep 60", branch="feature", **branches)
    repo.wait(older, lambda e: e.state is State.RUNNING)
    newer = repo.run("true", branch="feature", **branches)
    check = repo.check(older)
    assert check["conclusion"] == "cancelled"
    assert f"superseded by {newer[:7]}" in check["output"]["title"]
    assert repo.check(newer)["conclusion"] == "success"


def test_the_cancel_button_ends_a_command_that_ignores_sigterm(repo: Repo, stack: Stack) -> None:
    sha = repo.run("trap '' TERM; echo ready; while true; do sleep 1; done")
    repo.wait(sha, lambda e: e.state is State.RUNNING)
    runs = repo.checks(sha, lambda runs: any(run["actions"] for run in runs))
    stack.control.click(runs[-1]["id"], "cancel")
    check = repo.check(sha)
    assert check["conclusion"] == "cancelled"
    assert re.search("^Cancelled by", check["output"]["title"])


def test_a_time_limit_ends_the_experiment_as_timed_out(repo: Repo) -> None:
    check = repo.check(repo.run("sleep 60", timeout=2))
    assert check["conclusion"] == "timed_out"


def test_a_rerun_is_a_new_check_run_of_the_same_name(repo: Repo, stack: Stack) -> None:
    sha = repo.run("exit 1")
    first = repo.check(sha)
    stack.control.rerun(check_run_id=first["id"])
    runs = repo.checks(sha, lambda runs: len(runs) == 2 and runs[-1]["status"] == "completed")
    assert [run["conclusion"] for run in runs] == ["failure", "failure"]
    assert runs[0]["id"] != runs[1]["id"]
