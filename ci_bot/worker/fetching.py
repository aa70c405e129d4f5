"""Commits on their way here: a few at a time, each once, tried again until it is known that it can't be had."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import structlog

from ci_bot.records import Experiment
from ci_bot.store.engine import LeaseLost
from ci_bot.worker.journal import Journal, Superseded
from launcher.keep import Keep
from launcher.state import Cause, Signal, State

CODE_S = 6 * 3600.0
DEFECT = "a defect of Descent's, see its log"
MAX_FETCHES = 4
MAX_PAUSE_S = 60.0
log = structlog.get_logger()


class SourceGone(Exception):
    """The commit can't be had any more."""


class SourceRefused(Exception):
    """The commit's files are not what we take."""


class SourceUnavailable(Exception):
    """The commit can't be had right now."""


class Source(Protocol):
    """Where the code of a commit comes from."""

    async def fetch(self, experiment: Experiment, destination: Path) -> tuple[str, ...]:
        """Put the archive there, whole or not at all; gives notes for the reader.

        Raises:
            SourceGone, SourceRefused, SourceUnavailable
        """

    def repository_url(self, experiment: Experiment) -> str:
        """The repository's address, as the experiment is told it."""


class OfCommit(Protocol):
    """What belongs to a commit of a repository."""

    @property
    def repository_id(self) -> int:
        """Whose."""

    @property
    def head_sha(self) -> str:
        """Which."""


def code_key(one: OfCommit) -> str:
    """What a commit's code is called on every node."""
    return f"{one.repository_id}-{one.head_sha}"


@dataclass
class Fetch:
    """What one experiment waits for, and when to try again."""

    key: str
    since: float
    task: asyncio.Task[None] | None = None
    tries: int = 0
    next_try_at: float = 0.0


@dataclass
class Fetching:
    """Brings the code of experiments that are CREATED, or whose code has gone since."""

    journal: Journal
    keep: Keep
    source: Source
    notes: Callable[[Experiment], list[str]]
    """What else a reader must know, once the code is here."""
    wake: Callable[[], None]
    now: Callable[[], float] = time.time
    _fetches: dict[int, Fetch] = field(default_factory=dict)

    def has(self, experiment: Experiment) -> bool:
        """Whether the code is here."""
        return self.keep.code(code_key(experiment)).path.exists()

    def want(self, experiment: Experiment) -> None:
        """Fetch it when it is due; experiments of one commit do so one after the other, and find it there."""
        since = experiment.created_at if experiment.state is State.CREATED else self.now()
        fetch = self._fetches.setdefault(experiment.id, Fetch(code_key(experiment), since))
        busy = [each.key for each in self._fetches.values() if each.task]
        due = fetch.task is None and fetch.next_try_at <= self.now()
        if due and len(busy) < MAX_FETCHES and fetch.key not in busy:
            fetch.task = asyncio.create_task(self._fetch(experiment, fetch))

    def seen_to(self) -> set[int]:
        """Those whose code is on its way, or not to be asked for yet."""
        now = self.now()
        return {number for number, fetch in self._fetches.items() if fetch.task or fetch.next_try_at > now}

    def forget(self, experiment_id: int) -> None:
        """Nobody waits for it any more."""
        fetch = self._fetches.pop(experiment_id, None)
        if fetch and fetch.task:
            fetch.task.cancel()

    async def leave(self) -> None:
        """Let go of everything that is on its way."""
        tasks = [fetch.task for fetch in self._fetches.values() if fetch.task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _fetch(self, experiment: Experiment, fetch: Fetch) -> None:
        try:
            await self._try(experiment, fetch)
        except (Superseded, LeaseLost):
            self._fetches.pop(experiment.id, None)  # somebody else moved it on
        except Exception:  # the database, say: it is tried again with what the rows say then
            log.exception("what became of a fetch could not be recorded", experiment_id=experiment.id)
        finally:
            fetch.task = None
            self.wake()

    async def _try(self, experiment: Experiment, fetch: Fetch) -> None:
        try:
            await self._bring(experiment, fetch)
        except (Superseded, LeaseLost):
            raise
        except SourceUnavailable as error:
            await self._not_yet(experiment, fetch, str(error))
        except Exception:
            # One commit that we can't digest must not hold up the others.
            log.exception("a commit could not be fetched: this is a defect of Descent's", experiment_id=experiment.id)
            await self._not_yet(experiment, fetch, DEFECT)

    async def _bring(self, experiment: Experiment, fetch: Fetch) -> None:
        try:
            notes = await self.source.fetch(experiment, self.keep.code(fetch.key).path)
        except SourceGone as error:
            await self._end(experiment, Cause.COMMIT_GONE, why=str(error))
        except SourceRefused as error:
            await self._end(experiment, Cause.REFUSED_ARCHIVE, why=str(error))
        else:
            if remarks := (*self.notes(experiment), *notes):
                await self.journal.remark(experiment.id, remarks)
            if experiment.state is State.CREATED:  # a new state has no reason to wait yet
                await self.journal.signal(experiment.id, experiment.progress, Signal.COMMIT_RESOLVED)
            else:
                await self.journal.note(experiment.id, pending_reason="")
            self._fetches.pop(experiment.id, None)

    async def _not_yet(self, experiment: Experiment, fetch: Fetch, why: str) -> None:
        """Try again later, and say so; at last it is over."""
        self._put_off(fetch)  # first: whatever becomes of the rest, it is not tried again at once
        waited_s = self.now() - fetch.since
        if waited_s > CODE_S:
            await self._end(experiment, Cause.NOT_FETCHABLE, waited_s=waited_s, why=why)
        else:
            await self.journal.note(experiment.id, pending_reason=f"Waits for the code: {why}")

    async def _end(self, experiment: Experiment, cause: Cause, **detail: object) -> None:
        await self.journal.end(experiment, cause, detail)
        self._fetches.pop(experiment.id, None)

    def _put_off(self, fetch: Fetch) -> None:
        fetch.tries += 1
        fetch.next_try_at = self.now() + min(2.0 ** min(fetch.tries, 6), MAX_PAUSE_S)
