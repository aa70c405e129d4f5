"""What the intake loop makes of re-runs: only what was pushed to the repository itself is trusted."""

import asyncio
import time
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

import pytest

from ci_bot.decide import Decision, Start
from ci_bot.events import (
    CheckRunAction,
    CheckRunRerequested,
    CheckSuiteRerequested,
    MergeGroup,
    PullRequest,
    Push,
    RepositoryRef,
)
from ci_bot.events.kinds import Sender
from ci_bot.github.answers import Commit, Pull, Role
from ci_bot.github.errors import TooLarge
from ci_bot.records import Repository
from ci_bot.store import check_runs
from ci_bot.store.deliveries import Delivery
from ci_bot.worker.apply import apply
from ci_bot.worker.books import Books
from ci_bot.worker.inquiry import Inquiry

SHA, BASE = "a" * 40, "b" * 40
REPOSITORY = RepositoryRef(7, "octo/digits", "main", True, 3)
KNOWN = Repository(7, 3, "octo/digits", "main")
STRANGER = Sender("stranger", "User", 2)
MONA = Sender("mona", "User", 1)
FINE = b"version: 1\nexperiment: digits\ntype: single\nworker:\n  command: echo base\n"
EVIL = b"version: 1\nexperiment: digits\ntype: single\nworker:\n  command: echo evil\n"
BROKEN = b"version: 1\nworker:\n  count: 0\n"


@dataclass
class FakeGitHub:
    """One pull request of a fork, and one file at each of two commits."""

    files: dict[str, bytes] = field(default_factory=lambda: {SHA: EVIL, BASE: FINE})
    message: str = "Longer"
    fork: bool = True
    too_large: bool = False

    async def pull_request(self, repo: Repository, number: int) -> Pull:
        return Pull(number, True, False, "x", SHA, "evil", 8 if self.fork else 7, "main", BASE, 7)

    async def pulls_for_commit(self, repo: Repository, sha: str) -> tuple[Pull, ...]:
        return (await self.pull_request(repo, 5),) if self.fork and sha == SHA else ()

    async def ref_head(self, repo: Repository, ref: str) -> str | None:
        return SHA

    async def commit(self, repo: Repository, sha: str) -> Commit:
        return Commit(sha, self.message, "stranger")

    async def permission(self, repo: Repository, login: str) -> Role:
        return Role.WRITE

    async def root_tree(self, repo: Repository, sha: str) -> tuple[str, ...]:
        return (".descent",)

    async def read_file(self, repo: Repository, path: str, sha: str, max_bytes: int) -> bytes | None:
        if self.too_large:
            raise TooLarge("too large")
        return self.files[sha] if path.startswith(".descent") else None


@dataclass
class Desk:
    """An intake over a real store; what it decides is applied."""

    books: Books
    github: FakeGitHub = field(default_factory=FakeGitHub)

    def __post_init__(self) -> None:
        self.inquiry = Inquiry(self.books, self.github)  # type: ignore[arg-type]

    def happens(self, deciding: Coroutine[Any, Any, list[Decision]]) -> list[Decision]:
        async def story() -> list[Decision]:
            decisions = await deciding
            await self.books.write(lambda c: apply(c, KNOWN, decisions, time.time()))
            return decisions

        return asyncio.run(story())

    def event(self, event: Any) -> list[Decision]:
        delivery = Delivery(1, "guid", "x", b"", time.time(), "webhook")
        return self.happens(self.inquiry.decide(delivery, event))

    def rerun(self, check: str | None = None) -> list[Start]:
        clicked = CheckRunRerequested(REPOSITORY, 1, check, SHA, "", MONA) if check else None
        decisions = self.event(clicked or CheckSuiteRerequested(REPOSITORY, 1, SHA, MONA))
        return [decision for decision in decisions if isinstance(decision, Start)]


@pytest.fixture
def desk(books: Books) -> Desk:
    return Desk(books)


def pull() -> PullRequest:
    return PullRequest(REPOSITORY, "opened", 5, SHA, "evil", 8, "main", BASE, True, "x", False, STRANGER)


def push(message: str = "Longer") -> Push:
    return Push(REPOSITORY, "refs/heads/main", BASE, SHA, SHA, False, False, False, message, MONA)


def approve() -> CheckRunAction:
    return CheckRunAction(REPOSITORY, "approve", 1, "descent/digits", SHA, "fork", MONA)


def test_a_rerun_of_a_forks_commit_starts_nothing_where_the_bases_file_is_broken(desk: Desk) -> None:
    desk.github.files[BASE] = BROKEN
    desk.event(pull())
    assert desk.rerun() == []
    assert desk.rerun("descent/config") == []


def test_a_forks_commit_that_asked_to_be_skipped_runs_only_as_a_forks(desk: Desk) -> None:
    desk.github.message = "[skip ci]"
    desk.event(pull())
    assert shown(desk) == ["Skipped: [skip ci]"]
    assert desk.rerun() == []
    assert shown(desk) == ["Waits for approval of aaaaaaa"]
    starts = [decision for decision in desk.event(approve()) if isinstance(decision, Start)]
    assert [(start.trusted, start.specification.groups[0].command) for start in starts] == [(False, "echo base")]


def shown(desk: Desk) -> list[str]:
    return [row.wanted.title for row in asyncio.run(desk.books.read(lambda c: check_runs.at_commit(c, 7, SHA)))]


def test_a_rerun_of_an_unknown_commit_is_never_trusted(desk: Desk) -> None:
    assert desk.rerun() == []


@pytest.mark.parametrize("message", ["Longer", "Docs [skip ci]"])
def test_a_rerun_of_what_was_pushed_to_the_repository_is_trusted(desk: Desk, message: str) -> None:
    desk.github.fork = False
    desk.github.message = message
    desk.github.files[SHA] = BROKEN if message == "Longer" else FINE
    desk.event(push(message))
    desk.github.files[SHA] = FINE
    assert [start.trusted for start in desk.rerun()] == [True]


def test_a_forks_approved_commit_that_is_pushed_here_runs_afresh_and_trusted(desk: Desk) -> None:
    desk.event(pull())
    desk.event(approve())
    desk.event(push())
    found = asyncio.run(desk.books.read(_experiments))
    assert sorted((each.rerun, each.trusted) for each in found) == [(0, False), (1, True)]


def _experiments(connection: Any) -> list[Any]:
    from ci_bot.store import experiments

    return experiments.listed(connection)


def test_what_is_recovered_after_too_long_starts_nothing_by_itself_save_what_a_merge_queue_still_waits_for(
    desk: Desk,
) -> None:
    group = MergeGroup(REPOSITORY, "checks_requested", SHA, "refs/heads/q", "refs/heads/main", BASE, "", MONA)
    old = Delivery(1, "guid", "x", b"", time.time() - 7 * 3600, "recovered")
    told = [desk.happens(desk.inquiry.decide(old, event)) for event in (group, push(), approve())]
    assert [type(decisions[-1]).__name__ for decisions in told] == ["Start", "ReportMissed", "Nothing"]


def test_a_file_that_is_too_large_is_a_problem_of_the_file(desk: Desk) -> None:
    desk.github.too_large = True
    assert [type(decision).__name__ for decision in desk.event(push())] == ["ReportProblems"]
