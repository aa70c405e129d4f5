"""The intake loop over many repositories: each waits for itself alone, and its deliveries stay in order."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from sqlalchemy import Connection, insert, select

from ci_bot.github.answers import App
from ci_bot.github.errors import Forbidden, GitHubError, Gone, RateLimited, Unavailable
from ci_bot.records import Repository
from ci_bot.store import deliveries
from ci_bot.store.tables import delivery
from ci_bot.worker.books import Books
from ci_bot.worker.intake import ASIDE_S, AT_ONCE, Intake
from tests.fakes import EPOCH, clock, play, skip
from tests.unit.test_events import REPOSITORY, payload

FILE = b"version: 1\nexperiment: digits\ntype: single\nworker:\n  command: echo\n"


async def fine(sha: str) -> None:
    """GitHub answers."""


@dataclass
class FakeGitHub:
    """Knows every commit, unless the trouble of its repository says otherwise."""

    trouble: dict[int, Callable[[str], Awaitable[None]]] = field(default_factory=dict)
    asked: list[tuple[float, int, str]] = field(default_factory=list)
    """When, of which repository, for which commit."""
    asking: set[int] = field(default_factory=set)
    most_asking: int = 0
    named_at: list[float] = field(default_factory=list)
    names: list[str] = field(default_factory=lambda: ["descent"])

    async def app(self) -> App:
        self.named_at.append(clock() - EPOCH)
        name = self.names.pop(0)
        if name:
            return App(42, name, "Descent", "", {}, ())
        raise Unavailable("GitHub is down")

    async def ref_head(self, repo: Repository, ref: str) -> str | None:
        return None

    async def root_tree(self, repo: Repository, sha: str) -> tuple[str, ...]:
        self.asked.append((clock() - EPOCH, repo.id, sha))
        assert repo.id not in self.asking, "two deliveries of one repository at once"
        self.asking.add(repo.id)
        self.most_asking = max(self.most_asking, len(self.asking))
        try:
            await self.trouble.get(repo.id, fine)(sha)
        finally:
            self.asking.remove(repo.id)
        return (".descent",)

    async def read_file(self, repo: Repository, path: str, sha: str, max_bytes: int) -> bytes | None:
        return FILE

    def shas(self, repository_id: int) -> list[str]:
        return [sha for _, repository, sha in self.asked if repository == repository_id]


@dataclass
class Desk:
    """An intake over a real store, in virtual time."""

    books: Books
    github: FakeGitHub = field(default_factory=FakeGitHub)
    received: int = 0

    def __post_init__(self) -> None:
        self.intake = Intake(self.books, self.github, 42, "descent", lambda: None, now=clock)  # type: ignore[arg-type]

    async def receive(self, repository_id: int, *shas: str) -> None:
        """Pushes to the default branch, each of whose commits runs."""
        rows = [self._row(repository_id, sha) for sha in shas]

        def store(connection: Connection) -> None:
            connection.execute(insert(delivery), rows)

        await self.books.write(store)
        self.intake.wake.set()

    def _row(self, repository_id: int, sha: str) -> dict[str, Any]:
        self.received += 1
        commit = {"id": sha, "message": "Train"}
        body = payload(ref="refs/heads/main", before="f" * 40, after=sha, head_commit=commit)
        body["repository"] = REPOSITORY | {"id": repository_id, "full_name": f"octo/r{repository_id}"}
        row = {"guid": str(self.received), "event": "push", "body": json.dumps(body).encode()}
        return row | {"received_at": clock(), "source": "webhook"}

    async def waiting(self) -> int:
        return (await self.books.read(deliveries.backlog))[0]

    def live(self, story: Callable[[], Awaitable[None]]) -> None:
        """Tell a story while the intake runs."""

        async def life() -> None:
            stop = asyncio.Event()
            running = asyncio.create_task(self.intake.run(stop))
            try:
                await story()
            finally:
                stop.set()
                await running

        play(life())


@pytest.fixture
def desk(books: Books) -> Desk:
    return Desk(books)


def shas(count: int) -> list[str]:
    return [f"{number:040x}" for number in range(1, count + 1)]


def failing(*errors: GitHubError | None) -> Callable[[str], Awaitable[None]]:
    """These for the first questions, then all is well."""
    left = list(errors)

    async def fail(sha: str) -> None:
        if left and (error := left.pop(0)):
            raise error

    return fail


def test_what_leads_nowhere_is_done_with_where_it_is_sorted_and_wakes_nobody(desk: Desk) -> None:
    woken: list[str] = []
    desk.intake.changed = lambda: woken.append("reporting")

    async def story() -> None:
        star = {"guid": "star", "event": "star", "body": b"{}", "received_at": clock(), "source": "webhook"}
        await desk.books.write(lambda c: c.execute(insert(delivery).values(star)))
        assert not (await desk.intake.step() and desk.intake.busy)
        row = await desk.books.read(lambda c: c.execute(select(delivery)).one())
        assert (row.processed_at, row.outcome) == (clock(), '"star" events start nothing')
        assert desk.intake.processed == 1
        assert not woken
        await desk.receive(7, *shas(1))
        await desk.intake.step()
        await desk.intake.busy[7]
        assert woken == ["reporting"]

    play(story())


def test_a_repository_that_github_refuses_holds_up_no_other_and_is_asked_about_seldom(desk: Desk) -> None:
    desk.github.trouble[7] = failing(*[Forbidden("no")] * 1000)

    async def story() -> None:
        await desk.receive(7, *shas(150))
        await desk.receive(8, *shas(1))
        await asyncio.sleep(5)
        assert desk.github.shas(8) == shas(1)
        for _ in range(119):  # ten minutes
            skip(4)
            await asyncio.sleep(1)
        assert await desk.waiting() == 150
        assert len(desk.github.shas(7)) <= 80

    desk.live(story)


def test_a_repository_that_github_is_slow_about_delays_no_other(desk: Desk) -> None:
    async def slow(sha: str) -> None:
        await asyncio.sleep(30)

    desk.github.trouble[7] = slow

    async def story() -> None:
        await desk.receive(7, *shas(10))
        await asyncio.sleep(3)
        await desk.receive(8, *shas(2))
        await asyncio.sleep(1)
        assert desk.github.shas(8) == shas(2)
        assert desk.github.shas(7) == shas(1)

    desk.live(story)


def test_a_few_slow_questions_leave_room_for_every_repository(desk: Desk) -> None:
    async def slow(sha: str) -> None:
        await asyncio.sleep(1)

    desk.github.trouble = dict.fromkeys(range(1, 31), slow)

    async def story() -> None:
        for number in range(1, 30):
            await desk.receive(number, *shas(20))
        await desk.receive(30, *shas(1))
        await asyncio.sleep(5)
        assert desk.github.shas(30) == shas(1)
        assert desk.github.most_asking == AT_ONCE

    desk.live(story)


def test_what_came_later_waits_for_what_was_put_off(desk: Desk) -> None:
    first, second, third = shas(3)
    desk.github.trouble[7] = failing(*[Unavailable("down")] * 3)

    async def story() -> None:
        await desk.receive(7, first, second)
        await asyncio.sleep(2)
        await desk.receive(7, third)
        await asyncio.sleep(30)
        assert desk.github.shas(7) == [first, first, first, first, second, third]
        assert await desk.waiting() == 0

    desk.live(story)


def test_what_github_can_never_answer_steps_aside_after_about_a_minute(desk: Desk) -> None:
    bad, *good = shas(12)

    async def fail(sha: str) -> None:
        if sha == bad:
            raise Unavailable("502")

    desk.github.trouble[7] = fail

    async def story() -> None:
        await desk.receive(7, bad, *good)
        await asyncio.sleep(60)
        assert set(desk.github.shas(7)) == {bad}
        await asyncio.sleep(30)
        assert await desk.waiting() == 1
        assert [sha for sha in desk.github.shas(7) if sha != bad] == good
        for _ in range(60):  # ten minutes
            skip(9)
            await asyncio.sleep(1)
        assert 10 <= desk.github.shas(7).count(bad) <= 20
        await desk.receive(7, "e" * 40)
        await asyncio.sleep(ASIDE_S + 1)
        assert "e" * 40 in desk.github.shas(7)

    desk.live(story)


def test_many_that_github_can_never_answer_leave_the_next_one_its_turn(desk: Desk) -> None:
    *bad, good = shas(9)

    async def fail(sha: str) -> None:
        if sha != good:
            raise Unavailable("502")

    desk.github.trouble[7] = fail

    async def story() -> None:
        await desk.receive(7, *bad)
        for _ in range(80):  # as if it were ten minutes
            skip(7)
            await asyncio.sleep(1)
        await desk.receive(7, good)
        await asyncio.sleep(30)
        assert good in desk.github.shas(7)
        desk.github.trouble.clear()
        await asyncio.sleep(120)
        assert await desk.waiting() == 0

    desk.live(story)


def test_a_rate_limit_is_waited_for(desk: Desk) -> None:
    async def story() -> None:
        desk.github.trouble[7] = failing(RateLimited("slowly", clock() + 3000))
        await desk.receive(7, *shas(2))
        await asyncio.sleep(1)
        skip(2990)
        await asyncio.sleep(8)
        assert desk.github.shas(7) == shas(1)
        await asyncio.sleep(5)
        assert await desk.waiting() == 0

    desk.live(story)


def test_a_commit_that_github_does_not_know_for_a_minute_runs_and_delays_nothing(desk: Desk) -> None:
    first, second = shas(2)

    async def fail(sha: str) -> None:
        if sha == first and clock() < EPOCH + 70:
            raise Gone("404")

    desk.github.trouble[7] = fail

    async def story() -> None:
        await desk.receive(7, first, second)
        await asyncio.sleep(1)
        assert second in desk.github.shas(7)
        await asyncio.sleep(130)
        assert await desk.waiting() == 0
        assert all("start digits" in outcome for outcome in await desk.books.read(outcomes))

    desk.live(story)


def test_a_commit_that_github_does_not_know_for_two_minutes_is_gone(desk: Desk) -> None:
    desk.github.trouble[7] = failing(*[Gone("404")] * 1000)

    async def story() -> None:
        await desk.receive(7, *shas(1))
        await asyncio.sleep(115)
        assert await desk.waiting() == 1
        await asyncio.sleep(25)
        assert await desk.books.read(outcomes) == ["gone: 404"]
        assert len(desk.github.asked) < 20

    desk.live(story)


def test_every_delivery_is_acted_on_once_however_often_the_loop_is_woken(desk: Desk) -> None:
    async def short(sha: str) -> None:
        await asyncio.sleep(0.01)

    desk.github.trouble = dict.fromkeys(range(1, 21), short)

    async def story() -> None:
        for _ in range(2):
            for number in range(1, 21):
                await desk.receive(number, *shas(2))
        for _ in range(60):
            desk.intake.wake.set()
            await asyncio.sleep(0.01)
        assert await desk.waiting() == 0

    desk.live(story)
    assert desk.intake.processed == 80
    assert all(desk.github.shas(number) == shas(2) * 2 for number in range(1, 21))


def test_what_was_being_acted_on_at_a_crash_is_acted_on_again(desk: Desk) -> None:
    async def hang(sha: str) -> None:
        await asyncio.sleep(1000)

    async def crash() -> None:
        await desk.receive(7, *shas(2))
        await asyncio.sleep(1)

    async def story() -> None:
        await asyncio.sleep(1)
        assert await desk.waiting() == 0

    desk.github.trouble[7] = hang
    desk.live(crash)
    desk.github.trouble.clear()
    desk.github.asked.clear()
    desk.__post_init__()
    desk.live(story)
    assert desk.github.shas(7) == shas(2)


def test_the_apps_name_is_asked_for_beside_the_loop_and_less_and_less_often(desk: Desk) -> None:
    desk.intake.app_slug = ""
    desk.github.names = [""] * 7 + ["descent"]

    async def story() -> None:
        await desk.receive(7, *shas(1))
        await asyncio.sleep(0.5)
        assert await desk.waiting() == 0
        await asyncio.sleep(150)

    desk.live(story)
    assert desk.intake.app_slug == "descent"
    assert desk.github.named_at == [0, 1, 3, 7, 15, 31, 63, 127]


def outcomes(connection: Connection) -> list[str]:
    return list(connection.scalars(delivery.select().with_only_columns(delivery.c.outcome)))
