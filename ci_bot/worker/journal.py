"""What happens to experiments, written into their rows; every write is a compare-and-swap under the lease."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from ci_bot.records import Experiment
from ci_bot.report.sentence import sentence
from ci_bot.store import experiments, quarantine, queue
from ci_bot.store.quarantine import Quarantined
from ci_bot.worker.books import Books
from launcher.experiment import Held
from launcher.state import Cause, Progress, Signal, advance

log = structlog.get_logger()


class Superseded(Exception):
    """The row moved under us; the next pass starts from what it says now."""


@dataclass(frozen=True)
class Journal:
    """Where the launch loop and its drives record facts."""

    books: Books
    changed: Callable[[], None]
    """Called when there is something to report."""
    moved: Callable[[int, Progress, Progress], None]
    """Called with the id, what was and what is now, once an experiment's progress is on record."""
    now: Callable[[], float] = time.time

    async def signal(
        self,
        experiment_id: int,
        expected: Progress,
        signal: Signal,
        cause: Cause | None = None,
        *,
        detail: dict[str, Any] | None = None,
        held: Held | None = None,
    ) -> Progress:
        """Record a fact and give the progress it leads to.

        Raises:
            Superseded: the row is not as expected any more.
            LeaseLost: another worker has taken over.
        """
        new = advance(expected, signal, cause)
        reason = sentence(cause, detail or {}) if cause else ""
        if signal is Signal.NOT_PLACED:
            reason = "Ray found no room within 30 s; it keeps its place in the queue."
        recorded = await self.books.write(
            lambda c: experiments.record(
                c, experiment_id, expected, new, at=self.now(), reason=reason, detail=detail, held=held
            )
        )
        if not recorded:
            raise Superseded(f"experiment {experiment_id} is not {expected.state} any more")
        log.info("state", experiment_id=experiment_id, state=str(new.state), attempt=new.attempt, reason=reason)
        self.moved(experiment_id, expected, new)
        self.changed()
        return new

    async def end(self, experiment: Experiment, cause: Cause, detail: Mapping[str, Any]) -> None:
        """End an experiment that holds nothing."""
        await self.signal(experiment.id, experiment.progress, Signal.ENDED, cause, detail=dict(detail))

    async def hold(self, experiment_id: int, expected: Progress, held: Held) -> None:
        """Record what the attempt holds.

        Raises:
            Superseded: the row is not as expected any more.
            LeaseLost: another worker has taken over.
        """
        unmoved = await self.books.write(
            lambda c: experiments.record(c, experiment_id, expected, expected, at=self.now(), held=held)
        )
        if not unmoved:
            raise Superseded(f"experiment {experiment_id} is not {expected.state} any more")
        self.changed()  # its nodes are shown

    async def quarantine(self, host: str, why: str) -> None:
        """No admissions on a host until its agent proves it clean."""
        log.error("host not proven clean", host=host, why=why)
        await self.books.write(lambda c: quarantine.add(c, Quarantined(host, why, self.now())))

    async def tell(self, pending_reasons: Mapping[int, str]) -> None:
        """Replace why those wait that still do, in one transaction."""
        if not pending_reasons:
            return
        if await self.books.write(lambda c: queue.tell(c, pending_reasons)):
            self.changed()

    async def note(self, experiment_id: int, **what: Any) -> None:
        """Replace what a reader is told besides the state."""
        if await self.books.write(lambda c: experiments.note(c, experiment_id, **what)):
            self.changed()

    async def remark(self, experiment_id: int, notes: Sequence[str]) -> None:
        """Add to what a reader is told; others may do so at the same time."""
        if await self.books.write(lambda c: experiments.remark(c, experiment_id, notes)):
            self.changed()
