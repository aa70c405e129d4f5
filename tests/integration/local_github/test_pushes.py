"""What a real `git push` makes the local GitHub send."""

import hashlib
import hmac
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from ci_bot.local_github import git
from tests.integration.local_github.conftest import Place

ZEROS = "0" * 40


def test_a_push_is_a_signed_webhook_with_githubs_headers(place: Place) -> None:
    sha = place.push({"config.yaml": "version: 1\n", "src/train.py": "pass\n"}, message="train\n\nmore")
    (hook,) = place.receiver.wait("push")
    for name, digest in (("X-Hub-Signature-256", hashlib.sha256), ("X-Hub-Signature", hashlib.sha1)):
        kind, _, mark = hook.headers[name].partition("=")
        assert (kind, mark) == (digest().name, hmac.new(b"hush", hook.body, digest).hexdigest())
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", hook.headers["X-GitHub-Delivery"])
    assert hook.headers["User-Agent"].startswith("GitHub-Hookshot/")
    assert hook.headers["Content-Type"] == "application/json"
    assert hook.headers["X-GitHub-Hook-Installation-Target-ID"] == str(place.app["id"])
    assert hook.headers["X-GitHub-Hook-Installation-Target-Type"] == "integration"
    assert int(hook.headers["X-GitHub-Hook-ID"]) > 0
    told = hook.payload
    assert (told["ref"], told["before"], told["after"]) == ("refs/heads/main", ZEROS, sha)
    assert (told["created"], told["deleted"], told["forced"]) == (True, False, False)
    assert told["installation"]["id"] == place.installation["id"]
    assert told["repository"]["full_name"] == place.full_name
    assert told["sender"]["login"] == place.owner
    head = told["head_commit"]
    assert (head["id"], head["message"]) == (sha, "train\n\nmore")
    assert head["added"] == ["config.yaml", "src/train.py"]
    assert [commit["id"] for commit in told["commits"]] == [sha]


def test_a_push_lists_its_new_commits_oldest_first_and_tells_when_it_was_forced(place: Place) -> None:
    first = place.push({"a": "1"})
    second = place.commit({"a": "2"})
    third = place.push({"a": None, "b": "3"})
    told = place.receiver.wait("push", 2)[1].payload
    assert (told["before"], [each["id"] for each in told["commits"]]) == (first, [second, third])
    assert (told["head_commit"]["added"], told["head_commit"]["removed"]) == (["b"], ["a"])
    place.git("reset", "--quiet", "--hard", first)
    place.git("push", "--quiet", "--force", "origin", "HEAD:main")
    assert place.receiver.wait("push", 3)[2].payload["forced"] is True


def test_a_new_branch_at_a_known_commit_brings_no_commits_and_names_its_base(place: Place) -> None:
    sha = place.push({"a": "1"})
    place.git("push", "--quiet", "origin", f"{sha}:refs/heads/topic/x")
    told = place.receiver.wait("push", 2)[1].payload
    assert (told["commits"], told["base_ref"], told["ref"]) == ([], "refs/heads/main", "refs/heads/topic/x")
    assert told["head_commit"]["id"] == sha


def test_deletions_and_tags_are_pushes_too(place: Place) -> None:
    sha = place.push({"a": "1"})
    place.git("tag", "--annotate", "v1", "--message", "one")
    place.git("push", "--quiet", "origin", "v1")
    tag = place.receiver.wait("push", 2)[1].payload
    assert (tag["ref"], tag["head_commit"]["id"], tag["commits"]) == ("refs/tags/v1", sha, [])
    place.git("push", "--quiet", "origin", ":v1")
    gone = place.receiver.wait("push", 3)[2].payload
    assert (gone["after"], gone["deleted"], gone["head_commit"]) == (ZEROS, True, None)


def test_more_than_three_tags_at_once_send_nothing(place: Place) -> None:
    place.push({"a": "1"})
    for number in range(4):
        place.git("tag", f"v{number}")
    place.git("push", "--quiet", "origin", "--tags")
    place.push({"a": "2"})
    hooks = place.receiver.wait("push", 2)
    assert [hook.payload["ref"] for hook in hooks] == ["refs/heads/main"] * 2


