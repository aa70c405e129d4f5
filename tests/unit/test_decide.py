"""What each event leads to, given what is known."""

import re
from dataclasses import replace
from typing import Any

import pytest

from ci_bot import config, decide
from ci_bot.decide import (
    Approve,
    Commit,
    EndClaims,
    Known,
    Nothing,
    Read,
    RefuseRerun,
    ReportFine,
    ReportNotMatching,
    ReportSkipped,
    ReportWaiting,
    Start,
)
from ci_bot.events import MergeGroup, PullRequest, Push, RepositoryRef
from ci_bot.events.kinds import Sender
from ci_bot.records import Claim, ClaimKind, Experiment, Wish
from ci_bot.report.check_run import check_run_name
from launcher.state import Progress, State

SHA, OTHER, BASE = "a" * 40, "b" * 40, "c" * 40
REPOSITORY = RepositoryRef(7, "octo/digits", "main", True, 3)
MONA = Sender("mona", "User", 1)
PLAIN = "version: 1\nexperiment: digits\ntype: single\nworker:\n  command: python train.py\n"
FILTERED = PLAIN + "filters:\n  branches:\n    only: [main, 'release/.*']\n  tags:\n    only: 'v.*'\n"
GROUP = "refs/heads/gh-readonly-queue/main/pr-5"
FORKED = "refs/pull/5/head"
DROPPED = Wish(decide.DESCENT, "superseded by bbbbbbb", 1.0)
BROKEN = "version: 1\nexperiment: digits\ntype: single\nworker:\n  count: 0\n"


def known(source: str | None = PLAIN, *, message: str = "Train", ref: str = "refs/heads/main", **more: object) -> Known:
    read = None
    if source is not None:
        parsed = config.parse(source.encode(), path="config.yaml", repository_name="digits", read_params=None)
        read = Read("config.yaml", source, parsed, SHA)
    return Known(Commit(SHA, ref, message), read, **more)  # type: ignore[arg-type]


def push(ref: str = "refs/heads/main", *, deleted: bool = False) -> Push:
    sha = "0" * 40 if deleted else SHA
    return Push(REPOSITORY, ref, BASE, sha, sha, deleted, False, False, "Train", MONA)


def pull(action: str = "synchronize", *, fork: bool = False, base: str = "main", head: str = "feature") -> PullRequest:
    return PullRequest(REPOSITORY, action, 5, SHA, head, 8 if fork else 7, base, BASE, fork, "Longer", False, MONA)


def kinds(decisions: list[decide.Decision]) -> list[str]:
    return [type(decision).__name__ for decision in decisions]


def start_in(decisions: list[decide.Decision]) -> Start:
    return next(decision for decision in decisions if isinstance(decision, Start))


def experiment(
    state: State,
    *,
    rerun: int = 0,
    created_at: float = 0.0,
    wish: Wish | None = None,
    intended: State | None = None,
) -> Experiment:
    parsed = config.parse(PLAIN.encode(), path="config.yaml", repository_name="digits", read_params=None)
    return Experiment(
        id=1, repository_id=7, installation_id=3, full_name="octo/digits", head_sha=SHA, ref="refs/heads/main",
        name="digits", rerun=rerun, title="Train", specification=parsed.experiments[0].specification,
        configuration_path="config.yaml", configuration_source=PLAIN, progress=Progress(state, intended=intended),
        detail={}, created_at=created_at, state_at=created_at, wish=wish,
        ended_at=created_at + 1 if state in {State.STOPPED, State.FAILED, State.CANCELLED} else None,
    )  # fmt: skip


def test_a_push_to_the_default_branch_starts_a_lasting_claim_and_ends_none() -> None:
    decisions = decide.on_push(push(), known())
    assert kinds(decisions) == ["ReportFine", "Start"]
    assert start_in(decisions).claim == Claim(ClaimKind.BRANCH, "refs/heads/main", lasting=True)


def test_a_push_to_another_branch_starts_nothing_without_filters_and_supersedes_what_ran() -> None:
    decisions = decide.on_push(push("refs/heads/feature"), known(ref="refs/heads/feature"))
    assert kinds(decisions) == ["EndClaims", "ReportFine"]
    ended = decisions[0]
    assert isinstance(ended, EndClaims)
    assert (ended.except_sha, ended.why) == (SHA, "superseded by aaaaaaa")


