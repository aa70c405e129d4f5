"""What GitHub's list of deliveries is asked for, and what becomes of it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import pytest

from ci_bot.github.answers import Delivery, StoredDelivery
from ci_bot.github.errors import GitHubError, Gone, RateLimited, Rejected, TooLarge, Unauthorized, Unavailable
from ci_bot.store import deliveries, marks
from ci_bot.store.inbox import Inbox
from ci_bot.worker import recovery
from ci_bot.worker.books import Books
from ci_bot.worker.recovery import LOOK_BACK_S, MARK, OVERLAP_S, PATIENCE_S, Recovery
from tests.fakes import EPOCH

DAY_S, HOUR_S = 86400.0, 3600.0


@dataclass
class FakeGitHub:
    """A list of deliveries, newest first, in pages of three."""

    sent: list[Delivery] = field(default_factory=list)
    troubles: dict[int, GitHubError] = field(default_factory=dict)
    """What is answered instead of a delivery."""
    empty: set[int] = field(default_factory=set)
    """Deliveries of which GitHub has not kept the payload."""
    since: list[float] = field(default_factory=list)
    asked: list[int] = field(default_factory=list)

    def send(self, at: float, guid: str = "") -> str:
        """A delivery that does not reach us."""
        number = len(self.sent) + 1
        self.sent.append(Delivery(number, guid or f"guid-{number}", "push", "", at, 502, False))
        return self.sent[-1].guid

    async def delivery_pages(self, since: float) -> AsyncIterator[tuple[Delivery, ...]]:
        self.since.append(since)
        listed = sorted((each for each in self.sent if each.delivered_at >= since), key=lambda each: -each.id)
        for start in range(0, len(listed), 3):
            yield tuple(listed[start : start + 3])

    async def delivery(self, delivery_id: int) -> StoredDelivery | None:
        self.asked.append(delivery_id)
        if trouble := self.troubles.get(delivery_id):
            raise trouble
        (found,) = (each for each in self.sent if each.id == delivery_id)
        return None if delivery_id in self.empty else StoredDelivery(found.guid, "push", b"%d" % delivery_id)


@dataclass
class Desk:
    """A recovery over a real store; time passes when told."""

    books: Books
    github: FakeGitHub = field(default_factory=FakeGitHub)
    now: float = EPOCH
    changes: int = 0

    def __post_init__(self) -> None:
        self.start()

    def start(self) -> None:
        """A worker that knows what is in the store."""

        def changed() -> None:
            self.changes += 1

        self.recovery = Recovery(self.books, self.github, True, changed, now=lambda: self.now)  # type: ignore[arg-type]

    def sweep(self) -> bool:
        async def once() -> bool:
            inbox = Inbox(self.books.engine)
            try:
                return await self.recovery.sweep(inbox)
            finally:
                inbox.close()

        return asyncio.run(once())

    def stored(self) -> list[deliveries.Delivery]:
        return asyncio.run(self.books.read(lambda c: deliveries.unsorted(c, 1e12)))

    def guids(self) -> list[str]:
        return [each.guid for each in self.stored()]

    def mark(self) -> float:
        return float(asyncio.run(self.books.read(lambda c: marks.get(c, MARK))) or 0.0)


@pytest.fixture
def desk(books: Books) -> Desk:
    return Desk(books)


def test_what_never_came_is_stored_oldest_first_with_the_time_it_was_sent(desk: Desk) -> None:
    for at in (EPOCH - 300, EPOCH - 200, EPOCH - 200, EPOCH - 250):
        desk.github.send(at)
    assert desk.sweep() is False
    assert desk.stored() == [
        deliveries.Delivery(1, "guid-1", "push", b"1", EPOCH - 300, "recovered"),
        deliveries.Delivery(2, "guid-4", "push", b"4", EPOCH - 250, "recovered"),
        deliveries.Delivery(3, "guid-2", "push", b"2", EPOCH - 200, "recovered"),
        deliveries.Delivery(4, "guid-3", "push", b"3", EPOCH - 200, "recovered"),
    ]
    assert (desk.recovery.recovered, desk.changes) == (4, 4)


def test_what_came_is_not_asked_for(desk: Desk) -> None:
    desk.github.send(EPOCH - 300)
    desk.sweep()
    desk.github.send(EPOCH - 100)
    desk.start()
    desk.sweep()
    assert desk.github.asked == [1, 2]


def test_a_redelivery_is_taken_once_at_the_time_of_the_first_try(desk: Desk) -> None:
    desk.github.send(EPOCH - 300, "same")
    desk.github.send(EPOCH - 100, "same")
    desk.sweep()
    assert [(each.guid, each.received_at) for each in desk.stored()] == [("same", EPOCH - 300)]


def test_the_first_sweep_looks_back_as_far_as_any_github_keeps_deliveries(desk: Desk) -> None:
    desk.github.send(EPOCH - 6.5 * DAY_S)
    desk.sweep()
    assert desk.github.since == [EPOCH - LOOK_BACK_S]
    assert desk.guids() == ["guid-1"]


@pytest.mark.parametrize("restarted", [False, True])
def test_the_next_sweep_goes_on_a_little_before_the_last_one(desk: Desk, restarted: bool) -> None:
    desk.sweep()
    late = desk.github.send(EPOCH - 500)  # it was not in the list yet
    desk.now += 1000
    if restarted:
        desk.start()
    desk.sweep()
    assert desk.github.since[1] == EPOCH - OVERLAP_S
    assert desk.guids() == [late]
    assert desk.mark() == EPOCH + 1000


def test_after_a_long_time_down_no_more_is_asked_for_than_there_can_be(desk: Desk) -> None:
    desk.sweep()
    desk.now += 30 * DAY_S
    desk.start()
    desk.sweep()
    assert desk.github.since[1] == desk.now - LOOK_BACK_S


# --- what GitHub does not give ---


@pytest.mark.parametrize(
    "trouble", [Gone("pruned"), Rejected("no", 422), TooLarge("64 MiB"), Unavailable("502"), GitHubError("odd"), None]
)
def test_one_delivery_that_github_does_not_give_stops_no_other(desk: Desk, trouble: GitHubError | None) -> None:
    for ago in (300, 200, 100):
        desk.github.send(EPOCH - ago)
    if trouble:
        desk.github.troubles[2] = trouble
    else:
        desk.github.empty.add(2)
    desk.sweep()
    assert desk.guids() == ["guid-1", "guid-3"]
    desk.github.send(EPOCH + 5)
    desk.now += 10
    desk.sweep()
    assert desk.guids() == ["guid-1", "guid-3", "guid-4"]


@pytest.mark.parametrize(
    ("trouble", "lost"), [(Gone("pruned"), 0), (Rejected("no", 422), 1), (TooLarge("64 MiB"), 1), (None, 0)]
)
def test_what_github_will_never_give_is_asked_for_once(desk: Desk, trouble: GitHubError | None, lost: int) -> None:
    desk.github.send(EPOCH - 100)
    if trouble:
        desk.github.troubles[1] = trouble
    else:
        desk.github.empty.add(1)
    for _ in range(3):
        desk.sweep()
        desk.now += 15
    assert desk.github.asked == [1]
    assert desk.recovery.lost == lost
    assert desk.mark() == EPOCH + 30


@pytest.mark.parametrize("restarted", [False, True])
def test_what_github_fails_to_give_is_asked_for_again(desk: Desk, restarted: bool) -> None:
    for ago in (5 * HOUR_S, 4 * HOUR_S):
        desk.github.send(EPOCH - ago)
    desk.github.troubles[1] = Unavailable("502")
    desk.sweep()
    assert desk.mark() == EPOCH - 5 * HOUR_S
    if restarted:
        desk.start()
    desk.now += 1000
    desk.github.troubles.clear()
    desk.sweep()
    assert desk.guids() == ["guid-2", "guid-1"]
    assert desk.mark() == EPOCH + 1000
    assert desk.github.asked == [1, 2, 1]
    assert desk.github.since[1] == (EPOCH - 5 * HOUR_S if restarted else EPOCH) - OVERLAP_S


def test_what_github_fails_to_give_is_not_asked_for_for_ever(desk: Desk) -> None:
    desk.github.send(EPOCH - 100)
    desk.github.troubles[1] = Unavailable("502")
    desk.sweep()
    desk.now += PATIENCE_S + 1
    desk.sweep()
    assert (desk.recovery.lost, desk.mark()) == (1, desk.now)
    desk.sweep()
    assert desk.github.asked == [1, 1]


def test_where_github_gives_nothing_at_all_the_sweep_is_put_off(desk: Desk) -> None:
    for ago in range(100, 0, -1):
        desk.github.troubles[len(desk.github.sent) + 1] = Unavailable("502")
        desk.github.send(EPOCH - ago)
    with pytest.raises(Unavailable):
        desk.sweep()
    assert len(desk.github.asked) <= 25
    desk.github.troubles.clear()
    desk.now += 2 * HOUR_S
    desk.sweep()
    assert desk.guids() == [f"guid-{number}" for number in range(1, 101)]
    assert desk.recovery.lost == 0


@pytest.mark.parametrize("trouble", [RateLimited("slowly", EPOCH + 60), Unauthorized("who?")])
def test_what_concerns_every_call_ends_the_sweep_and_the_next_one_goes_on(desk: Desk, trouble: GitHubError) -> None:
    for ago in (3 * HOUR_S, 2 * HOUR_S, HOUR_S):
        desk.github.send(EPOCH - ago)
    desk.github.troubles = {1: Unavailable("502")}
    desk.sweep()
    desk.github.send(EPOCH)
    desk.github.troubles = {1: trouble}
    with pytest.raises(type(trouble)):
        desk.sweep()
    desk.github.troubles.clear()
    desk.sweep()
    assert desk.guids() == ["guid-2", "guid-3", "guid-1", "guid-4"]


# --- long lists ---


def test_more_than_one_sweep_takes_up_is_taken_up_by_the_next_ones(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "MAX_MISSING", 4)
    for number in range(10):
        desk.github.send(EPOCH - 5 * DAY_S + number * HOUR_S)
    assert desk.sweep() is True
    assert desk.guids() == ["guid-1", "guid-2", "guid-3", "guid-4"]
    assert desk.mark() == EPOCH - 5 * DAY_S + 3 * HOUR_S
    desk.start()
    assert desk.sweep() is True
    assert desk.sweep() is False
    assert desk.guids() == [f"guid-{number}" for number in range(1, 11)]
    assert desk.mark() == EPOCH


def test_a_list_that_would_never_end_is_cut_and_that_is_told(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "MAX_PAGES", 2)
    for ago in range(10, 0, -1):
        desk.github.send(EPOCH - ago)
    desk.sweep()
    assert desk.guids() == [f"guid-{number}" for number in range(5, 11)]
    assert desk.recovery.lost == 1


# --- the loop ---


def test_what_was_processed_long_ago_is_forgotten(desk: Desk) -> None:
    desk.github.send(EPOCH - 100)
    desk.sweep()
    asyncio.run(desk.books.write(lambda c: deliveries.processed(c, 1, "done", EPOCH)))
    desk.now += deliveries.KEEP_S - 200
    desk.sweep()
    assert asyncio.run(desk.books.read(lambda c: deliveries.known(c, ["guid-1"]))) == {"guid-1"}
    desk.now += 200
    desk.sweep()
    assert asyncio.run(desk.books.read(lambda c: deliveries.known(c, ["guid-1"]))) == set()


def test_the_loop_does_not_pause_while_there_is_more(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "MAX_MISSING", 1)
    stop = asyncio.Event()

    def changed() -> None:
        if desk.recovery.recovered == 3:
            stop.set()

    for ago in (3, 2, 1):
        desk.github.send(EPOCH - ago * DAY_S)
    desk.recovery.changed = changed
    asyncio.run(asyncio.wait_for(desk.recovery.run(stop), 10))
    assert desk.guids() == ["guid-1", "guid-2", "guid-3"]


def test_a_sweep_that_failed_is_followed_by_another(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "POLL_S", 0.0)
    desk.github.send(EPOCH - 100)
    desk.github.troubles[1] = Unauthorized("who?")
    stop = asyncio.Event()

    def changed() -> None:
        stop.set()

    async def life() -> None:
        running = asyncio.create_task(desk.recovery.run(stop))
        await until(lambda: len(desk.github.asked) > 1)
        desk.github.troubles.clear()
        await running

    async def until(fact: Callable[[], bool]) -> None:
        while not fact():
            await asyncio.sleep(0)

    desk.recovery.changed = changed
    asyncio.run(asyncio.wait_for(life(), 10))
    assert desk.guids() == ["guid-1"]