def test_new_branches_that_come_together_bring_what_is_theirs_alone(place: Place) -> None:
    place.push({"a": "1"})
    shared = place.commit({"a": "2"})
    one = place.commit({"a": "3"})
    place.git("branch", "one")
    place.git("reset", "--quiet", "--hard", shared)
    other = [place.commit({"a": "4"}), place.commit({"a": "5"})]
    place.git("branch", "other")
    place.receiver.forget()
    place.git("push", "--quiet", "origin", "one", "other")
    told = {hook.payload["ref"]: hook.payload for hook in place.receiver.wait("push", 2)}
    assert {ref: [each["id"] for each in of["commits"]] for ref, of in told.items()} == {
        "refs/heads/one": [one],
        "refs/heads/other": other,
    }
    assert [told[f"refs/heads/{name}"]["head_commit"]["id"] for name in ("one", "other")] == [one, other[-1]]


def test_new_branches_on_top_of_one_another_bring_nothing_that_another_one_has(place: Place) -> None:
    place.push({"a": "1"})
    low = place.commit({"a": "2"})
    place.git("branch", "low")
    high = place.commit({"a": "3"})
    place.git("branch", "high")
    place.git("branch", "twin")
    place.receiver.forget()
    place.git("push", "--quiet", "origin", "low", "high", "twin")
    told = {hook.payload["ref"]: hook.payload for hook in place.receiver.wait("push", 3)}
    heads = {ref.rpartition("/")[2]: (of["commits"], of["head_commit"]["id"]) for ref, of in told.items()}
    assert heads == {"low": ([], low), "high": ([], high), "twin": ([], high)}