@pytest.mark.parametrize(
    ("ref", "starts"),
    [
        ("refs/heads/main", True),
        ("refs/heads/release/1", True),
        ("refs/heads/release", False),
        ("refs/heads/mainly", False),
        ("refs/tags/v1", True),
        ("refs/tags/1", False),
    ],
)
def test_filters_match_branches_and_tags_in_full(ref: str, starts: bool) -> None:
    assert ("Start" in kinds(decide.on_push(push(ref), known(FILTERED, ref=ref)))) is starts


def test_tags_start_nothing_without_a_tag_filter() -> None:
    assert "Start" not in kinds(decide.on_push(push("refs/tags/v1"), known(ref="refs/tags/v1")))


def test_a_deleted_branch_ends_its_claims() -> None:
    (ended,) = decide.on_push(push("refs/heads/feature", deleted=True), known(None))
    assert isinstance(ended, EndClaims)
    assert (ended.except_sha, ended.why) == (None, "branch feature was deleted")


def group(action: str = "checks_requested", *, base: str = "main") -> MergeGroup:
    return MergeGroup(REPOSITORY, action, SHA, GROUP, f"refs/heads/{base}", BASE, "", MONA)


@pytest.mark.parametrize(
    ("event", "head", "why"),
    [
        (push("refs/heads/feature"), SHA, ""),
        (push("refs/heads/feature"), OTHER, "feature has moved on to bbbbbbb"),
        (push("refs/heads/feature"), None, "feature is gone"),
        (push("refs/tags/v1"), None, "v1 is gone"),
        (push("refs/heads/feature", deleted=True), None, ""),
        (push("refs/heads/feature", deleted=True), OTHER, "feature exists again"),
        (pull(), SHA, ""),
        (pull(), OTHER, "pull request #5 has moved on to bbbbbbb"),
        (pull(), None, "pull request #5 is closed by now"),
        (pull("closed"), None, ""),
        (pull("closed"), SHA, "pull request #5 is open again"),
        (group(), SHA, ""),
        (group(), OTHER, f"the merge group {GROUP} has moved on to bbbbbbb"),
        (group(), None, f"the merge group {GROUP} is gone"),
    ],
)
def test_an_event_holds_while_github_shows_what_it_tells(event: Any, head: str | None, why: str) -> None:
    assert decide.overtaken(event, head) == why


def test_an_annotated_tag_is_compared_by_its_own_object_not_by_its_commit() -> None:
    tag = replace(push("refs/tags/v1"), after=OTHER)
    assert decide.overtaken(tag, OTHER) == ""
    assert decide.overtaken(tag, SHA) != ""


def test_a_broken_file_is_reported_and_starts_nothing() -> None:
    assert kinds(decide.on_push(push(), known(BROKEN))) == ["ReportProblems"]


def test_no_file_means_nothing_to_do() -> None:
    assert kinds(decide.on_push(push(), known(None))) == ["Nothing"]


@pytest.mark.parametrize("message", ["Docs [skip ci]", "Docs\n\nMore.\n\n\nskip-checks: true"])
def test_a_commit_that_asks_to_be_skipped_gets_a_neutral_check(message: str) -> None:
    assert kinds(decide.on_push(push(), known(message=message))) == ["ReportFine", "ReportSkipped"]


def test_an_event_that_came_too_late_is_reported_as_missed() -> None:
    assert kinds(decide.on_push(push(), known(missed=True))) == ["ReportFine", "ReportMissed"]


def test_a_pull_request_of_the_same_repository_runs() -> None:
    decisions = decide.on_pull_request(pull(), known())
    assert kinds(decisions) == ["EndClaims", "ReportFine", "Start"]
    assert start_in(decisions).claim == Claim(ClaimKind.PULL_REQUEST, "5")
    assert start_in(decisions).trusted


