"""Webhook payloads become our events, or say why not."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ci_bot.events import (
    CheckRunAction,
    CheckRunRerequested,
    CheckSuiteRerequested,
    Ignored,
    InstallationChanged,
    MergeGroup,
    Ping,
    PullRequest,
    Push,
    RepositoriesChanged,
    parse,
    skip_requested,
)
from ci_bot.events.parse import READERS

WEBHOOKS = Path(__file__).parents[2].parent / "shared" / "github" / "webhooks"
PAYLOADS = sorted(WEBHOOKS.glob("*/*.json"))
A, B, ZERO = "a" * 40, "b" * 40, "0" * 40
REPOSITORY = {"id": 7, "full_name": "octo/digits", "default_branch": "main", "private": False}
PERSON = {"login": "mona", "type": "User", "id": 3}
BOT = {"login": "dependabot[bot]", "type": "Bot", "id": 4}


def payload(**fields: Any) -> dict[str, Any]:
    return {"repository": REPOSITORY, "installation": {"id": 11}, "sender": PERSON} | fields


def push(**fields: Any) -> dict[str, Any]:
    commit = {"id": B, "message": "train longer\n\nwhy not"}
    return payload(ref="refs/heads/main", before=A, after=B, head_commit=commit) | fields


def check_run(action: str, **fields: Any) -> dict[str, Any]:
    run = {"id": 5, "name": "descent/digits", "head_sha": A, "external_id": "exp-1", "app": {"id": 42}}
    return payload(action=action, check_run=run) | fields


def pull_request(action: str, **fields: Any) -> dict[str, Any]:
    body = {
        "number": 9,
        "title": "More epochs",
        "head": {"sha": A, "ref": "more", "repo": {"id": 7}},
        "base": {"sha": B, "ref": "main", "repo": {"id": 7}},
    } | fields
    return payload(action=action, pull_request=body)


def read(event: str, body: Any, app_id: int | None = 42) -> Any:
    return parse(event, json.dumps(body).encode(), app_id=app_id, app_slug="descent")


def reason(event: Any) -> str:
    assert isinstance(event, Ignored)
    return event.reason


def test_a_push_names_its_commit_ref_message_and_sender() -> None:
    event = read("push", push(forced=True))
    assert isinstance(event, Push)
    assert (event.ref, event.branch, event.tag) == ("refs/heads/main", "main", None)
    assert (event.before, event.after, event.head_sha) == (A, B, B)
    assert event.forced
    assert not event.deleted
    assert event.message.startswith("train longer")
    assert event.repository.installation_id == 11
    assert event.sender.login == "mona"


def test_a_deleted_branch_has_no_commit() -> None:
    for flag in (True, None):
        event = read("push", push(after=ZERO, deleted=flag, head_commit=None))
        assert isinstance(event, Push)
        assert event.deleted
        assert (event.head_sha, event.message) == (ZERO, "")


def test_an_annotated_tag_is_read_as_the_commit_it_points_to() -> None:
    tag_object = "c" * 40
    event = read("push", push(ref="refs/tags/v1", after=tag_object))
    assert isinstance(event, Push)
    assert (event.tag, event.after, event.head_sha) == ("v1", tag_object, B)


def test_what_another_bot_pushes_proposes_or_queues_counts_since_its_check_may_be_required() -> None:
    group = {"head_sha": A, "head_ref": "refs/heads/gh-readonly-queue/main/x", "base_ref": "refs/heads/main"}
    queued = payload(action="checks_requested", merge_group=group | {"base_sha": B}, sender=BOT)
    assert isinstance(read("push", push(sender=BOT)), Push)
    assert isinstance(read("pull_request", pull_request("opened") | {"sender": BOT}), PullRequest)
    assert isinstance(read("merge_group", queued), MergeGroup)


def test_a_push_of_our_own_bot_is_ignored() -> None:
    ours = {"login": "descent[bot]", "type": "Bot", "id": 1}
    assert "our own" in reason(read("push", push(sender=ours)))


def test_a_person_who_calls_himself_like_our_bot_is_a_person() -> None:
    assert isinstance(read("push", push(sender=PERSON | {"login": "descent[bot]"})), Push)


def test_pushes_of_the_merge_queue_are_ignored() -> None:
    assert "merge queue" in reason(read("push", push(ref="refs/heads/gh-readonly-queue/main/pr-1-abc")))


def test_refs_that_are_neither_branch_nor_tag_are_ignored() -> None:
    assert "neither a branch nor a tag" in reason(read("push", push(ref="refs/notes/commits")))


@pytest.mark.parametrize("action", ["opened", "synchronize", "reopened", "closed"])
def test_pull_request_actions_that_change_what_is_tested_are_events(action: str) -> None:
    event = read("pull_request", pull_request(action, merged=True))
    assert isinstance(event, PullRequest)
    assert (event.action, event.number, event.head_sha, event.base_sha) == (action, 9, A, B)
    assert (event.head_ref, event.base_ref, event.title) == ("more", "main", "More epochs")
    assert event.merged
    assert not event.is_fork


@pytest.mark.parametrize(("repo", "expected_id"), [({"id": 8}, 8), (None, None)])
def test_a_head_elsewhere_or_nowhere_is_a_fork(repo: Any, expected_id: int | None) -> None:
    event = read("pull_request", pull_request("opened", head={"sha": A, "ref": "main", "repo": repo}))
    assert isinstance(event, PullRequest)
    assert event.is_fork
    assert event.head_repository_id == expected_id


def test_other_pull_request_actions_are_ignored() -> None:
    assert '"labeled"' in reason(read("pull_request", pull_request("labeled")))


def test_rerequested_of_our_check_run_is_an_event() -> None:
    event = read("check_run", check_run("rerequested"))
    assert isinstance(event, CheckRunRerequested)
    assert (event.check_run_id, event.name, event.head_sha, event.external_id) == (5, "descent/digits", A, "exp-1")


def test_a_button_is_an_event_with_its_identifier() -> None:
    event = read("check_run", check_run("requested_action", requested_action={"identifier": "cancel"}))
    assert isinstance(event, CheckRunAction)
    assert (event.identifier, event.check_run_id) == ("cancel", 5)


def test_re_run_all_is_an_event() -> None:
    body = payload(action="rerequested", check_suite={"id": 6, "head_sha": A, "app": {"id": 42}})
    event = read("check_suite", body)
    assert isinstance(event, CheckSuiteRerequested)
    assert (event.check_suite_id, event.head_sha) == (6, A)


@pytest.mark.parametrize("app_id", [41, None])
def test_checks_of_other_apps_are_ignored(app_id: int | None) -> None:
    suite = payload(action="rerequested", check_suite={"id": 6, "head_sha": A, "app": {"id": 42}})
    assert "none of ours" in reason(read("check_suite", suite, None))
    assert "ours" in reason(read("check_run", check_run("rerequested"), app_id))
    assert "ours" in reason(read("check_suite", suite, app_id))


def test_bots_press_no_buttons() -> None:
    suite = payload(action="rerequested", check_suite={"id": 6, "head_sha": A, "app": {"id": 42}}, sender=BOT)
    assert "is a bot" in reason(read("check_run", check_run("rerequested", sender=BOT)))
    assert "is a bot" in reason(read("check_suite", suite))


@pytest.mark.parametrize("action", ["created", "completed"])
def test_our_own_check_runs_do_not_come_back_as_news(action: str) -> None:
    assert f'"{action}"' in reason(read("check_run", check_run(action)))


@pytest.mark.parametrize(("action", "why"), [("checks_requested", ""), ("destroyed", "dequeued")])
def test_merge_groups_are_events(action: str, why: str) -> None:
    group = {
        "head_sha": A,
        "head_ref": "refs/heads/gh-readonly-queue/main/x",
        "base_ref": "refs/heads/main",
        "base_sha": B,
    }
    event = read("merge_group", payload(action=action, merge_group=group, reason=why or None))
    assert isinstance(event, MergeGroup)
    assert (event.action, event.head_sha, event.base_ref, event.reason) == (action, A, "refs/heads/main", why)


@pytest.mark.parametrize(
    ("action", "suspended_at", "suspended", "gone"),
    [
        ("created", None, False, False),
        ("deleted", None, False, True),
        ("suspend", "2026-01-01T00:00:00Z", True, True),
        ("unsuspend", None, False, False),
        ("new_permissions_accepted", "2026-01-01T00:00:00Z", True, False),
    ],
)
def test_installations_tell_what_became_of_them(action: str, suspended_at: Any, suspended: bool, gone: bool) -> None:
    installation = {"id": 11, "account": {"login": "octo"}, "suspended_at": suspended_at}
    repositories = [{"id": 7, "full_name": "octo/digits", "private": True}]
    event = read("installation", payload(action=action, installation=installation, repositories=repositories))
    assert isinstance(event, InstallationChanged)
    assert (event.installation_id, event.account, event.suspended, event.gone) == (11, "octo", suspended, gone)
    assert [r.full_name for r in event.repositories] == ["octo/digits"]


def test_repositories_that_come_and_go_are_listed() -> None:
    one = {"id": 7, "full_name": "octo/digits", "private": True}
    event = read(
        "installation_repositories", payload(action="removed", repositories_added=[], repositories_removed=[one])
    )
    assert isinstance(event, RepositoriesChanged)
    assert (event.added, [r.id for r in event.removed]) == ((), [7])


def test_a_ping_is_heard() -> None:
    assert read("ping", {"zen": "Design for failure.", "hook_id": 1}) == Ping("Design for failure.", 1)


@pytest.mark.parametrize(
    ("body", "missing"),
    [
        (push(ref=None), "ref is missing"),
        (push(after="HEAD"), "after is no commit SHA"),
        (push(after="../../etc"), "after is no commit SHA"),
        (push(repository=REPOSITORY | {"full_name": "../x"}), "repository.full_name is no owner/name"),
        (push(repository=REPOSITORY | {"full_name": "octo/.."}), "repository.full_name is no owner/name"),
        (push(repository=REPOSITORY | {"id": 2**63}), "repository.id is no valid number"),
        (push(repository=REPOSITORY | {"id": True}), "repository.id is no valid number"),
        (push(repository=None), "repository is missing"),
        (push(installation=None), "names no installation"),
        (push(sender={"login": "x"}), "sender.id is missing"),
        (push(ref=3), "ref is no text"),
    ],
)
def test_what_is_missing_is_named(body: Any, missing: str) -> None:
    assert missing in reason(read("push", body))


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b"\xff\xfe{}", b"[" * 100_000, b"1" * 10_000, b"payload=%7B%7D"]
)
def test_what_is_no_json_object_is_ignored_with_a_reason(body: bytes) -> None:
    assert "JSON" in reason(parse("push", body, app_id=42))


def test_text_that_no_database_could_store_is_repaired() -> None:
    event = read("push", push(head_commit={"id": B, "message": "\ud800 a\0b"}))
    assert isinstance(event, Push)
    assert event.message == "? a\N{REPLACEMENT CHARACTER}b"


def test_hostile_words_are_shown_short_and_on_one_line() -> None:
    said = reason(parse("x\n\x1b[31m" + "y" * 500, b"{}", app_id=42))
    assert said.isprintable()
    assert len(said) < 120


@given(st.sampled_from([*READERS, "issues", ""]), st.binary(max_size=200))
def test_no_bytes_make_parse_raise(event: str, body: bytes) -> None:
    parse(event, body, app_id=42)


SCALARS = st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from([A, "main", "refs/heads/x"])
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2)
)
BODIES: dict[str, dict[str, Any]] = {
    "push": push(),
    "pull_request": pull_request("opened"),
    "check_run": check_run("requested_action", requested_action={"identifier": "cancel"}),
    "installation": payload(action="created", repositories=[REPOSITORY]),
}


@given(st.data())
def test_no_damage_to_a_payload_makes_parse_raise(data: st.DataObject) -> None:
    event = data.draw(st.sampled_from(sorted(BODIES)))
    body = json.loads(json.dumps(BODIES[event]))
    place = body
    while True:
        key = data.draw(st.sampled_from(sorted(place)))
        if not isinstance(place[key], dict) or not place[key] or data.draw(st.booleans()):
            place[key] = data.draw(JSON)
            break
        place = place[key]
    outcome = read(event, body)
    assert not isinstance(outcome, Ignored) or outcome.reason


@pytest.mark.parametrize("file", PAYLOADS or [None], ids=lambda f: f"{f.parent.name}/{f.name}" if f else "none")
def test_each_of_githubs_own_payloads_is_an_event_or_ignored_with_a_reason(file: Path | None) -> None:
    if file is None:
        pytest.skip(f"GitHub's example payloads are not at {WEBHOOKS}")
    event = file.parent.name
    body = json.loads(file.read_text())
    outcome = parse(event, file.read_bytes(), app_id=2)
    if isinstance(outcome, Ignored):
        assert len(outcome.reason.split()) >= 4
    if "installation" not in body and event in {"push", "pull_request"}:
        # As the App's own webhook would have sent it, nothing is missing.
        outcome = read(event, body | {"installation": {"id": 1}}, 2)
        assert isinstance(outcome, Push | PullRequest) or "changes nothing" in outcome.reason


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("fix typo [skip ci]", "[skip ci]"),
        ("[CI Skip] fix typo", "[ci skip]"),
        ("fix\n\nmore [no ci] text", "[no ci]"),
        ("fix\n\n\nskip-checks: true", "skip-checks: true"),
        ("fix\n\nskip-checks:true\n", "skip-checks: true"),
        ("fix\r\n\r\nSkip-Checks: True", "skip-checks: true"),
        ("fix\n\nSigned-off-by: Mona <m@example.com>\nskip-checks: true", "skip-checks: true"),
        ("fix", None),
        ("", None),
        ("skip-checks: true", None),
        ("fix\nskip-checks: true", None),
        ("fix\n\nskip-checks: false", None),
        ("fix\n\nskip-checks: true\nSigned-off-by: Mona <m@example.com>", None),
        ("fix\n\nwe document skip-checks: true", None),
        ("skip ci", None),
        ("[skipci]", None),
    ],
)
def test_commits_are_left_alone_exactly_when_their_message_asks_for_it(message: str, expected: str | None) -> None:
    assert skip_requested(message) == expected
