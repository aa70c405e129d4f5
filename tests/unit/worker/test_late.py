"""What the intake loop makes of deliveries that come late, or after what they should have come before."""

import asyncio
import json
import time
from dataclasses import dataclass, field
from typing import Any

import pytest
from sqlalchemy import Connection, insert

from ci_bot.events import parse
from ci_bot.github.answers import Commit, Pull, Role
from ci_bot.github.errors import Forbidden, Gone, Unavailable
from ci_bot.records import Repository
from ci_bot.store import deliveries, experiments, repositories
from ci_bot.store.tables import delivery
from ci_bot.worker.books import Books
from ci_bot.worker.intake import Intake
from tests.unit.test_events import check_run, payload, pull_request

FIRST, SECOND, ZEROS = "a" * 40, "b" * 40, "0" * 40
PLAIN = b"""\
version: 1
experiment: digits
type: single
worker:
  command: "true"
"""
FILE = (
    PLAIN
    + b"""\
filters:
  branches: {only: ".*"}
  tags: {only: ".*"}
"""
)
BRANCH, TAG, GROUP = "refs/heads/more", "refs/tags/v1", "refs/heads/gh-readonly-queue/main/pr-9"


@dataclass
class FakeGitHub:
    """Refs and one pull request as GitHub has them now."""

    refs: dict[str, str] = field(default_factory=dict)
    pull_head: str | None = None
    """None: it is closed."""
    down: bool = False
    file: bytes = FILE
    installed: tuple[int, ...] | None = (7,)
    """The repositories on which the App is; None: its installation is gone."""
    suspended: bool = False
    reads: list[str] = field(default_factory=list)

    def _read(self, what: str) -> None:
        self.reads.append(what)
        if self.down:
            raise Unavailable("GitHub is down")

    async def ref_head(self, repo: Repository, ref: str) -> str | None:
        self._read(ref)
        return self.refs.get(ref)

    async def pull_request(self, repo: Repository, number: int) -> Pull:
        self._read("pull request")
        is_open = self.pull_head is not None
        return Pull(number, is_open, False, "More epochs", self.pull_head or FIRST, "more", 7, "main", SECOND, 7)

    async def commit(self, repo: Repository, sha: str) -> Commit:
        self._read("commit")
        return Commit(sha, "Train", "mona")

    async def permission(self, repo: Repository, login: str) -> Role:
        return Role.WRITE

    async def root_tree(self, repo: Repository, sha: str) -> tuple[str, ...]:
        self._read("root")
        return (".descent",)

    async def read_file(self, repo: Repository, path: str, sha: str, max_bytes: int) -> bytes | None:
        self._read("file")
        return self.file

    async def installation_repositories(self, installation_id: int) -> tuple[Repository, ...]:
        self._read("installation")
        if self.suspended:
            raise Forbidden("This installation has been suspended")
        if self.installed is None:
            raise Gone("the App is not installed any more")
        return tuple(Repository(each, installation_id, "octo/digits", "main") for each in self.installed)

    def drop_installation(self, installation_id: int) -> None:
        pass