def test_a_pull_request_matches_by_its_base_or_its_head_and_else_says_so() -> None:
    elsewhere = decide.on_pull_request(pull(base="dev"), known(FILTERED))
    assert kinds(elsewhere) == ["EndClaims", "ReportFine", "ReportNotMatching"]
    by_head = decide.on_pull_request(pull(base="dev", head="release/2"), known(FILTERED))
    assert "Start" in kinds(by_head)


def test_a_fork_waits_for_approval_of_its_exact_commit() -> None:
    waiting = decide.on_pull_request(pull(fork=True), known())
    assert kinds(waiting) == ["EndClaims", "ReportFine", "ReportWaiting"]
    approved = decide.on_pull_request(pull(fork=True), known(approver="mona"))
    assert not start_in(approved).trusted


@pytest.mark.parametrize("approver", [None, "mona"])
@pytest.mark.parametrize(
    ("source", "message", "said"),
    [(FILTERED, "Train", "ReportNotMatching"), (PLAIN, "[skip ci]", "ReportSkipped")],
    ids=["left out", "skipped"],
)
def test_a_forks_commit_that_would_not_run_waits_for_nobody(
    source: str, message: str, said: str, approver: str | None
) -> None:
    decisions = decide.on_pull_request(pull(fork=True, base="dev"), known(source, message=message, approver=approver))
    assert kinds(decisions) == ["EndClaims", "ReportFine", said]
    report = decisions[-1]
    assert isinstance(report, ReportNotMatching | ReportSkipped)
    assert not report.trusted


def approval(check: str, source: str, *, base: str = "main", message: str = "Train") -> list[decide.Decision]:
    return decide.on_approval(check, 5, "mona", known(source, message=message, ref=FORKED), base_ref=base)


def test_an_approval_starts_the_forks_commit_untrusted() -> None:
    decisions = approval("descent/digits", PLAIN)
    assert decisions[0] == Approve(SHA, "mona")
    assert not start_in(decisions).trusted


def test_an_approval_starts_what_its_button_is_of_and_what_the_filters_do_not_leave_out() -> None:
    assert kinds(approval("descent/other", FILTERED)) == ["Approve", "ReportFine", "Start"]
    assert kinds(approval("descent/other", FILTERED, base="dev")) == ["Approve", "ReportFine", "ReportNotMatching"]
    assert kinds(approval("descent/digits", FILTERED, base="dev")) == ["Approve", "ReportFine", "Start"]
    assert kinds(approval("descent/digits", PLAIN, message="[skip ci]")) == ["Approve", "ReportFine", "Start"]


def test_a_closed_pull_request_ends_its_claims() -> None:
    assert kinds(decide.on_pull_request(pull("closed"), known(None))) == ["EndClaims"]


def test_a_merge_group_is_tested_whatever_its_message_says_and_however_late_it_is_heard_of() -> None:
    assert kinds(decide.on_merge_group(group(), known(message="Merge [skip ci]"))) == ["ReportFine", "Start"]
    assert kinds(decide.on_merge_group(group(), known(missed=True))) == ["ReportFine", "Start"]


@pytest.mark.parametrize(("base", "outcome"), [("main", "Start"), ("dev", "ReportNotMatching")])
def test_a_merge_group_is_tested_as_its_base_branch(base: str, outcome: str) -> None:
    assert kinds(decide.on_merge_group(group(base=base), known(FILTERED)))[-1] == outcome


def test_a_destroyed_merge_group_ends_its_claim_and_not_that_of_the_next_group_of_its_name() -> None:
    (ended,) = decide.on_merge_group(group("destroyed"), known(None))
    assert isinstance(ended, EndClaims)
    assert (ended.key, ended.only_sha) == (GROUP, SHA)


def test_a_rerun_of_an_ended_experiment_is_the_next_run_of_its_name() -> None:
    ended = known(existing=[experiment(State.FAILED)])
    decisions = decide.on_rerun("descent/digits", "mona", ended, fork=False, at=100)
    assert start_in(decisions).rerun == 1
    assert start_in(decisions).claim == Claim(ClaimKind.RERUN, "mona")


def test_a_rerun_runs_what_never_ran_whatever_its_filters_and_messages_say() -> None:
    skipped = known(FILTERED, message="[skip ci]", ref="refs/heads/other")
    assert start_in(decide.on_rerun(None, "mona", skipped, fork=False, at=100)).rerun == 0


