"""The report loop: the check run that should be on GitHub, written where GitHub shows another."""

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

import structlog
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from ci_bot.github.client import GitHub
from ci_bot.github.errors import Forbidden, GitHubError, Gone, RateLimited, Rejected
from ci_bot.records import CheckRun, Experiment, Repository, Transition
from ci_bot.store import check_runs, experiments, repositories
from ci_bot.store.check_runs import CheckRunRow
from ci_bot.store.engine import LeaseLost
from ci_bot.worker.books import Books
from ci_bot.worker.waiting import any_of
from launcher.state import State

GAP_S = 1.0
"""Between two writes of one check run that is not completed; the newest state wins."""
PASSING_S = 10.0
"""How long a state that usually passes at once has to last before it is rendered; the timeline has each of them.

Meanwhile GitHub may be told of the state before."""
PASSING = frozenset({State.PENDING, State.PROVISIONED, State.NETWORK_SETUP, State.NETWORK_TEARDOWN})
PASS_S = 1.0
MAX_WAIT_S = 60.0
MAX_FORBIDDEN_S = 600.0
"""A suspension or a permission that is missing may last, and its end is told by a webhook."""
LAG_S = 4.0
MAX_WRITES = 64
MAX_WRITES_EACH = 8
"""Of one installation: its writes wait for their turn, and those of others must not wait behind them."""
BATCH = 100
REJECTED_S = 10.0
GONE_TRIES = 8
"""About three minutes."""
ANNOTATIONS = 50
"""How many one request may carry."""
Due = tuple[list[CheckRunRow], dict[int, Repository]]
"""What may be sent, and the repositories that it goes to."""
Fresh = list[tuple[Experiment, tuple[Transition, ...]]]
"""What is to be rendered, with its timeline."""
log = structlog.get_logger()


