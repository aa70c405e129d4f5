"""Pull requests, forks, the merge queue and the talk about them."""

import pytest

from tests.integration.local_github.conftest import Place


@pytest.fixture
def branched(place: Place) -> Place:
    place.push({"a": "1\n"})
    place.head = place.push({"b": "1\n"}, ref="topic")
    place.git("checkout", "--quiet", "-B", "topic")
    return place


def test_a_pull_request_follows_its_branch_until_it_is_closed(branched: Place) -> None:
    opened = branched.control.open_pull_request(branched.full_name, "topic", title="Try", body="why")
    told = branched.receiver.wait("pull_request.opened")[0].payload
    assert (told["number"], told["pull_request"]["head"]["sha"]) == (opened["number"], branched.head)
    assert told["pull_request"]["head"]["repo"]["full_name"] == branched.full_name
    newer = branched.push({"b": "2\n"}, ref="topic")
    moved = branched.receiver.wait("pull_request.synchronize")[0].payload
    assert (moved["before"], moved["after"]) == (branched.head, newer)
    path = f"/pulls/{opened['number']}"
    body = branched.repo("GET", path).json()
    assert (body["head"]["sha"], body["mergeable"], body["changed_files"]) == (newer, True, 1)
    assert [each["filename"] for each in branched.repo("GET", f"{path}/files").json()] == ["b"]
    run = branched.check_run(newer)
    assert [each["number"] for each in run["pull_requests"]] == [opened["number"]]
    branched.control.close_pull_request(branched.full_name, opened["number"])
    assert branched.receiver.wait("pull_request.closed")[0].payload["pull_request"]["merged"] is False
    branched.control.reopen_pull_request(branched.full_name, opened["number"])
    branched.receiver.wait("pull_request.reopened")
    branched.git("push", "--quiet", "origin", ":topic")
    branched.receiver.wait("pull_request.closed", 2)


def test_listings_filter_by_state_head_and_base(branched: Place) -> None:
    number = branched.control.open_pull_request(branched.full_name, "topic")["number"]

    def numbers(query: str) -> list[int]:
        return [each["number"] for each in branched.repo("GET", f"/pulls?{query}").json()]

    assert numbers("") == numbers(f"head={branched.owner}:topic") == numbers("base=main&state=all") == [number]
    assert numbers("state=closed") == numbers(f"head={branched.owner}:main") == numbers("base=topic") == []
    assert [each["number"] for each in branched.repo("GET", f"/commits/{branched.head}/pulls").json()] == [number]
    assert branched.repo("GET", "/commits/main/pulls").json() == []
    assert branched.repo("GET", "/pulls/99").status_code == 404


def test_a_merged_pull_request_pushes_to_its_base(branched: Place) -> None:
    number = branched.control.open_pull_request(branched.full_name, "topic")["number"]
    sha = branched.control.merge_pull_request(branched.full_name, number, user=branched.owner)
    closed = branched.receiver.wait("pull_request.closed")[0].payload["pull_request"]
    assert (closed["merged"], closed["merge_commit_sha"]) == (True, sha)
    pushed = branched.receiver.wait("push", 3)[-1].payload
    assert (pushed["ref"], pushed["after"]) == ("refs/heads/main", sha)
    assert branched.git("ls-remote", "origin", "main").split()[0] == sha


def test_a_conflict_cannot_be_merged(branched: Place) -> None:
    branched.push({"a": "ours\n"}, ref="topic")
    branched.git("checkout", "--quiet", "--detach", "origin/main")
    branched.git("reset", "--quiet", "--hard", "HEAD")
    branched.push({"a": "theirs\n"})
    number = branched.control.open_pull_request(branched.full_name, "topic")["number"]
    body = branched.repo("GET", f"/pulls/{number}").json()
    assert (body["mergeable"], body["mergeable_state"]) == (False, "dirty")
    with pytest.raises(Exception, match="not mergeable"):
        branched.control.merge_pull_request(branched.full_name, number)