def test_a_rerun_of_an_unfinished_experiment_is_refused_with_the_reason() -> None:
    running = known(existing=[experiment(State.RUNNING, rerun=1)])
    decisions = decide.on_rerun("descent/digits", "mona", running, fork=False, at=100)
    assert decisions[1:] == [RefuseRerun(1, "digits", "mona", 100)]
    assert "has not ended" in decisions[1].why


@pytest.mark.parametrize("state", [State.RUNNING, State.FAILED])
@pytest.mark.parametrize(("rerun", "at"), [(1, 100), (1, 98), (1, 40), (0, 97)])
def test_one_click_that_arrives_twice_counts_once_however_late_its_other_half(
    state: State, rerun: int, at: float
) -> None:
    again = known(existing=[experiment(state, rerun=rerun, created_at=98)])
    assert kinds(decide.on_rerun(None, "mona", again, fork=False, at=at)) == ["ReportFine", "Nothing"]


@pytest.mark.parametrize("spaces", [" ", "  "])
def test_a_rerun_finds_the_experiment_of_a_check_run_however_its_spaces_are_written(spaces: str) -> None:
    check = check_run_name("a b").replace(" ", spaces)
    found = known(PLAIN.replace("digits", "a b"))
    assert start_in(decide.on_rerun(check, "mona", found, fork=False, at=100)).specification.name == "a b"


def test_a_rerun_of_a_check_run_that_the_file_knows_nothing_of_says_so() -> None:
    (decision,) = decide.on_rerun("descent/gone", "mona", known(), fork=False, at=100)
    assert decision == Nothing("the configuration has no experiment for the check run descent/gone")


def test_a_rerun_of_a_forks_unapproved_commit_starts_nothing_and_offers_the_approval() -> None:
    skipped = known(FILTERED, message="[skip ci]", ref=FORKED)
    decisions = decide.on_rerun("descent/digits", "mona", skipped, fork=True, at=100)
    assert kinds(decisions) == ["Nothing", "ReportFine", "ReportWaiting"]
    waiting = decisions[-1]
    assert isinstance(waiting, ReportWaiting)
    assert (waiting.name, waiting.number) == ("digits", 5)
    assert kinds(decide.on_rerun("descent/other", "mona", skipped, fork=True, at=100)) == ["Nothing", "ReportFine"]


def test_a_commit_whose_experiment_lost_all_its_claims_is_run_afresh_when_it_is_wanted_again() -> None:
    start = start_in(decide.on_push(push(), known()))
    left = experiment(State.CANCELLED, wish=Wish(decide.DESCENT, "superseded", 1.0))
    by_person = experiment(State.CANCELLED, wish=Wish("mona", "cancelled by mona", 1.0))
    assert decide.rerun_number(start, left) == 1
    assert decide.rerun_number(start, by_person) == 0
    assert decide.rerun_number(start, None) == 0


@pytest.mark.parametrize(
    ("left", "afresh"),
    [
        (experiment(State.STOPPED, wish=DROPPED), False),
        (experiment(State.FAILED, wish=DROPPED), False),
        (experiment(State.NETWORK_TEARDOWN, wish=DROPPED, intended=State.STOPPED), False),
        (experiment(State.NETWORK_TEARDOWN, wish=DROPPED, intended=State.CANCELLED), True),
        (experiment(State.NETWORK_TEARDOWN, wish=DROPPED, intended=State.PENDING), True),
        (experiment(State.RUNNING, wish=DROPPED), True),
        (experiment(State.CANCELLED, wish=replace(DROPPED, by="descent")), False),
    ],
)
def test_only_what_nothing_but_its_lost_claims_ended_is_run_afresh(left: Experiment, afresh: bool) -> None:
    assert decide.rerun_number(start_in(decide.on_push(push(), known())), left) == afresh


def test_no_login_can_be_taken_for_descent_itself() -> None:
    assert not re.fullmatch(r"[A-Za-z0-9-]+(\[bot\])?", decide.DESCENT)


def test_an_older_verdict_on_the_file_is_corrected_where_it_is_fine_now() -> None:
    assert isinstance(decide.on_push(push(), known())[0], ReportFine)
