"""GitHub's limits and faults: nothing is written twice, nothing is lost, the end always arrives."""

from typing import Any

import pytest

from tests.e2e.stack import Repo, Stack, config, wait_for


def calls(stack: Stack, since: int) -> list[tuple[str, str]]:
    """Method and operation of the calls about repositories and check runs since an entry of the log."""
    return [(entry["method"], entry["operation"]) for entry in stack.control.requests(since)]


def last_request(stack: Stack) -> int:
    return max([entry["id"] for entry in stack.control.requests()], default=0)


def test_a_push_costs_two_reads_besides_the_code_and_at_most_four_writes(repo: Repo, stack: Stack) -> None:
    repo.check(repo.run("true"))
    before = last_request(stack)
    sha = repo.run("sleep 1; echo 2")
    assert repo.check(sha)["conclusion"] == "success"
    made = [operation for _, operation in calls(stack, before) if not operation.startswith("apps/")]
    writes = [operation for operation in made if operation in {"checks/create", "checks/update"}]
    code = [operation for operation in made if "tarball" in operation or operation == "codeload"]
    assert len(writes) <= 4, made
    assert len(made) - len(writes) - len(code) <= 2, made


def test_what_is_on_github_already_is_never_written_again(repo: Repo, stack: Stack) -> None:
    sha = repo.run("true")
    ended = repo.check(sha)
    before = last_request(stack)
    repo.check(repo.run("true", name="later"), "descent/later")
    touched = [entry["path"] for entry in stack.control.requests(before) if entry["method"] == "PATCH"]
    assert touched
    assert not [path for path in touched if path.endswith(f"/{ended['id']}")]


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "secondary_limit", "status": 403, "retry_after_s": 2},
        {"kind": "secondary_limit", "status": 429, "retry_after_s": 2},
        {"kind": "primary_limit", "status": 403, "seconds": 2},
        {"kind": "status", "status": 502},
        {"kind": "drop"},
        {"kind": "drop_after"},
        {"kind": "unauthorized"},
    ],
    ids=lambda fault: "-".join(str(value) for value in fault.values()),
)
def test_the_end_arrives_whatever_github_answers_first(repo: Repo, stack: Stack, fault: dict[str, Any]) -> None:
    stack.control.fault(**fault, operation="checks/*", count=2)
    sha = repo.run("echo done")
    check = repo.check(sha, timeout_s=90)
    assert check["conclusion"] == "success"
    assert len(stack.control.check_runs(repo.full_name, sha)) == 1


def test_a_doubled_webhook_becomes_one_experiment(repo: Repo, stack: Stack) -> None:
    stack.control.fault("double", target="webhook", event="push")
    sha = repo.run("true")
    assert repo.check(sha)["conclusion"] == "success"
    assert len(stack.control.check_runs(repo.full_name, sha)) == 1


def test_a_lost_webhook_is_taken_from_githubs_own_list(repo: Repo, stack: Stack) -> None:
    stack.control.fault("lose", target="webhook", event="push")
    sha = repo.run("true")
    assert repo.check(sha, timeout_s=60)["conclusion"] == "success"


def test_expired_tokens_are_replaced_once_they_are_refused(repo: Repo, stack: Stack) -> None:
    repo.check(repo.run("true"))
    assert stack.control.expire_tokens() > 0
    assert repo.check(repo.run("true", name="again"), "descent/again")["conclusion"] == "success"


def test_everything_is_reported_once_github_is_back(repo: Repo, stack: Stack) -> None:
    sha = repo.run("sleep 2")
    wait_for(lambda: repo.experiment(sha) is not None, 20)
    repo.wait(sha, lambda e: e.queued_at is not None)
    stack.control.down()
    repo.wait(sha, lambda e: e.ended_at is not None)
    stack.control.down(None)
    assert repo.check(sha, timeout_s=90)["conclusion"] == "success"


def test_more_than_fifty_problems_all_become_annotations(repo: Repo, stack: Stack) -> None:
    steps = "".join(f"  wf{n}:\n    steps:\n      - name: s{n}\n        command: nonsense\n" for n in range(60))
    sha = repo.push({".descent/config.yaml": f"version: 2\nworkflows:\n{steps}"})
    check = repo.check(sha, "descent/config")
    assert check["conclusion"] == "failure"
    wait_for(
        lambda: stack.control.check_runs(repo.full_name, sha)[0]["output"]["annotations_count"] >= 60,
        20,
        lambda: str(stack.control.check_runs(repo.full_name, sha)[0]["output"]["annotations_count"]),
    )


def test_a_removed_repository_cancels_what_runs(stack: Stack) -> None:
    repo = stack.repository("to-be-removed")
    sha = repo.push({".descent/config.yaml": config("sleep 60")})
    repo.wait(sha, lambda e: e.running_at is not None)
    stack.control.delete_repository(repo.full_name)
    ended = repo.wait(sha, lambda e: e.ended_at is not None, 90)
    assert ended.wish is not None