class Slow:
    """A question to git whose first answer waits until it may go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        self.asked, self._go_on = threading.Event(), threading.Event()
        real = getattr(git, name)

        def slow(*given: Any) -> Any:
            if not self.asked.is_set():
                self.asked.set()
                assert self._go_on.wait(30)
            return real(*given)

        monkeypatch.setattr(git, name, slow)

    def __enter__(self) -> "Slow":
        return self

    def __exit__(self, *_: object) -> None:
        self._go_on.set()


@pytest.mark.parametrize("question", ["peeled", "commits_of", "touched"])
def test_while_git_is_asked_what_a_push_brought_the_api_answers(
    place: Place, monkeypatch: pytest.MonkeyPatch, question: str
) -> None:
    first = place.push({"a": "1"})
    place.commit({"a": "2"})
    with ThreadPoolExecutor(1) as pool, Slow(monkeypatch, question) as slow:
        pushed = pool.submit(place.git, "push", "--quiet", "origin", "main:one", "main:other")
        assert slow.asked.wait(30)
        place.check_run(first)
        assert not pushed.done()
    pushed.result()


class Queue:
    """A lock that says when somebody waits for it."""

    def __init__(self) -> None:
        self.waited_for, self._lock = threading.Event(), threading.Lock()

    def __enter__(self) -> None:
        if not self._lock.acquire(blocking=False):
            self.waited_for.set()
            self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def test_a_push_that_takes_long_is_told_before_the_next_one(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.push({"a": "1"})
    first = place.push({"a": "2"}, ref="topic")
    number = place.control.open_pull_request(place.full_name, "topic")["number"]
    second, third = place.commit({"a": "3"}), place.commit({"a": "4"})
    queue = Queue()
    monkeypatch.setattr(place.server.hub, "pushing", queue)
    place.receiver.forget()
    with ThreadPoolExecutor(2) as pool:
        with Slow(monkeypatch, "touched") as slow:
            earlier = pool.submit(place.git, "push", "--quiet", "origin", f"{second}:refs/heads/topic")
            assert slow.asked.wait(30)
            later = pool.submit(place.git, "push", "--quiet", "origin", f"{third}:refs/heads/topic")
            later.add_done_callback(lambda _: queue.waited_for.set())
            assert queue.waited_for.wait(30)
        earlier.result()
        later.result()
    told = [hook.payload for hook in place.receiver.wait("pull_request.synchronize", 2)]
    assert {(each["before"], each["after"]) for each in told} == {(first, second), (second, third)}
    assert place.repo("GET", f"/pulls/{number}").json()["head"]["sha"] == third


@pytest.mark.parametrize("question", ["commits_of", "touched"])
def test_a_repository_that_is_deleted_during_a_push_stays_deleted(
    place: Place, monkeypatch: pytest.MonkeyPatch, question: str
) -> None:
    place.push({"a": "1"})
    place.receiver.forget()
    place.commit({"a": "2"})
    with ThreadPoolExecutor(1) as pool:
        with Slow(monkeypatch, question) as slow:
            pushed = pool.submit(place.git, "push", "--quiet", "origin", "main:one")
            assert slow.asked.wait(30)
            place.control.delete_repository(place.full_name)
        pushed.result()
    assert place.full_name not in {each.full_name for each in place.server.hub.world.repositories.values()}
    place.control.ping(place.app["id"])  # whatever else was sent was sent before
    place.receiver.wait("ping")
    assert place.receiver.hooks("push") == []


def test_the_push_option_or_the_commits_address_says_who_pushed(place: Place) -> None:
    alice = place.control.create_user(f"alice-{place.owner}")
    place.commit({"a": "1"})
    place.git("push", "--quiet", "--push-option", f"user={alice['login']}", "origin", "HEAD:main")
    address = f"{alice['id']}+{alice['login']}@users.noreply.localhost"
    place.git("commit", "--quiet", "--allow-empty", "-m", "x", GIT_COMMITTER_EMAIL=address)
    place.git("push", "--quiet", "origin", "HEAD:main")
    senders = [hook.payload["sender"]["login"] for hook in place.receiver.wait("push", 2)]
    assert senders == [alice["login"]] * 2


def test_an_app_that_may_write_checks_is_asked_for_a_check_suite(place: Place) -> None:
    sha = place.push({"a": "1"})
    (hook,) = place.receiver.wait("check_suite.requested")
    suite = hook.payload["check_suite"]
    assert (suite["head_sha"], suite["head_branch"], suite["status"]) == (sha, "main", "queued")
    assert suite["app"]["id"] == place.app["id"]
    assert place.repo("GET", f"/check-suites/{suite['id']}").json()["latest_check_runs_count"] == 0


def test_only_subscribed_and_covered_installations_are_told(place: Place) -> None:
    other = place.control.create_repository(f"{place.owner}/other")
    place.control.choose_repositories(place.installation["id"], [f"{place.owner}/other"])
    removed = place.receiver.wait("installation_repositories.removed")[0].payload
    assert [each["full_name"] for each in removed["repositories_removed"]] == [place.full_name]
    place.push({"a": "1"})
    place.git("push", "--quiet", str(other), "HEAD:main")
    (hook,) = place.receiver.wait("push")
    assert hook.payload["repository"]["full_name"] == f"{place.owner}/other"


@pytest.mark.parametrize(
    ("event", "keys"),
    [
        ("push", {"ref", "before", "after", "repository", "pusher", "sender", "installation", "created", "deleted",
                  "forced", "base_ref", "compare", "commits", "head_commit"}),
        ("check_suite.requested", {"action", "check_suite", "repository", "sender", "installation"}),
    ],
)  # fmt: skip
def test_payloads_have_the_keys_of_githubs_own(place: Place, event: str, keys: set[str]) -> None:
    place.push({"a": "1"})
    assert set(place.receiver.wait(event)[0].payload) == keys


def test_ping_and_installation_greet_an_app(place: Place) -> None:
    ping = place.receiver.wait("ping")[0].payload
    assert ping["hook"]["type"] == "App"
    assert ping["hook"]["app_id"] == place.app["id"]
    made = place.receiver.wait("installation.created")[0].payload
    assert made["installation"]["account"]["login"] == place.owner
    assert [each["full_name"] for each in made["repositories"]] == [place.full_name]
    place.control.ping(place.app["id"])
    place.receiver.wait("ping", 2)


def test_suspension_and_removal_are_told_and_end_everything_else(place: Place) -> None:
    token = place.new_token()
    number = place.installation["id"]
    place.control.suspend(number)
    assert place.receiver.wait("installation.suspend")[0].payload["installation"]["suspended_at"]
    place.push({"a": "1"})
    assert place.call("GET", "/installation/repositories", token=token).status_code == 403
    assert place.as_app("POST", f"/app/installations/{number}/access_tokens").status_code == 403
    place.control.unsuspend(number)
    place.receiver.wait("installation.unsuspend")
    assert place.call("GET", "/installation/repositories", token=token).status_code == 200
    place.control.uninstall(number)
    place.receiver.wait("installation.deleted")
    assert place.call("GET", "/installation/repositories", token=token).status_code == 401
    assert place.as_app("POST", f"/app/installations/{number}/access_tokens").status_code == 404
    assert place.receiver.hooks("push") == []


def test_a_push_while_the_server_is_away_succeeds_and_says_so(place: Place) -> None:
    address = place.server.hub.world.root / "server.address"
    kept = address.read_text()
    address.write_text("127.0.0.1 9 x")
    try:
        place.commit({"a": "1"})
        place.git("push", "origin", "HEAD:main")
    finally:
        address.write_text(kept)
    assert place.receiver.hooks("push") == []
    assert place.git("ls-remote", "origin", "main")
