"""The worker process: takes the lease, runs the loops beside one another, and ends them in order."""

import asyncio
import signal
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from ci_bot.nudge import Listener
from ci_bot.store.engine import LeaseLost
from ci_bot.worker.books import Books
from ci_bot.worker.intake import Intake
from ci_bot.worker.launch import Launch
from ci_bot.worker.recovery import Recovery
from ci_bot.worker.reporting import Reporting
from ci_bot.worker.waiting import any_of
from launcher.backend import Backend, BackendError

LAST_REPORTS_S = 5.0
log = structlog.get_logger()


@dataclass(frozen=True)
class Loops:
    """The worker's loops."""

    intake: Intake
    launch: Launch
    reporting: Reporting
    recovery: Recovery

    def wake(self) -> None:
        """Something came in or was wished."""
        self.intake.wake.set()
        self.launch.wake.set()
        self.reporting.wake.set()


@dataclass(frozen=True)
class Signals:
    """What the operator asks for."""

    stop: asyncio.Event = field(default_factory=asyncio.Event)
    """End."""
    drain: asyncio.Event = field(default_factory=asyncio.Event)
    """Put what runs back into the queue before that."""

    @classmethod
    def of_this_process(cls) -> "Signals":
        """Set by SIGTERM and SIGINT; `drain` only by SIGINT."""
        signals, loop = cls(), asyncio.get_running_loop()

        def drained() -> None:
            signals.drain.set()
            signals.stop.set()

        loop.add_signal_handler(signal.SIGTERM, signals.stop.set)
        loop.add_signal_handler(signal.SIGINT, drained)
        return signals


@dataclass(frozen=True)
class Worker:
    """One worker under its lease."""

    books: Books
    backend: Backend
    loops: Loops
    signals: Signals

    async def run(self, nudges: Path, *, drain_s: float) -> int:
        """Work until a signal or until the lease is lost; gives the exit code.

        Args:
            nudges: the socket on which others say that there is something to do.
            drain_s: how long what runs may take to go back into the queue.
        """
        if not await self._lease():
            return 0
        listener = Listener(nudges, self.loops.wake)
        try:
            await self._work(drain_s)
        except LeaseLost as error:
            log.error("another worker took over", why=str(error))
            return 1
        finally:
            listener.close()
        return 0

    async def _lease(self) -> bool:
        """Whether the lease was had before it was time to end."""
        opening = asyncio.create_task(self.books.open())
        stopped = asyncio.create_task(self.signals.stop.wait())
        await asyncio.wait({opening, stopped}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if opening.done():
            opening.result()
            return True
        opening.cancel()
        return False

    async def _work(self, drain_s: float) -> None:
        stop, launch = self.signals.stop, self.loops.launch
        connecting = asyncio.create_task(self._connect(), name="connect")  # begins before the launch loop does
        launching = asyncio.create_task(launch.run(stop), name="launch")
        tasks = [
            connecting,
            launching,
            asyncio.create_task(self.loops.intake.run(stop), name="intake"),
            asyncio.create_task(self.loops.recovery.run(stop), name="recovery"),
            asyncio.create_task(self._watch_lease(), name="lease"),
        ]
        report_stop = asyncio.Event()
        reporting = asyncio.create_task(self.loops.reporting.run(report_stop), name="report")
        try:
            done, _ = await asyncio.wait({*tasks, reporting}, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            await launching  # the others may be waiting for GitHub, and what runs must not wait for that
            if self.signals.drain.is_set():
                log.info("putting what runs back into the queue")
                await launch.drain(drain_s)
        finally:
            for task in tasks:
                task.cancel()
            await launch.leave()
            report_stop.set()
            await asyncio.wait({reporting}, timeout=LAST_REPORTS_S)
            reporting.cancel()
            await asyncio.gather(*tasks, reporting, return_exceptions=True)

    async def _connect(self) -> None:
        """Reach the cluster, beside everything else; comes back at the end, as the loops do."""
        launch = self.loops.launch
        launch.connected = False
        while not launch.connected:
            try:
                await self.backend.connect()
                launch.connected = True
            except BackendError as error:
                log.warning("ray can't be reached", why=str(error))
        launch.wake.set()
        await self.signals.stop.wait()

    async def _watch_lease(self) -> None:
        while not self.signals.stop.is_set():
            if self.books.lost.is_set():
                raise LeaseLost("the lease was not renewed in time")
            await any_of(self.signals.stop, limit_s=0.5)