@dataclass
class Desk:
    """An intake over a real store; each delivery is a minute old, so that no lag of GitHub's excuses anything."""

    books: Books
    github: FakeGitHub = field(default_factory=FakeGitHub)
    received: int = 0

    def __post_init__(self) -> None:
        self.intake = Intake(self.books, self.github, 42, "descent", lambda: None)  # type: ignore[arg-type]

    def receive(self, event: str, body: dict[str, Any], *, source: str = "webhook") -> str:
        """A delivery that is tried once, and its outcome."""
        self.received += 1
        row = {"guid": str(self.received), "event": event, "body": json.dumps(body).encode()}
        row |= {"received_at": time.time() - 60, "source": source, "seq": self.received}

        def story(connection: Connection) -> None:
            connection.execute(insert(delivery).values(row))

        asyncio.run(self.books.write(story))
        asyncio.run(self._step())
        return self.outcome(self.received)

    async def _step(self) -> None:
        await self.intake.step()
        await asyncio.gather(*self.intake.busy.values())

    def put_off(self, event: str, body: dict[str, Any]) -> int:
        """A delivery that comes while GitHub is down; the next worker does not hold up others for it."""
        self.github.down = True
        assert self.receive(event, body) == "GitHub is down"
        self.github.down = False
        seq, later = self.received, time.time() + 3600
        asyncio.run(self.books.write(lambda c: deliveries.postpone(c, seq, later, "")))
        self.__post_init__()
        return seq

    def again(self, seq: int) -> str:
        """The time of a delivery that was put off has come."""
        asyncio.run(self.books.write(lambda c: deliveries.postpone(c, seq, 0.0, "")))
        asyncio.run(self._step())
        return self.outcome(seq)

    def outcome(self, seq: int) -> str:
        def look(connection: Connection) -> str:
            found = connection.execute(delivery.select().where(delivery.c.seq == seq)).mappings().one()
            return str(found["outcome"])

        return asyncio.run(self.books.read(look))

    def experiments(self) -> list[Any]:
        return asyncio.run(self.books.read(experiments.listed))

    def wishes(self) -> list[str]:
        return [each.wish.why for each in self.experiments() if each.wish]


@pytest.fixture
def desk(books: Books) -> Desk:
    return Desk(books)


def push(ref: str, sha: str, *, before: str = ZEROS, message: str = "Train") -> dict[str, Any]:
    commit = None if sha == ZEROS else {"id": sha, "message": message}
    return payload(ref=ref, before=before, after=sha, head_commit=commit, deleted=sha == ZEROS)


def pull(action: str, sha: str = FIRST) -> dict[str, Any]:
    return pull_request(action, head={"sha": sha, "ref": "more", "repo": {"id": 7}})


def group(action: str, sha: str = FIRST) -> dict[str, Any]:
    body = {"head_sha": sha, "head_ref": GROUP, "base_ref": "refs/heads/main", "base_sha": SECOND}
    return payload(action=action, merge_group=body)


BEGINNINGS = [("push", push(BRANCH, FIRST)), ("push", push(TAG, FIRST)), ("merge_group", group("checks_requested"))]
ENDS = [("push", push(BRANCH, ZEROS)), ("push", push(TAG, ZEROS)), ("merge_group", group("destroyed"))]
REFS = [BRANCH, TAG, GROUP]
PULL = [("pull_request", pull("opened")), ("pull_request", pull("closed"))]


@pytest.mark.parametrize(("beginning", "end"), [*zip(BEGINNINGS, ENDS, strict=True), PULL])
def test_what_was_put_off_and_ended_meanwhile_starts_nothing(desk: Desk, beginning: Any, end: Any) -> None:
    seq = desk.put_off(*beginning)
    desk.receive(*end)
    assert desk.again(seq).startswith("overtaken: ")
    assert desk.experiments() == []


@pytest.mark.parametrize(("beginning", "end"), [*zip(BEGINNINGS, ENDS, strict=True), PULL])
def test_what_ended_before_it_began_starts_nothing(desk: Desk, beginning: Any, end: Any) -> None:
    desk.receive(*end)
    assert desk.receive(*beginning).startswith("overtaken: ")
    assert desk.experiments() == []


@pytest.mark.parametrize(("beginning", "ref"), [*zip(BEGINNINGS, REFS, strict=True), (PULL[0], "")])
def test_what_was_put_off_and_still_stands_starts(desk: Desk, beginning: Any, ref: str) -> None:
    desk.github.refs[ref] = desk.github.pull_head = FIRST
    desk.again(desk.put_off(*beginning))
    assert [each.head_sha for each in desk.experiments()] == [FIRST]


@pytest.mark.parametrize(("beginning", "ref"), [*zip(BEGINNINGS, REFS, strict=True)])
def test_what_was_put_off_and_moved_meanwhile_starts_nothing(desk: Desk, beginning: Any, ref: str) -> None:
    desk.github.refs[ref] = SECOND
    assert "moved on to bbbbbbb" in desk.again(desk.put_off(*beginning))
    assert desk.experiments() == []


