"""What starts an experiment, what does not, and what is said in its place."""

from pathlib import Path

from launcher.state import State
from tests.e2e.stack import Repo, Stack, config, wait_for

EVERY_BRANCH = {"filters": {"branches": {"only": ".*"}, "tags": {"only": "v.*"}}}


def test_a_pull_request_and_its_push_are_two_claims_on_one_experiment(repo: Repo, stack: Stack) -> None:
    repo.push({"README.md": "base"})
    sha = repo.run("sleep 60", branch="feature", **EVERY_BRANCH)
    experiment = repo.wait(sha, lambda e: e.state is State.RUNNING)
    pull = stack.control.open_pull_request(repo.full_name, "feature")
    wait_for(lambda: len(claims_of(stack, experiment.id)) == 2, 20)
    stack.control.close_pull_request(repo.full_name, pull["number"])
    wait_for(lambda: len(claims_of(stack, experiment.id)) == 1, 20)
    assert repo.wait(sha, lambda e: True).wish is None
    repo.git("push", "--quiet", "origin", ":refs/heads/feature")
    check = repo.check(sha)
    assert check["conclusion"] == "cancelled"
    assert "branch feature was deleted" in check["output"]["title"]


def claims_of(stack: Stack, experiment_id: int) -> list[object]:
    from ci_bot.store import claims

    return list(stack.look(lambda c: claims.of_experiment(c, experiment_id)))


def test_a_forks_commit_waits_for_approval_of_its_exact_sha(repo: Repo, stack: Stack, tmp_path: Path) -> None:
    repo.push({".descent/config.yaml": config("python -c \"print('base decides')\"; id -u; ls -A /storage | wc -l")})
    fork = stack.control.fork(repo.full_name, "stranger")
    clone = Repo(stack, f"stranger/{repo.full_name.split('/')[1]}", tmp_path / "fork")
    repo.git("clone", "--quiet", str(fork), str(clone.clone))
    sha = clone.push({".descent/config.yaml": config("echo the fork decides"), "x": "1"}, branch="evil")
    stack.control.open_pull_request(repo.full_name, "stranger:evil", user="stranger")
    waiting = repo.check(sha)
    assert waiting["conclusion"] == "action_required"
    assert [action["identifier"] for action in waiting["actions"]] == ["approve"]
    assert repo.experiment(sha) is None
    stack.control.click(waiting["id"], "approve", user="stranger")
    stack.control.click(waiting["id"], "approve")
    runs = repo.checks(sha, lambda runs: len(runs) == 2 and runs[-1]["status"] == "completed")
    assert runs[-1]["conclusion"] == "success", runs[-1]["output"]
    experiment = repo.experiment(sha)
    assert experiment is not None
    assert not experiment.trusted
    assert "base decides" in repo.log(experiment)
    assert "the fork decides" not in repo.log(experiment)


def test_skip_ci_gives_a_neutral_check_and_a_rerun_runs_it_all_the_same(repo: Repo, stack: Stack) -> None:
    sha = repo.push({".descent/config.yaml": config("true")}, message="Docs [skip ci]")
    skipped = repo.check(sha)
    assert skipped["conclusion"] == "neutral"
    assert repo.experiment(sha) is None
    stack.control.rerun(check_run_id=skipped["id"])
    repo.checks(sha, lambda runs: len(runs) == 2 and runs[-1]["conclusion"] == "success")


def test_a_pull_request_that_the_filters_leave_out_is_concluded_all_the_same(repo: Repo, stack: Stack) -> None:
    repo.push({"README.md": "base"})
    repo.push({"README.md": "dev"}, branch="dev")
    only_main = {"filters": {"branches": {"only": "main"}}}
    sha = repo.push({".descent/config.yaml": config("true", **only_main)}, branch="feature")
    stack.control.open_pull_request(repo.full_name, "feature", base="dev")
    assert repo.check(sha)["conclusion"] == "neutral"