@dataclass
class Reporting:
    """Renders what changed, then sends what GitHub does not show yet."""

    books: Books
    github: GitHub
    render: Callable[[Experiment, tuple[Transition, ...]], CheckRun]
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    delivered: int = 0
    undeliverable: int = 0
    now: Callable[[], float] = time.time
    _sending: dict[int, asyncio.Task[None]] = field(default_factory=dict)
    _held: dict[int, float] = field(default_factory=dict)
    """Installations that GitHub has told to wait, and until when."""
    _unshown: dict[int, float] = field(default_factory=dict)
    """Experiments that could not be rendered, and when to try again."""
    _through: dict[int, int] = field(default_factory=dict)
    """The installations of the check runs that are being sent."""
    _unsure: dict[int, float] = field(default_factory=dict)
    """Check runs of which GitHub may have more than could be stored, and when to try again."""
    _doubtful: int | None = None
    """The newest row that a former worker may have sent without hearing GitHub's answer."""

    async def run(self, stop: asyncio.Event) -> None:
        """Pass after pass until told to stop."""
        while not stop.is_set():
            self.wake.clear()  # before the rows are read: what comes during the pass is not slept over
            wait_s = await self.step()
            await any_of(self.wake, stop, limit_s=wait_s)
        await asyncio.gather(*self._sending.values(), return_exceptions=True)

    async def step(self) -> float:
        """One pass; gives the seconds after which another is of use."""
        if self._doubtful is None:
            self._doubtful = await self.books.read(check_runs.last_id)
        busy = set(self._sending)  # a row that is read while it is sent does not know of GitHub's answer yet
        fresh, (due, known) = await self.books.read(self._read)
        for experiment, history in fresh:
            await self._show(experiment, history)
        if fresh:
            busy = set(self._sending)
            due, known = await self.books.read(self._due)
        wait_s = PASS_S if len(fresh) < BATCH else 0.0
        for row in due:
            if row.id in busy or row.id in self._sending or len(self._sending) >= MAX_WRITES:
                continue
            repository = known.get(row.repository_id)
            installation_id = repository.installation_id if repository else 0
            if list(self._through.values()).count(installation_id) >= MAX_WRITES_EACH:
                continue
            if (pause_s := self._not_before(row) - self.now()) > 0:
                wait_s = min(wait_s, pause_s)
                continue
            task = asyncio.create_task(self._send(row, repository))
            self._sending[row.id], self._through[row.id] = task, installation_id
            task.add_done_callback(partial(self._sent, row.id))
        return wait_s

    def _read(self, connection: Connection) -> tuple[Fresh, Due]:
        """What is to be rendered or, where nothing is, what may be sent."""
        fresh = experiments.unreported(connection, BATCH, passing=PASSING, before=self.now() - PASSING_S)
        if not fresh:
            return [], self._due(connection)
        histories = experiments.timelines(connection, [each.id for each in fresh])
        return [(each, tuple(histories[each.id])) for each in fresh], ([], {})

    def _due(self, connection: Connection) -> Due:
        rows = check_runs.due(connection, self.now())
        return rows, repositories.known(connection, {row.repository_id for row in rows}) if rows else {}

    def _not_before(self, row: CheckRunRow) -> float:
        """When a check run may be written: GitHub gets the first word and the last at once."""
        unsure = self._unsure.get(row.id, 0.0)
        if row.completed or row.acknowledged_at is None:
            return unsure
        return max(unsure, row.acknowledged_at + GAP_S)

    def _sent(self, row_id: int, task: asyncio.Task[None]) -> None:
        del self._sending[row_id], self._through[row_id]
        if not task.cancelled() and (error := task.exception()):
            log.error("not sent", check_run=row_id, why=str(error))
        self.wake.set()

    async def _show(self, experiment: Experiment, history: tuple[Transition, ...]) -> None:
        if self._unshown.get(experiment.id, 0.0) > self.now():
            return
        try:
            await self._render(experiment, history)
        except (LeaseLost, SQLAlchemyError):
            raise
        except Exception:
            # One experiment that we can't put into words must not silence the others.
            log.exception("not rendered: this is a defect of Descent's", experiment_id=experiment.id)
            self._unshown[experiment.id] = self.now() + MAX_WAIT_S
        else:
            self._unshown.pop(experiment.id, None)

    async def _render(self, experiment: Experiment, history: tuple[Transition, ...]) -> None:
        wanted = await asyncio.to_thread(self.render, experiment, history)

        def want(connection: Connection) -> None:
            check_runs.want(
                connection,
                wanted,
                repository_id=experiment.repository_id,
                experiment_id=experiment.id,
                experiment_version=experiment.version,
            )
            experiments.reported(connection, experiment.id, experiment.version)

        await self.books.write(want)

    async def _send(self, row: CheckRunRow, repository: Repository | None) -> None:
        try:
            await self._deliver(row, repository)
        except LeaseLost:
            raise
        except Exception:
            # One check run that we can't digest must neither be given up nor hold up the others. Where it is the
            # database that is away, GitHub may have done what we shall not remember.
            log.exception("a check run could not be sent: this is a defect of Descent's", check_run=row.id)
            self._unsure[row.id] = self.now() + MAX_WAIT_S
            newest = await self.books.read(lambda c: check_runs.newest(c, row.repository_id, row.head_sha, row.name))
            if row.tries < GONE_TRIES or newest is None or newest.id == row.id:
                await self.books.write(lambda c: check_runs.failed(c, row.id, self.now() + MAX_WAIT_S))
            else:
                await self._give_up(row, "a defect of Descent's, and a newer one of its name waits for it")

    async def _deliver(self, row: CheckRunRow, repository: Repository | None) -> None:
        if repository is None:
            await self._give_up(row, "the repository is unknown")
            return
        held_s = self._held.get(repository.installation_id, 0.0) - self.now()
        if held_s > 0:
            await self.books.write(lambda c: check_runs.postponed(c, row.id, self.now() + held_s))
            return
        try:
            await self._write_or_bare(repository, row)
        except Gone as error:
            present = await self.books.read(lambda c: repositories.get(c, row.repository_id))
            # GitHub may lag behind itself; the end must not be lost to one wrong answer, unless a webhook says so too
            if present and row.tries < GONE_TRIES:
                pause_s = min(2.0**row.tries, MAX_WAIT_S)
                await self.books.write(lambda c: check_runs.failed(c, row.id, self.now() + pause_s))
            else:
                await self._give_up(row, str(error))
        except Rejected as error:
            if row.completed:
                await self._give_up(row, str(error))
            else:  # what is wanted next may please better, and the end must be delivered
                log.error("github rejects a check run", name=row.name, head_sha=row.head_sha, why=str(error))
                await self.books.write(lambda c: check_runs.failed(c, row.id, self.now() + REJECTED_S))
        except RateLimited as error:
            until = self._held[repository.installation_id] = error.until
            log.warning("github asks to wait", repository=repository.full_name, until=until)
            await self.books.write(lambda c: check_runs.postponed(c, row.id, until))
        except GitHubError as error:
            most_s = MAX_FORBIDDEN_S if isinstance(error, Forbidden) else MAX_WAIT_S
            pause_s = min(2.0 ** min(row.tries, 10), most_s) * random.uniform(0.5, 1.0)  # noqa: S311 - no secret
            if row.github_id is None or row.annotations_sent < len(row.wanted.annotations):
                # It may be there all the same, and is looked for in lists that lag behind.
                pause_s = max(pause_s, LAG_S)
            log.warning("github can't be written to", repository=repository.full_name, why=str(error))
            await self.books.write(lambda c: check_runs.failed(c, row.id, self.now() + pause_s))
        else:
            self.delivered += 1

    async def _write_or_bare(self, repository: Repository, row: CheckRunRow) -> None:
        """An end that GitHub rejects for what is in it is written without that: it must not stay open for its words."""
        try:
            await self._write(repository, row)
        except Rejected as error:
            if not row.completed:
                raise
            log.error("github rejects a check run", name=row.name, head_sha=row.head_sha, why=str(error))
            await self._write(repository, replace(row, wanted=bare(row.wanted)))

    async def _write(self, repository: Repository, row: CheckRunRow) -> None:
        """Create or update, until GitHub has every annotation; what may be there already is looked up first."""
        known = None
        total = len(row.wanted.annotations)
        in_doubt = row.tries > 0 or row.id <= (self._doubtful or 0) or row.id in self._unsure
        if in_doubt and (row.github_id is None or row.annotations_sent < total):
            known = await self.github.find_check_run(repository, row.head_sha, row.name, row.wanted.external_id)
        github_id = known.id if known else row.github_id
        sent = known.annotations if known else row.annotations_sent
        first = True
        while first or sent < total:
            if github_id is None:
                github_id = (await self.github.create_check_run(repository, row.wanted)).id
                sent = 0
            else:
                await self.github.update_check_run(repository, github_id, row.wanted, sent)
            sent, first = min(sent + ANNOTATIONS, total), False
            digest = row.wanted_digest if sent >= total else row.acknowledged_digest
            await self._acknowledge(row, digest, github_id, sent)

    async def _acknowledge(self, row: CheckRunRow, digest: str, github_id: int, annotations_sent: int) -> None:
        await self.books.write(
            lambda c: check_runs.acknowledged(
                c,
                row.id,
                digest=digest,
                github_id=github_id,
                annotations_sent=annotations_sent,
                at=self.now(),
            )
        )
        self._unsure.pop(row.id, None)

    async def _give_up(self, row: CheckRunRow, why: str) -> None:
        self.undeliverable += 1
        log.error("check run is undeliverable", name=row.name, head_sha=row.head_sha, why=why)
        await self.books.write(lambda c: check_runs.undeliverable(c, row.id, why))


def bare(run: CheckRun) -> CheckRun:
    """The same verdict with nothing to object to. Pure."""
    where = " Its page has the rest." if run.details_url else ""
    words = {"title": run.conclusion or "", "summary": f"GitHub rejected what was to be said here.{where}"}
    return run.model_copy(update={**words, "text": "", "annotations": (), "buttons": ()})