def test_a_forks_pull_request_brings_its_commits_and_no_push_events(place: Place) -> None:
    place.push({"a": "1\n"})
    fork = place.control.fork(place.full_name, f"fan-{place.owner}")
    place.commit({"a": "2\n"})
    place.git("push", "--quiet", str(fork), "HEAD:patch")
    opened = place.control.open_pull_request(place.full_name, f"fan-{place.owner}:patch", user=f"fan-{place.owner}")
    told = place.receiver.wait("pull_request.opened")[0].payload["pull_request"]
    assert told["head"]["repo"]["fork"] is True
    assert told["head"]["repo"]["id"] != told["base"]["repo"]["id"]
    assert (told["head"]["label"], told["user"]["login"]) == (f"fan-{place.owner}:patch", f"fan-{place.owner}")
    sha = told["head"]["sha"]
    assert place.check_run(sha)["pull_requests"] == []
    assert place.repo("GET", f"/contents/a?ref={sha}").status_code == 200
    place.commit({"a": "3\n"})
    place.git("push", "--quiet", str(fork), "HEAD:patch")
    moved = place.receiver.wait("pull_request.synchronize")[0].payload
    assert place.repo("GET", f"/commits/{moved['after']}").status_code == 200
    assert [each["number"] for each in place.repo("GET", f"/commits/{moved['after']}/pulls").json()] == [
        opened["number"]
    ]
    assert len(place.receiver.hooks("push")) == 1


def test_the_merge_queue_asks_for_checks_and_ends_its_groups(branched: Place) -> None:
    number = branched.control.open_pull_request(branched.full_name, "topic")["number"]
    group = branched.control.queue_pull_request(branched.full_name, number)
    asked = branched.receiver.wait("merge_group.checks_requested")[0].payload["merge_group"]
    assert (asked["head_sha"], asked["base_ref"]) == (group["head_sha"], "refs/heads/main")
    assert asked["head_ref"].startswith(f"refs/heads/gh-readonly-queue/main/pr-{number}-")
    assert branched.receiver.wait("push", 3)[-1].payload["ref"] == asked["head_ref"]
    assert branched.check_run(asked["head_sha"])["status"] == "queued"
    branched.control.destroy_merge_group(group["head_ref"], reason="merged")
    assert branched.receiver.wait("merge_group.destroyed")[0].payload["reason"] == "merged"
    branched.receiver.wait("pull_request.closed")
    assert branched.git("ls-remote", "origin", "refs/heads/gh-readonly-queue/*") == ""


def test_a_merge_group_whose_branch_is_gone_ends_like_any_other(branched: Place) -> None:
    number = branched.control.open_pull_request(branched.full_name, "topic")["number"]
    group = branched.control.queue_pull_request(branched.full_name, number)
    branched.git("push", "--quiet", "origin", f":{group['head_ref']}")
    branched.receiver.forget()
    branched.control.destroy_merge_group(group["head_ref"], reason="dequeued")
    branched.receiver.wait("merge_group.destroyed")
    assert branched.receiver.hooks("push") == []


def test_comments_are_written_changed_and_taken_back(branched: Place) -> None:
    number = branched.control.open_pull_request(branched.full_name, "topic")["number"]
    path = f"/issues/{number}/comments"
    made = branched.repo("POST", path, json={"body": "hello"}).json()
    assert made["user"]["login"] == f"{branched.app['slug']}[bot]"
    assert (made["user"]["type"], made["performed_via_github_app"]["id"]) == ("Bot", branched.app["id"])
    branched.receiver.wait("issue_comment.created")
    theirs = branched.control.comment(branched.full_name, number, "me too", user="someone")
    assert [each["body"] for each in branched.repo("GET", path).json()] == ["hello", "me too"]
    one = f"/issues/comments/{made['id']}"
    assert branched.repo("PATCH", one, json={"body": "changed"}).json()["body"] == "changed"
    assert branched.receiver.wait("issue_comment.edited")[0].payload["changes"]["body"]["from"] == "hello"
    assert branched.repo("PATCH", f"/issues/comments/{theirs['id']}", json={"body": "x"}).status_code == 403
    for status in (201, 200):
        assert branched.repo("POST", f"{one}/reactions", json={"content": "eyes"}).status_code == status
    assert branched.repo("GET", one).json()["reactions"]["eyes"] == 1
    assert branched.repo("DELETE", one).status_code == 204
    assert branched.repo("GET", one).status_code == 404
    assert branched.repo("POST", path, json={"body": "x" * 65537}).status_code == 422
    assert branched.repo("POST", path, json={"body": " "}).status_code == 422
    assert branched.repo("POST", "/issues/99/comments", json={"body": "x"}).status_code == 404


def test_a_deleted_repository_is_gone_for_everyone(branched: Place) -> None:
    branched.control.delete_repository(branched.full_name)
    branched.receiver.wait("installation_repositories.removed")
    assert branched.repo("GET", "").status_code == 404
    assert not branched.path.exists()