def test_every_commit_of_the_default_branch_runs_however_late(desk: Desk) -> None:
    desk.again(desk.put_off("push", push("refs/heads/main", FIRST)))
    assert [each.head_sha for each in desk.experiments()] == [FIRST]


@pytest.mark.parametrize(("ref", "first"), [(BRANCH, True), (TAG, True), ("refs/heads/main", False)])
def test_a_push_that_comes_in_time_costs_two_reads(desk: Desk, ref: str, first: bool) -> None:
    if not first:
        desk.receive("push", push(ref, SECOND))
        desk.github.reads.clear()
    desk.receive("push", push(ref, FIRST))
    assert desk.github.reads == ["root", "file"]


def test_a_branch_that_was_deleted_and_made_again_runs(desk: Desk) -> None:
    desk.receive("push", push(BRANCH, FIRST))
    desk.receive("push", push(BRANCH, ZEROS))
    desk.github.refs[BRANCH] = SECOND
    desk.receive("push", push(BRANCH, SECOND))
    assert [each.head_sha for each in desk.experiments() if not each.wish] == [SECOND]


@pytest.mark.parametrize("source", ["webhook", "recovered"])
@pytest.mark.parametrize(("beginning", "end"), [(BEGINNINGS[0], ENDS[0]), (BEGINNINGS[1], ENDS[1]), PULL])
def test_an_end_that_comes_after_the_next_beginning_ends_nothing(
    desk: Desk, beginning: Any, end: Any, source: str
) -> None:
    desk.github.refs = {BRANCH: FIRST, TAG: FIRST}
    desk.github.pull_head = FIRST
    desk.receive(*beginning)
    assert "again" in desk.receive(*end, source=source)
    assert desk.wishes() == []
    desk.github.refs, desk.github.pull_head = {}, None
    desk.receive(*end, source=source)
    assert len(desk.wishes()) == 1


@pytest.mark.parametrize("end", [*ENDS, PULL[1]])
def test_the_end_of_what_wants_nothing_is_not_asked_about(desk: Desk, end: Any) -> None:
    desk.receive(*end)
    assert desk.github.reads == []


def test_a_push_that_comes_after_a_newer_one_starts_nothing_whatever_became_of_that(desk: Desk) -> None:
    desk.github.refs[BRANCH] = SECOND
    desk.receive("push", push(BRANCH, SECOND, before=FIRST, message="Docs [skip ci]"))
    assert "moved on to bbbbbbb" in desk.receive("push", push(BRANCH, FIRST))
    assert desk.experiments() == []


@pytest.mark.parametrize("starts", [True, False])
def test_a_push_to_a_branch_that_was_there_is_asked_about_if_it_starts_something(desk: Desk, starts: bool) -> None:
    desk.github.refs[BRANCH] = SECOND
    desk.github.file = FILE if starts else PLAIN
    desk.receive("push", push(BRANCH, SECOND, before=FIRST))
    assert desk.github.reads == ["root", "file", *([BRANCH] if starts else [])]
    assert len(desk.experiments()) == starts


def test_the_end_of_a_merge_group_leaves_the_next_one_of_its_name_alone(desk: Desk) -> None:
    desk.receive("merge_group", group("checks_requested", SECOND))
    desk.receive("merge_group", group("destroyed", FIRST))
    assert desk.wishes() == []
    desk.receive("merge_group", group("destroyed", SECOND))
    assert desk.wishes() == ["the merge group is gone"]


def test_the_end_of_a_claim_brings_no_removed_repository_back(desk: Desk) -> None:
    desk.receive("push", push(BRANCH, FIRST))
    asyncio.run(desk.books.write(lambda c: repositories.removed(c, 7, 1.0)))
    desk.receive("push", push(BRANCH, ZEROS))
    assert desk.wishes() == ["branch more was deleted"]
    assert asyncio.run(desk.books.read(repositories.present)) == []


# --- where the App is ---

INSTALLED = {"id": 7, "full_name": "octo/digits", "private": True}
REMOVED = ("installation_repositories", payload(action="removed", repositories_removed=[INSTALLED]))
DELETED = ("installation", payload(action="deleted", repositories=[INSTALLED]))
SUSPENDED = ("installation", payload(action="suspend"))