def test_tags_run_only_with_a_tag_filter(repo: Repo, stack: Stack) -> None:
    sha = repo.commit({".descent/config.yaml": config("true", **EVERY_BRANCH)})
    repo.git("tag", "v1")
    repo.git("push", "--quiet", "origin", "v1")
    assert repo.check(sha)["conclusion"] == "success"
    experiment = repo.experiment(sha)
    assert experiment is not None
    assert experiment.ref == "refs/tags/v1"


def test_a_merge_group_is_tested_and_its_end_ends_the_claim(repo: Repo, stack: Stack) -> None:
    repo.push({"README.md": "base"})
    repo.push({".descent/config.yaml": config("sleep 60")}, branch="feature")
    pull = stack.control.open_pull_request(repo.full_name, "feature")
    group = stack.control.queue_pull_request(repo.full_name, pull["number"])
    repo.wait(group["head_sha"], lambda e: e.state is State.RUNNING)
    stack.control.destroy_merge_group(group["head_ref"])
    assert repo.check(group["head_sha"])["conclusion"] == "cancelled"
    stack.control.close_pull_request(repo.full_name, pull["number"])


def test_a_merge_group_whose_end_is_told_before_its_beginning_starts_nothing(repo: Repo, stack: Stack) -> None:
    repo.push({"README.md": "base"})
    sha = repo.push({".descent/config.yaml": config("true")}, branch="feature")
    pull = stack.control.open_pull_request(repo.full_name, "feature")
    assert repo.check(sha)["conclusion"] == "success"  # nothing else is told of this repository from here on
    stack.control.fault("hold", target="webhook", event="merge_group.checks_requested")
    group = stack.control.queue_pull_request(repo.full_name, pull["number"])
    stack.control.destroy_merge_group(group["head_ref"])
    said = f"overtaken: the merge group {group['head_ref']} is gone"
    wait_for(lambda: said in outcomes(stack), 40, lambda: str(outcomes(stack)))
    assert repo.experiment(group["head_sha"]) is None
    stack.control.close_pull_request(repo.full_name, pull["number"])


def outcomes(stack: Stack) -> list[str]:
    from ci_bot.store.tables import delivery

    return list(stack.look(lambda c: list(c.scalars(delivery.select().with_only_columns(delivery.c.outcome)))))


def test_a_rerun_of_what_still_runs_is_refused_on_its_own_check_run(repo: Repo, stack: Stack) -> None:
    sha = repo.run("sleep 60")
    experiment = repo.wait(sha, lambda e: e.state is State.RUNNING)
    (run,) = repo.checks(sha, lambda runs: any(run["status"] == "in_progress" for run in runs))
    stack.control.rerun(check_run_id=run["id"])
    (refused,) = repo.checks(sha, lambda runs: "A re-run was refused to" in runs[-1]["output"]["summary"])
    assert refused["id"] == run["id"]
    stack.control.click(run["id"], "cancel")
    assert repo.check(sha)["conclusion"] == "cancelled"
    assert repo.wait(sha, lambda e: True).id == experiment.id


def test_what_can_never_fit_fails_and_says_what_would(repo: Repo, stack: Stack) -> None:
    check = repo.check(repo.run("true", worker={"machine-type": "V100x16"}))
    assert check["conclusion"] == "failure"
    assert "V100x16" in check["output"]["summary"]
    assert "A100x2" in check["output"]["summary"]


def test_a_person_without_write_permission_cancels_nothing(repo: Repo, stack: Stack) -> None:
    sha = repo.run("sleep 3")
    runs = repo.checks(sha, lambda runs: any(run["actions"] for run in runs))
    stack.control.create_user("reader")
    stack.control.set_role(repo.full_name, "reader", "read")
    stack.control.click(runs[-1]["id"], "cancel", user="reader")
    assert repo.check(sha)["conclusion"] == "success"
