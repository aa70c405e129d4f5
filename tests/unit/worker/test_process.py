"""What the worker process promises of its loops."""

import asyncio
from dataclasses import dataclass, field
from typing import Any, cast

from ci_bot.worker.books import Books
from ci_bot.worker.process import Loops, Signals, Worker
from launcher.backend import HeadLost
from tests.fakes import FakeBackend, play


@dataclass
class Loop:
    """A loop that runs until it is told to stop, and the launch loop's own."""

    begun: asyncio.Event = field(default_factory=asyncio.Event)
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    connected: bool = True

    async def run(self, stop: asyncio.Event) -> None:
        self.begun.set()
        await stop.wait()

    async def leave(self) -> None:
        """Nothing is driven here."""


class SlowBackend(FakeBackend):
    """A cluster that is reached at the second try."""

    async def connect(self, timeout_s: float = 60) -> None:
        await asyncio.sleep(timeout_s)
        if self.head_down:
            self.head_down = False
            raise HeadLost("not yet")


def test_the_loops_run_while_ray_is_not_reached_yet() -> None:
    async def main() -> None:
        launch, signals = Loop(), Signals()
        loops = Loops(*(cast("Any", each) for each in (Loop(), launch, Loop(), Loop())))
        books = cast("Books", type("Lasting", (), {"lost": asyncio.Event()}))
        worker = Worker(books, SlowBackend({}, head_down=True), loops, signals)
        working = asyncio.create_task(worker._work(1))
        await launch.begun.wait()
        assert not launch.connected
        await launch.wake.wait()
        assert launch.connected
        assert asyncio.get_running_loop().time() == 120
        assert not working.done()
        signals.stop.set()
        await working

    play(main())


def test_a_worker_that_never_reaches_ray_ends_at_once_when_told_to() -> None:
    async def main() -> None:
        launch, signals = Loop(), Signals()
        loops = Loops(*(cast("Any", each) for each in (Loop(), launch, Loop(), Loop())))
        books = cast("Books", type("Lasting", (), {"lost": asyncio.Event()}))
        working = asyncio.create_task(Worker(books, SlowBackend({}), loops, signals)._work(1))
        await launch.begun.wait()
        signals.stop.set()
        await working
        assert asyncio.get_running_loop().time() < 60

    play(main())