def present(desk: Desk) -> list[int]:
    return [each.id for each in asyncio.run(desk.books.read(repositories.present))]


@pytest.mark.parametrize("source", ["webhook", "recovered"])
@pytest.mark.parametrize("end", [REMOVED, DELETED, SUSPENDED])
def test_a_repository_on_which_the_app_is_again_is_not_forgotten(desk: Desk, end: Any, source: str) -> None:
    desk.receive("push", push("refs/heads/main", FIRST))
    assert desk.receive(*end, source=source).startswith("overtaken: ")
    assert (desk.wishes(), present(desk)) == ([], [7])


@pytest.mark.parametrize(
    ("end", "installed", "suspended"),
    [(REMOVED, (), False), (REMOVED, None, False), (DELETED, None, False), (SUSPENDED, (7,), True)],
)
def test_a_repository_from_which_the_app_was_removed_wants_nothing_more(
    desk: Desk, end: Any, installed: Any, suspended: bool
) -> None:
    desk.receive("push", push("refs/heads/main", FIRST))
    desk.github.installed, desk.github.suspended = installed, suspended
    desk.receive(*end)
    assert (desk.wishes(), present(desk)) == (["the App was removed from the repository, or suspended"], [])


def test_a_repository_that_another_installation_covers_is_not_forgotten_with_the_former_one(desk: Desk) -> None:
    desk.receive("push", push("refs/heads/main", FIRST) | {"installation": {"id": 12}})
    desk.github.installed = None
    desk.receive(*REMOVED)
    desk.receive(*DELETED)
    assert (desk.wishes(), present(desk)) == ([], [7])


# --- re-runs ---

RERUN = ("check_run", check_run("rerequested"))


def test_a_refused_rerun_is_told_on_the_experiment_once_however_often_it_is_asked_for(desk: Desk) -> None:
    desk.receive("push", push("refs/heads/main", FIRST))
    asyncio.run(desk.books.write(lambda c: c.exec_driver_sql("UPDATE experiment SET created_at = 1").close()))
    for _ in range(3):
        assert "re-run refused to mona: digits has not ended yet" in desk.receive(*RERUN)
    (experiment,) = desk.experiments()
    (note,) = experiment.notes
    assert note.startswith("A re-run was refused to mona at ")
    assert note.endswith("UTC: it has not ended yet. Cancel it first, or wait for its end.")


def test_a_rerun_that_was_put_off_while_its_twin_was_done_starts_nothing_more(desk: Desk) -> None:
    desk.receive("push", push("refs/heads/main", FIRST))
    ended = "UPDATE experiment SET created_at = 1, ended_at = 2, state = 'FAILED'"
    asyncio.run(desk.books.write(lambda c: c.exec_driver_sql(ended).close()))
    suite = {"id": 6, "head_sha": FIRST, "app": {"id": 42}}
    seq = desk.put_off("check_suite", payload(action="rerequested", check_suite=suite))
    desk.receive(*RERUN)
    asyncio.run(desk.books.write(lambda c: c.exec_driver_sql("UPDATE experiment SET ended_at = 3").close()))
    assert "was re-run just now" in desk.again(seq)
    assert sorted(each.rerun for each in desk.experiments()) == [0, 1]


def test_the_payloads_here_are_events() -> None:
    for event, body in (*BEGINNINGS, *ENDS, *PULL, RERUN):
        assert type(parse(event, json.dumps(body).encode(), app_id=42)).__name__ != "Ignored"


@pytest.mark.parametrize("where", ["parse", "apply"])
def test_a_delivery_that_nothing_can_digest_is_put_off_and_the_next_one_is_acted_on(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ValueError("a defect")

    desk.github.refs[BRANCH] = FIRST
    with monkeypatch.context() as patched:
        patched.setattr(f"ci_bot.worker.intake.{where}", broken)
        assert "a defect of Descent's" in desk.receive(*BEGINNINGS[0])
    desk.github.refs[BRANCH] = SECOND
    desk.receive("push", push(BRANCH, SECOND))
    assert [each.head_sha for each in desk.experiments()] == [SECOND]
