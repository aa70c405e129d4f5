"""What the report loop promises, over a real store and a GitHub that behaves as told."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count, pairwise
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from ci_bot.github.answers import PostedCheckRun
from ci_bot.github.errors import Forbidden, Gone, RateLimited, Rejected, Unavailable
from ci_bot.records import Annotation, CheckRun, Claim, ClaimKind, Experiment, Repository
from ci_bot.store import check_runs, experiments, repositories
from ci_bot.store.experiments import Draft
from ci_bot.worker.books import Books
from ci_bot.worker.reporting import Reporting
from launcher.experiment import NodeGroup, Role, Specification
from launcher.state import Cause, Signal, advance
from tests.fakes import clock, play, skip

SPECIFICATION = Specification(name="digits", topology="single", groups=(NodeGroup(role=Role.WORKER, command="true"),))


def wanted(
    title: str, *, name: str = "descent/a", completed: bool = False, annotations: int = 0, owner: int = 1
) -> CheckRun:
    remarks = tuple(
        Annotation(path="a", start_line=line, end_line=line, level="notice", title="t", message="m")
        for line in range(1, annotations + 1)
    )
    return CheckRun(
        name=name,
        head_sha="a" * 40,
        status="completed" if completed else "in_progress",
        conclusion="success" if completed else None,
        title=title,
        summary="s",
        annotations=remarks,
        external_id=str(owner),
    )


@dataclass
class FakeGitHub:
    """Check runs as GitHub has them; the next calls raise `faults`, some after they were done."""

    shown: dict[int, CheckRun] = field(default_factory=dict)
    annotations: dict[int, list[Annotation]] = field(default_factory=dict)
    calls: list[tuple[str, str, float]] = field(default_factory=list)
    faults: list[Exception] = field(default_factory=list)
    lost_answers: int = 0
    ids: Iterator[int] = field(default_factory=lambda: count(1))
    refuses: Callable[[CheckRun], Exception | None] = lambda run: None

    async def create_check_run(self, repo: Repository, run: CheckRun) -> PostedCheckRun:
        return await self._write("create", repo, next(self.ids), run, 0)

    async def update_check_run(self, repo: Repository, github_id: int, run: CheckRun, start: int) -> PostedCheckRun:
        return await self._write("update", repo, github_id, run, start)

    async def _write(self, call: str, repo: Repository, github_id: int, run: CheckRun, start: int) -> PostedCheckRun:
        self.calls.append((call, run.title, asyncio.get_running_loop().time()))
        await asyncio.sleep(0.01)
        refusal = self.faults.pop(0) if self.faults else self.refuses(run)
        if refusal:
            raise refusal
        self.shown[github_id] = run
        self.annotations.setdefault(github_id, []).extend(run.annotations[start : start + 50])
        if self.lost_answers:
            self.lost_answers -= 1
            raise Unavailable("the answer was lost")
        return self._posted(github_id)

    async def find_check_run(self, repo: Repository, sha: str, name: str, external_id: str) -> PostedCheckRun | None:
        self.calls.append(("find", name, asyncio.get_running_loop().time()))
        await asyncio.sleep(0.01)
        found = [
            github_id for github_id, run in self.shown.items() if (run.name, run.external_id) == (name, external_id)
        ]
        return self._posted(found[-1]) if found else None

    def _posted(self, github_id: int) -> PostedCheckRun:
        run = self.shown[github_id]
        held = len(self.annotations[github_id])
        return PostedCheckRun(github_id, run.name, run.head_sha, run.external_id, run.status, run.conclusion, held)

    def newest(self) -> CheckRun:
        return self.shown[max(self.shown)]

    def made(self, call: str) -> list[str]:
        return [title for made, title, _ in self.calls if made == call]


@dataclass
class Desk:
    """A report loop with all that it needs."""

    books: Books
    github: FakeGitHub = field(default_factory=FakeGitHub)
    render: Callable[[Experiment, Any], CheckRun] = lambda experiment, history: wanted(str(experiment.state))

    async def want(self, run: CheckRun, repository_id: int = 1, experiment_id: int | None = None) -> int:
        row = await self.books.write(
            lambda c: check_runs.want(c, run, repository_id=repository_id, experiment_id=experiment_id)
        )
        self.reporting.wake.set()
        return row.id

    async def row(self, row_id: int) -> check_runs.CheckRunRow:
        found = await self.books.read(lambda c: check_runs.get(c, row_id))
        assert found
        return found

    async def experiment(self, name: str, rerun: int = 0) -> int:
        draft = Draft(1, 1, "octo/a", "a" * 40, "refs/heads/main", name, SPECIFICATION, "config.yaml", "", rerun=rerun)
        claim = Claim(ClaimKind.BRANCH, "refs/heads/main")
        return (await self.books.write(lambda c: experiments.create(c, draft, claim, clock())))[0]


def told(desk: Desk, story: Callable[[Desk], Any]) -> None:
    """Play a story while the loop runs."""

    async def main() -> None:
        for repository_id, installation_id in ((1, 1), (2, 1), (3, 2)):
            known = Repository(repository_id, installation_id, f"octo/r{repository_id}", "main")
            await desk.books.write(lambda c, known=known: repositories.remember(c, known))  # type: ignore[misc]
        desk.reporting = Reporting(desk.books, desk.github, desk.render, now=clock)  # type: ignore[arg-type]
        stop = asyncio.Event()
        loop = asyncio.create_task(desk.reporting.run(stop))
        await asyncio.sleep(0.5)
        try:
            await story(desk)
        finally:
            stop.set()
            await asyncio.gather(loop, return_exceptions=True)
        loop.result()

    play(main())


@pytest.fixture
def desk(books: Books) -> Desk:
    return Desk(books)


def test_states_that_come_faster_than_once_a_second_are_coalesced_and_the_newest_is_shown(desk: Desk) -> None:
    async def story(desk: Desk) -> None:
        for number in range(40):
            await desk.want(wanted(f"state {number}"))
            await asyncio.sleep(0.1)
        await asyncio.sleep(2)
        at = [when for _, _, when in desk.github.calls]
        assert all(later - earlier >= 1 for earlier, later in pairwise(at))
        assert 4 <= len(at) <= 6
        assert desk.github.newest().title == "state 39"

    told(desk, story)


def test_the_first_state_and_the_end_are_written_at_once(desk: Desk) -> None:
    async def story(desk: Desk) -> None:
        began = asyncio.get_running_loop().time()
        await desk.want(wanted("running"))
        await asyncio.sleep(0.1)
        await desk.want(wanted("done", completed=True))
        await asyncio.sleep(0.2)
        assert [title for _, title, _ in desk.github.calls] == ["running", "done"]
        assert desk.github.calls[-1][2] - began < 0.2

    told(desk, story)


def test_what_github_shows_already_is_not_written_again(desk: Desk) -> None:
    async def story(desk: Desk) -> None:
        for _ in range(5):
            await desk.want(wanted("running"))
            await asyncio.sleep(2)
        assert len(desk.github.calls) == 1

    told(desk, story)


def test_a_rate_limit_holds_the_whole_installation_and_no_other_and_costs_no_lookups(desk: Desk) -> None:
    async def story(desk: Desk) -> None:
        desk.github.faults = [RateLimited("slow down", clock() + 100)]
        await desk.want(wanted("first"))
        await asyncio.sleep(1)
        await desk.want(wanted("second", name="descent/b"), repository_id=2)
        await desk.want(wanted("other", name="descent/c"), repository_id=3)
        await asyncio.sleep(90)
        assert [title for _, title, _ in desk.github.calls] == ["first", "other"]
        await asyncio.sleep(20)
        assert sorted(run.title for run in desk.github.shown.values()) == ["first", "other", "second"]
        assert desk.github.made("find") == []

    told(desk, story)


def test_a_github_that_is_down_is_tried_with_growing_pauses_without_end(desk: Desk) -> None:
    async def story(desk: Desk) -> None:
        desk.github.faults = [Unavailable("502")] * 12
        await desk.want(wanted("done", completed=True))
        await asyncio.sleep(900)
        at = [when for call, _, when in desk.github.calls if call == "create"]
        pauses = [later - earlier for earlier, later in pairwise(at)]
        assert len(at) == 13
        assert pauses[0] < 5
        assert max(pauses) <= 62
        assert desk.github.newest().title == "done"

    told(desk, story)


def test_a_check_run_that_failed_more_often_than_a_number_can_hold_is_still_tried(desk: Desk) -> None:
    async def story(desk: Desk) -> None:
        desk.github.faults = [Unavailable("502")]
        row = await desk.want(wanted("done", completed=True))
        await desk.books.write(lambda c: [check_runs.failed(c, row, 0.0) for _ in range(1100)])
        desk.reporting.wake.set()
        await asyncio.sleep(200)
        assert desk.github.newest().title == "done"

    told(desk, story)


def test_the_end_survives_wrong_answers_that_a_commit_is_gone(desk: Desk) -> None:
    async def story(desk: Desk) -> None:
        desk.github.faults = [Gone("404")] * 3
        await desk.want(wanted("done", completed=True))
        await asyncio.sleep(60)
        assert desk.github.newest().title == "done"

    told(desk, story)


def test_a_repository_that_stays_gone_makes_it_undeliverable(desk: Desk) -> None:
    async def story(desk: Desk) -> None:
        desk.github.refuses = lambda run: Gone("404")
        gone, removed = await desk.want(wanted("done")), await desk.want(wanted("x", name="b"), repository_id=77)
        await asyncio.sleep(5)
        assert (await desk.row(removed)).undeliverable
        assert not (await desk.row(gone)).undeliverable
        await asyncio.sleep(600)
        assert (await desk.row(gone)).undeliverable
        assert desk.reporting.undeliverable == 2

    told(desk, story)


def test_a_state_that_github_rejects_does_not_cost_the_end(desk: Desk) -> None:
    async def story(desk: Desk) -> None:
        desk.github.refuses = lambda run: None if run.status == "completed" else Rejected("422", 422)
        row = await desk.want(wanted("running"))
        await asyncio.sleep(1)
        await desk.want(wanted("done", completed=True))
        await asyncio.sleep(30)
        assert desk.github.newest().title == "done"
        assert (await desk.row(row)).undeliverable is None

    told(desk, story)


def test_an_end_that_github_rejects_for_its_words_is_written_without_them(desk: Desk) -> None:
    async def story(desk: Desk) -> None:
        desk.github.refuses = lambda run: Rejected("422", 422) if run.annotations else None
        row = await desk.want(wanted("done", completed=True, annotations=60))
        await asyncio.sleep(30)
        assert (desk.github.newest().status, desk.github.newest().conclusion) == ("completed", "success")
        assert (await desk.row(row)).undeliverable is None
        assert [call for call, _, _ in desk.github.calls] == ["create", "create"]

    told(desk, story)


def test_an_end_that_github_rejects_whatever_it_says_is_undeliverable(desk: Desk) -> None:
    async def story(desk: Desk) -> None:
        desk.github.refuses = lambda run: Rejected("422", 422)
        row = await desk.want(wanted("done", completed=True))
        await asyncio.sleep(30)
        assert (await desk.row(row)).undeliverable
        assert len(desk.github.calls) == 2

    told(desk, story)


def test_a_create_whose_answer_was_lost_is_looked_up_before_it_is_made_again(desk: Desk) -> None:
    async def story(desk: Desk) -> None:
        desk.github.lost_answers = 1
        await desk.want(wanted("running"))
        await asyncio.sleep(30)
        assert [call for call, _, _ in desk.github.calls] == ["create", "find", "update"]
        assert len(desk.github.shown) == 1

    told(desk, story)


def test_a_create_of_a_worker_that_died_is_looked_up_by_the_next_one(desk: Desk) -> None:
    async def before() -> None:
        await desk.books.write(lambda c: check_runs.want(c, wanted("running"), repository_id=1))
        await desk.github.create_check_run(Repository(1, 1, "octo/r1", "main"), wanted("running"))

    async def story(desk: Desk) -> None:
        await asyncio.sleep(5)
        assert [call for call, _, _ in desk.github.calls] == ["create", "find", "update"]
        assert len(desk.github.shown) == 1

    play(before())
    told(desk, story)


@pytest.mark.parametrize("lost", [0, 1])
def test_more_than_50_annotations_follow_in_further_requests_and_none_twice(desk: Desk, lost: int) -> None:
    async def story(desk: Desk) -> None:
        desk.github.lost_answers = lost
        await desk.want(wanted("done", completed=True, annotations=120))
        await asyncio.sleep(30)
        assert [each.start_line for each in desk.github.annotations[min(desk.github.annotations)]] == list(
            range(1, 121)
        )

    told(desk, story)


def test_an_experiment_that_can_not_be_rendered_silences_no_other(desk: Desk) -> None:
    def render(experiment: Experiment, history: Any) -> CheckRun:
        if experiment.name == "bad":
            raise ValueError("a defect")
        return wanted("fine", name="descent/good")

    desk.render = render

    async def story(desk: Desk) -> None:
        await desk.experiment("bad")
        await desk.experiment("good")
        await asyncio.sleep(5)
        assert [run.title for run in desk.github.shown.values()] == ["fine"]

    told(desk, story)


def test_a_row_that_was_read_before_its_answer_came_is_not_created_again(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = desk.books.read

    async def slowly(work: Callable[[Any], Any]) -> Any:
        found = await read(work)
        await asyncio.sleep(0.015)  # longer than GitHub takes: what was read is old when it comes
        return found

    async def story(desk: Desk) -> None:
        monkeypatch.setattr(desk.books, "read", slowly)
        for number in range(20):
            await desk.want(wanted(f"state {number}", completed=True))
            for _ in range(10):
                desk.reporting.wake.set()
                await asyncio.sleep(0.01)
        assert len(desk.github.made("create")) == 1

    told(desk, story)


def test_a_walk_costs_four_writes_however_slow_its_states_are_and_a_state_that_lasts_is_shown(desk: Desk) -> None:
    async def walk(experiment_id: int, pause_s: float) -> None:
        for signal in (
            Signal.COMMIT_RESOLVED,
            Signal.ADMITTED,
            Signal.NODES_READY,
            Signal.NODES_REPORTED,
            Signal.COMMANDS_STARTED,
        ):
            await asyncio.sleep(pause_s)
            await forward(experiment_id, signal)

    async def forward(experiment_id: int, signal: Signal, cause: Cause | None = None) -> None:
        found = await desk.books.read(lambda c: experiments.get(c, experiment_id))
        assert found
        new = advance(found.progress, signal, cause)
        await desk.books.write(lambda c: experiments.record(c, found.id, found.progress, new, at=clock()))
        desk.reporting.wake.set()

    async def story(desk: Desk) -> None:
        await desk.experiment("quick")
        await walk(1, 3.0)
        await asyncio.sleep(2)
        assert desk.github.made("create") + desk.github.made("update") == ["CREATED", "PROVISIONING", "RUNNING"]
        await asyncio.sleep(600)
        await forward(1, Signal.ENDED, Cause.SUCCEEDED)
        await asyncio.sleep(3)
        assert len(desk.github.made("create") + desk.github.made("update")) == 3
        await forward(1, Signal.RELEASED)
        await asyncio.sleep(3)
        assert len(desk.github.made("create") + desk.github.made("update")) == 4
        await desk.experiment("slow")
        await forward(2, Signal.COMMIT_RESOLVED)
        await asyncio.sleep(15)
        assert desk.github.newest().title == "PENDING"

    told(desk, story)


# --- two check runs of one name ---


def show_runs(desk: Desk) -> None:
    """Experiments are shown by their number; the first has ended."""
    desk.render = lambda experiment, history: wanted(
        f"run {experiment.id}", completed=experiment.id == 1, owner=experiment.id
    )


@pytest.mark.parametrize(("failures", "lost"), [(1, 0), (5, 0), (1, 2)])
def test_a_rerun_is_written_after_the_check_run_that_it_replaces(desk: Desk, failures: int, lost: int) -> None:
    show_runs(desk)
    desk.github.faults = [Unavailable("502")] * failures
    desk.github.lost_answers = lost

    async def story(desk: Desk) -> None:
        await desk.experiment("digits")
        await desk.experiment("digits", rerun=1)
        await asyncio.sleep(100)
        assert [run.title for _, run in sorted(desk.github.shown.items())] == ["run 1", "run 2"]

    told(desk, story)


def test_a_check_run_that_can_not_be_delivered_holds_up_no_rerun(desk: Desk) -> None:
    show_runs(desk)
    desk.github.refuses = lambda run: Rejected("422", 422) if run.title == "run 1" else None

    async def story(desk: Desk) -> None:
        await desk.experiment("digits")
        await desk.experiment("digits", rerun=1)
        await asyncio.sleep(5)
        assert desk.github.newest().title == "run 2"

    told(desk, story)


def test_a_defect_of_ours_in_one_check_run_does_not_hold_up_its_reruns_for_good(desk: Desk) -> None:
    show_runs(desk)
    desk.github.refuses = lambda run: ValueError("a defect") if run.title == "run 1" else None

    async def story(desk: Desk) -> None:
        await desk.experiment("digits")
        await desk.experiment("digits", rerun=1)
        for _ in range(12):
            skip(60)
            await asyncio.sleep(2)
        assert desk.github.newest().title == "run 2"

    told(desk, story)


# --- what GitHub does not let us do for now ---


def test_while_an_installation_is_suspended_nothing_is_given_up_and_github_is_seldom_asked(desk: Desk) -> None:
    async def story(desk: Desk) -> None:
        desk.github.refuses = lambda run: Forbidden("This installation has been suspended")
        await desk.books.write(lambda c: repositories.removed(c, 1, clock()))
        row = await desk.want(wanted("done", completed=True))
        await asyncio.sleep(60)
        for _ in range(48):
            skip(595)
            await asyncio.sleep(5)
        assert (await desk.row(row)).undeliverable is None
        assert len(desk.github.calls) < 120, "every 10 minutes a look and a try"
        desk.github.refuses = lambda run: None
        await desk.books.write(lambda c: check_runs.revive(c, 1))
        desk.reporting.wake.set()
        await asyncio.sleep(1)
        assert desk.github.newest().title == "done"

    told(desk, story)


def test_a_repository_that_is_gone_by_its_webhook_and_by_its_api_is_not_asked_for_again(desk: Desk) -> None:
    async def story(desk: Desk) -> None:
        desk.github.refuses = lambda run: Gone("404")
        await desk.books.write(lambda c: repositories.removed(c, 1, clock()))
        row = await desk.want(wanted("done", completed=True))
        await asyncio.sleep(60)
        assert (await desk.row(row)).undeliverable
        assert len(desk.github.calls) == 1

    told(desk, story)


def test_the_slow_pace_of_one_installation_does_not_hold_up_another(desk: Desk) -> None:
    quick = desk.github.create_check_run

    async def paced(repo: Repository, run: CheckRun) -> PostedCheckRun:
        await asyncio.sleep(60 if repo.installation_id == 1 else 0)
        return await quick(repo, run)

    desk.github.create_check_run = paced  # type: ignore[method-assign]

    async def story(desk: Desk) -> None:
        for number in range(120):
            await desk.want(wanted("busy", name=f"descent/{number}"))
        await asyncio.sleep(1)
        await desk.want(wanted("other"), repository_id=3)
        await asyncio.sleep(2)
        assert [run.title for run in desk.github.shown.values()] == ["other"]

    told(desk, story)


# --- answers that do not reach the store ---


def test_an_answer_that_can_not_be_stored_makes_no_second_check_run(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(work: Callable[[Any], Any]) -> Any:
        raise OperationalError("UPDATE check_run", {}, Exception("the disk is full"))

    async def story(desk: Desk) -> None:
        await desk.want(wanted("running"))
        with monkeypatch.context() as patch:
            patch.setattr(desk.books, "write", full)
            await asyncio.sleep(130)
        await asyncio.sleep(70)
        assert len(desk.github.shown) == 1
        assert len(desk.github.calls) < 10
        assert (await desk.row(1)).github_id == 1

    told(desk, story)


@pytest.mark.parametrize("crashed", [False, True])
def test_annotations_whose_answer_was_lost_are_not_sent_again(desk: Desk, crashed: bool) -> None:
    run = wanted("done", completed=True, annotations=120)

    async def before() -> None:
        """A worker that has sent 100 of them, and heard of 50."""
        row = await desk.books.write(lambda c: check_runs.want(c, run, repository_id=1))
        posted = await desk.github.create_check_run(Repository(1, 1, "octo/r1", "main"), run)
        await desk.books.write(
            lambda c: check_runs.acknowledged(
                c, row.id, digest="", github_id=posted.id, annotations_sent=50, at=clock()
            )
        )
        if crashed:
            await desk.github.update_check_run(Repository(1, 1, "octo/r1", "main"), posted.id, run, 50)

    async def story(desk: Desk) -> None:
        await asyncio.sleep(30)
        assert [each.start_line for each in desk.github.annotations[1]] == list(range(1, 121))

    play(before())
    desk.github.lost_answers = 0 if crashed else 1
    told(desk, story)
