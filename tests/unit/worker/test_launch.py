"""What the launch loop promises, over a real store and a cluster that behaves as told."""

import asyncio
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from ci_bot.records import Claim, ClaimKind, Experiment, Wish
from ci_bot.store import experiments, marks, quarantine, queue
from ci_bot.store.engine import LeaseLost
from ci_bot.store.experiments import Draft
from ci_bot.store.quarantine import Quarantined
from ci_bot.worker.books import Books
from ci_bot.worker.fetching import CODE_S, DEFECT, MAX_FETCHES, SourceGone, SourceRefused, SourceUnavailable, code_key
from ci_bot.worker.launch import FIRST_ANSWER_S, MOST_CREATED, UNSEEN_S, Launch
from ci_bot.worker.queue import COUNT_S, MOST_ASKED, REASON_S
from launcher.backend import HeadLost
from launcher.controller import Rules
from launcher.experiment import NodeGroup, Role, Specification
from launcher.gang import PLACEMENT_S
from launcher.keep import Keep
from launcher.machines import Machine, Machines
from launcher.placement import Limits, unplaced_pause_s
from launcher.state import Cause, Progress, State
from tests.fakes import Command, FakeBackend, Host, clock, names, play, skip

CLAIM = Claim(ClaimKind.BRANCH, "refs/heads/main", lasting=True)
TABLE = Machines({"small": Machine("small"), "large": Machine("large", cpus=3), "huge": Machine("huge", cpus=64)})


@dataclass
class FakeSource:
    """Commits that arrive after a while, or what the next tries raise."""

    takes_s: float = 0.1
    faults: list[Exception] = field(default_factory=list)
    always: Exception | None = None
    asked: list[tuple[float, str]] = field(default_factory=list)
    busy: int = 0
    most_busy: int = 0
    notes: tuple[str, ...] = ()
    broken: str = ""
    """The name of an experiment whose address can't be told."""
    told: int = 0

    async def fetch(self, experiment: Experiment, destination: Path) -> tuple[str, ...]:
        if destination.exists():
            return self.notes
        self.asked.append((asyncio.get_running_loop().time(), code_key(experiment)))
        self.busy += 1
        self.most_busy = max(self.busy, self.most_busy)
        try:
            await asyncio.sleep(self.takes_s)
        finally:
            self.busy -= 1
        if self.always or self.faults:
            raise self.always or self.faults.pop(0)
        destination.write_bytes(b"the archive")
        return self.notes

    def repository_url(self, experiment: Experiment) -> str:
        if experiment.name == self.broken:
            self.told += 1
            raise ValueError("a defect")
        return f"https://example.invalid/{experiment.full_name}"


@dataclass
class House:
    """A launch loop with all that it needs."""

    books: Books
    root: Path
    command: Command = field(default_factory=lambda: Command(runs_s=5))
    machines: Machines = TABLE
    limits: Limits = field(default_factory=Limits)
    queue_s: float = 7 * 86400
    require_container: bool = False
    source: FakeSource = field(default_factory=FakeSource)

    def build(self) -> None:
        self.host = Host("host-a", self.command)
        self.backend = FakeBackend({"n1": self.host})
        self.keep = Keep(self.root / "keep")
        self.changed = asyncio.Event()
        self.launch = self.worker()
        self.stop = asyncio.Event()

    def worker(self) -> Launch:
        return Launch(
            books=self.books,
            backend=self.backend,
            keep=self.keep,
            source=self.source,
            machines=self.machines,
            rules=Rules(grace_s=1),
            limits=self.limits,
            queue_s=self.queue_s,
            require_container=self.require_container,
            changed=self.changed.set,
            now=clock,
        )

    async def create(self, name: str = "digits", sha: str = "a", at: float | None = None, **changes: Any) -> int:
        group = NodeGroup(role=Role.WORKER, command="true", machine_type=changes.pop("machine", "small"))
        specification = Specification(
            name=name, topology=changes.pop("topology", "single"), groups=(group,)
        ).model_copy(update=changes.pop("specification", {}))
        draft = Draft(changes.pop("repository_id", 1), 1, "octo/digits", sha * 40, "refs/heads/main", name,
                      specification, "config.yaml", "")  # fmt: skip
        created_at = clock() if at is None else at
        found, _ = await self.books.write(lambda c: experiments.create(c, replace(draft, **changes), CLAIM, created_at))
        return found

    async def get(self, experiment_id: int) -> Experiment:
        found = await self.books.read(lambda c: experiments.get(c, experiment_id))
        assert found
        return found

    async def wish(self, experiment_id: int) -> None:
        wished = Wish("octocat", "cancelled by octocat", clock())
        await self.books.write(lambda c: experiments.wish(c, experiment_id, wished))
        self.launch.wake.set()

    async def until(self, experiment_id: int, *states: State) -> Experiment:
        async with asyncio.timeout(900):
            while True:
                self.changed.clear()
                found = await self.get(experiment_id)
                if found.state in states:
                    return found
                await self.changed.wait()

    async def states(self, experiment_id: int) -> list[State]:
        return [each.state for each in await self.books.read(lambda c: experiments.transitions(c, experiment_id))]


def lived(house: House, story: Callable[[House], Any]) -> None:
    """Play a story while the loop runs."""

    async def main() -> None:
        house.build()
        loop = asyncio.create_task(house.launch.run(house.stop))
        try:
            await story(house)
        finally:
            house.stop.set()
            await asyncio.gather(loop, return_exceptions=True)
            await house.launch.leave()
        loop.result()

    play(main())


@pytest.fixture(autouse=True)
def logged() -> Iterator[list[Any]]:
    """What is logged; a traceback on a terminal takes a second to draw."""
    with capture_logs() as lines:
        yield lines


@pytest.fixture
def house(books: Books, tmp_path: Path) -> House:
    return House(books, tmp_path)


# --- the walk ---


def test_an_experiment_goes_from_created_to_stopped(house: House) -> None:
    async def story(house: House) -> None:
        one = await house.create()
        ended = await house.until(one, State.STOPPED, State.ERROR, State.FAILED)
        assert ended.state is State.STOPPED
        assert (await house.states(one))[:3] == [State.CREATED, State.PENDING, State.PROVISIONING]

    lived(house, story)


def test_an_experiment_is_never_driven_twice_at_once(house: House) -> None:
    async def story(house: House) -> None:
        several = [await house.create(name, name) for name in "abcd"]
        for one in several:
            await house.until(one, State.STOPPED)
        assert len(names(house.backend.calls, "start")) == 4
        assert [call for call in house.backend.calls if call[0] == "reserve"] == [
            ("reserve", f"exp-{one}-a1") for one in several
        ]

    lived(house, story)


def test_a_wish_ends_what_waits_at_once_and_what_runs_through_its_teardown(house: House) -> None:
    async def story(house: House) -> None:
        house.source.takes_s = 1000
        waiting = await house.create("waiting", "b")
        await asyncio.sleep(3)
        await house.wish(waiting)
        assert (await house.until(waiting, State.CANCELLED)).progress.attempt == 0
        assert house.source.busy == 0
        house.source.takes_s = 0.1
        running = await house.create("running", "c")
        await house.until(running, State.RUNNING)
        await house.wish(running)
        await house.until(running, State.CANCELLED)
        assert State.NETWORK_TEARDOWN in await house.states(running)

    lived(house, story)


def test_a_shutdown_puts_what_runs_back_at_no_cost(house: House) -> None:
    house.command = Command()

    async def story(house: House) -> None:
        one = await house.create()
        await house.until(one, State.RUNNING)
        house.stop.set()
        await house.launch.drain(25)
        back = await house.get(one)
        assert (back.state, back.progress.infrastructure_retries_used) == (State.PENDING, 0)
        assert house.host.runs == {}

    lived(house, story)


def test_a_worker_that_leaves_touches_nothing_and_the_next_one_goes_on(house: House) -> None:
    house.command = Command(runs_s=100)

    async def story(house: House) -> None:
        one = await house.create()
        await house.until(one, State.RUNNING)
        house.stop.set()
        await house.launch.leave()
        assert len(house.host.runs) == 1
        stop, second = asyncio.Event(), house.worker()
        running = asyncio.create_task(second.run(stop))
        await house.until(one, State.STOPPED)
        stop.set()
        await running
        assert len(names(house.backend.calls, "start")) == 1

    lived(house, story)


def test_a_worker_that_lost_its_lease_stops_and_writes_nothing(house: House) -> None:
    async def story(house: House) -> None:
        one = await house.create()
        await house.until(one, State.RUNNING)
        house.books.epoch = 0
        await asyncio.sleep(60)
        assert names(house.backend.calls, "clean", "release") == []
        assert (await house.get(one)).state is State.RUNNING

    with pytest.raises(LeaseLost):
        lived(house, story)


def test_ray_s_silence_is_said_to_those_who_wait_and_ends_nothing(house: House) -> None:
    async def story(house: House) -> None:
        one = await house.create(machine="huge")
        await house.until(one, State.PENDING)
        house.backend.head_down = True
        await asyncio.sleep(70)
        assert "Ray" in (await house.get(one)).pending_reason
        await house.wish(one)
        await house.until(one, State.CANCELLED)

    lived(house, story)


def test_before_ray_was_ever_seen_code_arrives_silence_is_told_and_a_wish_is_heard(house: House) -> None:
    async def story(house: House) -> None:
        house.backend.head_down = True
        one = await house.create()
        await house.until(one, State.PENDING)
        await asyncio.sleep(FIRST_ANSWER_S / 2)
        assert (await house.get(one)).pending_reason == ""
        await asyncio.sleep(FIRST_ANSWER_S)
        assert "Ray" in (await house.get(one)).pending_reason
        await house.wish(one)
        await house.until(one, State.CANCELLED)

    lived(house, story)


def test_what_its_machine_type_was_taken_as_is_noted_once_ray_was_seen(house: House) -> None:
    house.machines = Machines()

    async def story(house: House) -> None:
        house.backend.head_down = True
        one = await house.create(machine="C3")
        assert (await house.until(one, State.PENDING)).notes == ()
        house.backend.head_down = False
        assert [note[:12] for note in (await house.until(one, State.STOPPED)).notes] == ["C3 was taken"]

    lived(house, story)


@pytest.mark.parametrize("wished", [True, False])
def test_what_is_held_on_a_ray_that_is_never_seen_is_ended_at_last(house: House, wished: bool) -> None:
    house.command = Command()

    async def story(house: House) -> None:
        one = await house.create()
        await house.until(one, State.RUNNING)
        await house.launch.leave()
        house.backend.head_down = True
        house.stop.set()
        stop, second = asyncio.Event(), house.worker()
        running = asyncio.create_task(second.run(stop))
        if wished:
            await house.wish(one)
        await asyncio.sleep(UNSEEN_S - 30)
        assert (await house.get(one)).state is State.RUNNING
        await asyncio.sleep(60 + (0 if wished else Rules().fence_s))
        assert (await house.get(one)).state is State.NETWORK_TEARDOWN
        stop.set()
        await running
        await second.leave()

    lived(house, story)


def test_archives_that_a_former_worker_left_half_written_are_removed(house: House) -> None:
    async def story(house: House) -> None:
        code = house.keep.code("1-abc").path
        code.write_bytes(b"whole")
        code.with_name(f".{code.name}.0123.part").write_bytes(b"half")
        await house.until(await house.create(), State.STOPPED)
        assert list(code.parent.glob(".*")) == []

    lived(house, story)


# --- the queue ---


def test_the_queue_is_first_in_first_out_and_nobody_overtakes_on_a_machine_type(house: House) -> None:
    async def story(house: House) -> None:
        first = await house.create("first", "a", machine="large")
        await house.until(first, State.RUNNING)
        second = await house.create("second", "b", machine="large")
        await house.until(second, State.PENDING)
        third = await house.create("third", "c", machine="large")
        fourth = await house.create("fourth", "d", machine="small")
        await house.until(fourth, State.RUNNING)
        for one in (second, third):
            assert (await house.get(one)).state is State.PENDING
        await house.until(third, State.STOPPED)
        started = [name for method, name in house.backend.calls if method == "reserve"]
        assert started == [f"exp-{one}-a1" for one in (first, fourth, second, third)]

    lived(house, story)


@pytest.mark.parametrize("limits", [Limits(max_running=1), Limits(max_running_per_repository=1)])
def test_a_limit_keeps_the_next_one_waiting_and_names_it(house: House, limits: Limits) -> None:
    house.limits = limits

    async def story(house: House) -> None:
        first, second = await house.create("one", "a"), await house.create("two", "b")
        await house.until(first, State.RUNNING)
        await asyncio.sleep(2)
        waiting = await house.get(second)
        assert waiting.state is State.PENDING
        assert "MAX_RUNNING" in waiting.pending_reason
        await house.until(second, State.STOPPED)

    lived(house, story)


def test_why_it_waits_is_said_at_once_and_refreshed_at_most_once_a_minute(house: House) -> None:
    house.command = Command()

    async def story(house: House) -> None:
        await house.until(await house.create("running", "a", machine="large"), State.RUNNING)
        one = await house.create("one", "b", machine="large")
        await house.until(one, State.PENDING)
        await asyncio.sleep(2)
        assert (await house.get(one)).pending_reason
        version = (await house.get(one)).version
        for second in range(100):
            house.host.cpus = 4 + (second % 7) / 4  # what is free changes all the time
            await asyncio.sleep(1)
        assert (await house.get(one)).version - version <= 100 / REASON_S + 1

    lived(house, story)


def test_of_many_who_wait_some_are_told_why_in_each_pass_in_one_transaction_and_all_are_told(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[list[int]] = []
    original = queue.tell
    monkeypatch.setattr(queue, "tell", lambda c, reasons: told.append(list(reasons)) or original(c, reasons))
    house.command = Command()

    async def story(house: House) -> None:
        await house.until(await house.create("running", "a", machine="large"), State.RUNNING)
        ids = [await house.create(f"waits-{number}", "b", machine="large") for number in range(3 * MOST_ASKED)]
        for each in ids:
            await house.until(each, State.PENDING)
        house.stop.set()
        await house.launch.leave()
        told.clear()  # the next worker finds them all at once
        stop, second = asyncio.Event(), house.worker()
        running = asyncio.create_task(second.run(stop))
        await asyncio.sleep(5)
        assert [len(each) for each in told] == [MOST_ASKED] * 3
        assert sorted(each for some in told for each in some) == ids
        stop.set()
        await running
        reasons = [(await house.get(each)).pending_reason for each in ids]
        assert "it is next in line" in reasons[0]
        assert f"{len(ids) - 1} experiments are ahead" in reasons[-1]
        await second.leave()

    lived(house, story)


def test_what_came_into_the_queue_unheard_is_found(house: House) -> None:
    async def story(house: House) -> None:
        await house.until(await house.create(), State.STOPPED)
        one = await house.create("unheard", "b")
        new = replace(Progress(), state=State.PENDING)
        assert await house.books.write(lambda c: experiments.record(c, one, Progress(), new, at=clock()))
        house.keep.code(code_key(await house.get(one))).path.write_bytes(b"the archive")
        began = clock()
        await house.until(one, State.STOPPED)
        assert clock() - began < COUNT_S + 10

    lived(house, story)


def test_what_left_the_queue_unheard_is_not_started(house: House) -> None:
    house.command = Command()

    async def story(house: House) -> None:
        first = await house.create("first", "f", machine="large")
        await house.until(first, State.RUNNING)
        gone, after = (
            await house.create("gone", "b", machine="large"),
            await house.create("after", "c", machine="large"),
        )
        for each in (gone, after):
            await house.until(each, State.PENDING)
        waits = (await house.get(gone)).progress
        ended = replace(waits, state=State.CANCELLED, cause=Cause.WISHED)
        assert await house.books.write(lambda c: experiments.record(c, gone, waits, ended, at=clock()))
        await house.wish(first)
        await house.until(after, State.RUNNING)
        assert (await house.get(gone)).state is State.CANCELLED

    lived(house, story)


def test_many_commits_that_can_not_be_had_hold_up_no_other(house: House) -> None:
    class Some(FakeSource):
        async def fetch(self, experiment: Experiment, destination: Path) -> tuple[str, ...]:
            if experiment.name != "good":
                raise SourceUnavailable("502")
            return await super().fetch(experiment, destination)

    house.source = Some()

    async def story(house: House) -> None:
        for number in range(2 * MOST_CREATED):
            await house.create(f"bad-{number}", f"{number:02}"[-1] + "f", repository_id=number)
        good = await house.create("good", "e")
        await house.until(good, State.STOPPED)

    lived(house, story)


def test_what_no_declared_machine_can_run_is_failed_and_says_what_exists(house: House) -> None:
    async def story(house: House) -> None:
        one = await house.create(machine="K80")
        ended = await house.until(one, State.FAILED)
        assert ended.progress.cause is Cause.UNSATISFIABLE
        assert "large" in ended.detail["why"]

    lived(house, story)


def test_a_declared_machine_that_is_absent_is_waited_for_until_the_queue_deadline(house: House) -> None:
    house.queue_s = 3600

    async def story(house: House) -> None:
        one = await house.create(machine="huge")
        await house.until(one, State.PENDING)
        skip(3590)
        await asyncio.sleep(5)
        assert (await house.get(one)).state is State.PENDING
        ended = await house.until(one, State.ERROR)
        assert ended.progress.cause is Cause.QUEUE_DEADLINE
        assert 3600 <= clock() - ended.created_at < 3630

    lived(house, story)


def test_the_queue_deadline_does_not_count_the_time_that_it_ran(house: House) -> None:
    house.queue_s, house.command = 3600, Command()

    async def story(house: House) -> None:
        one = await house.create()
        await house.until(one, State.RUNNING)
        skip(2 * 3600)
        house.backend.verdict = "lost"
        await house.until(one, State.PENDING)
        house.backend.verdict = None
        await house.until(one, State.RUNNING, State.ERROR)
        assert (await house.get(one)).state is State.RUNNING
        await house.wish(one)
        await house.until(one, State.CANCELLED)

    lived(house, story)


def test_an_attempt_that_ray_has_no_room_for_goes_back_to_its_place(house: House) -> None:
    async def story(house: House) -> None:
        house.backend.polls_until_placed = math.inf
        one = await house.create()
        await house.until(one, State.PROVISIONING)
        queued_at = (await house.get(one)).queued_at
        await house.until(one, State.PENDING)
        house.backend.polls_until_placed = 0
        ended = await house.until(one, State.STOPPED)
        assert (ended.queued_at, ended.progress.tries) == (queued_at, 1)

    lived(house, story)


async def attempts_at(house: House, experiment_id: int) -> list[float]:
    history = await house.books.read(lambda c: experiments.transitions(c, experiment_id))
    return [each.at for each in history if each.state is State.PROVISIONING]


def test_what_ray_has_no_place_for_again_and_again_is_tried_after_growing_pauses_and_says_why(house: House) -> None:
    async def story(house: House) -> None:
        house.backend.polls_until_placed = math.inf
        one = await house.create()
        for times in range(1, 10):
            waiting = await house.until(one, State.PROVISIONING)
            assert waiting.progress.attempt == times
            await house.until(one, State.PENDING)
            await asyncio.sleep(2)
            assert "Ray could not place it" in (await house.get(one)).pending_reason
            skip(unplaced_pause_s(times) - 5)
        at = await attempts_at(house, one)
        pauses = [later - earlier - PLACEMENT_S for earlier, later in pairwise(at)]
        assert all(0 <= pause - unplaced_pause_s(n) < 5 for n, pause in enumerate(pauses, 1))

    lived(house, story)


def test_a_restart_does_not_make_ray_be_asked_again_sooner(house: House) -> None:
    async def story(house: House) -> None:
        house.backend.polls_until_placed = math.inf
        one = await house.create()
        for times in range(1, 4):
            await house.until(one, State.PROVISIONING)
            await house.until(one, State.PENDING)
            if times < 3:
                skip(unplaced_pause_s(times) - 5)
        house.stop.set()
        await house.launch.leave()
        stop, second = asyncio.Event(), house.worker()
        running = asyncio.create_task(second.run(stop))
        await asyncio.sleep(unplaced_pause_s(3) - 5)
        assert len(await attempts_at(house, one)) == 3
        house.backend.polls_until_placed = 0
        await house.until(one, State.STOPPED)
        stop.set()
        await running

    lived(house, story)


def test_nobody_overtakes_what_ray_has_no_place_for_and_other_machine_types_go_on(house: House) -> None:
    async def story(house: House) -> None:
        house.backend.polls_until_placed = math.inf
        one = await house.create("one", "a", machine="large")
        await house.until(one, State.PROVISIONING)
        await house.until(one, State.PENDING)
        house.backend.polls_until_placed = 0
        same, other = await house.create("same", "b", machine="large"), await house.create("other", "c")
        await house.until(other, State.STOPPED)
        await house.until(same, State.STOPPED)
        started = [name for method, name in house.backend.calls if method == "reserve"]
        assert started == [f"exp-{one}-a1", f"exp-{other}-a1", f"exp-{one}-a2", f"exp-{same}-a1"]

    lived(house, story)


def test_a_shutdown_is_no_reason_to_wait(house: House) -> None:
    house.command = Command()

    async def story(house: House) -> None:
        one = await house.create()
        await house.until(one, State.RUNNING)
        house.stop.set()
        await house.launch.drain(25)
        stop, second = asyncio.Event(), house.worker()
        running = asyncio.create_task(second.run(stop))
        began = clock()
        await house.until(one, State.RUNNING)
        assert clock() - began < 3
        stop.set()
        await running
        await second.leave()

    lived(house, story)


def with_a_gpu(house: House) -> Host:
    house.machines = Machines()
    return Host("host-gpu", Command(runs_s=5), gpus=1)


def test_a_machine_that_was_here_under_a_former_worker_is_waited_for(house: House) -> None:
    gpu = with_a_gpu(house)

    async def story(house: House) -> None:
        house.backend.nodes["n2"] = gpu
        await house.until(await house.create("first", "a"), State.STOPPED)
        house.stop.set()
        await house.launch.leave()
        del house.backend.nodes["n2"]
        stop, second = asyncio.Event(), house.worker()
        running = asyncio.create_task(second.run(stop))
        one = await house.create("second", "b", machine="P4000")
        await house.until(one, State.PENDING, State.FAILED)
        await asyncio.sleep(100)
        waiting = await house.get(one)
        assert (waiting.state, waiting.progress.attempt) == (State.PENDING, 0)
        assert "1 GPU" in waiting.pending_reason
        house.backend.nodes["n2"] = gpu
        await house.until(one, State.STOPPED)
        stop.set()
        await running

    lived(house, story)


def test_what_the_cluster_once_had_is_written_only_when_it_has_grown(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu, house.command = with_a_gpu(house), Command()
    written: list[str] = []
    original = marks.put
    monkeypatch.setattr(marks, "put", lambda c, name, value: written.append(value) or original(c, name, value))

    async def story(house: House) -> None:
        await house.until(await house.create(), State.PROVISIONING)
        for change in (lambda: None, lambda: house.backend.nodes.update(n2=gpu), lambda: house.backend.nodes.pop("n2")):
            change()
            await asyncio.sleep(10)
        second = house.worker()
        await second.queue.look(())
        assert len(written) == 2

    lived(house, story)


def test_a_host_in_quarantine_gets_nothing(house: House) -> None:
    async def story(house: House) -> None:
        house.backend.faults["inventory"] = [HeadLost("it does not say")] * 3
        await house.books.write(lambda c: quarantine.add(c, Quarantined("host-a", "a process is left", clock())))
        one = await house.create()
        await house.until(one, State.PENDING)
        await asyncio.sleep(10)
        assert (await house.get(one)).state is State.PENDING
        assert "host-a" in (await house.get(one)).pending_reason
        await house.until(one, State.STOPPED)

    lived(house, story)


def test_a_full_disk_of_our_own_stops_admission(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(house: House) -> None:
        monkeypatch.setattr(house.keep, "free_bytes", lambda: 1000)
        one = await house.create()
        await house.until(one, State.PENDING)
        await asyncio.sleep(10)
        assert "disk" in (await house.get(one)).pending_reason
        monkeypatch.undo()
        await house.until(one, State.STOPPED)

    lived(house, story)


# --- what can't run ---


def test_a_container_that_is_required_and_can_not_be_used_is_failed(house: House) -> None:
    house.require_container = True

    async def story(house: House) -> None:
        group = NodeGroup(role=Role.WORKER, command="true", container="python:3")
        one = await house.create(specification={"groups": (group,)})
        assert "python:3" in (await house.until(one, State.FAILED)).detail["why"]

    lived(house, story)


# --- a row that can't be seen to ---


def test_a_row_that_can_not_be_taken_up_holds_up_no_other_and_is_tried_again(house: House, logged: list[Any]) -> None:
    house.command = Command(runs_s=100)

    async def story(house: House) -> None:
        one = await house.create("one")
        await house.until(one, State.RUNNING)
        house.stop.set()
        await house.launch.leave()
        house.source.broken = "one"
        stop, second = asyncio.Event(), house.worker()
        running = asyncio.create_task(second.run(stop))
        other = await house.create("other", "b")
        await house.until(other, State.RUNNING)
        assert (await house.get(one)).state is State.RUNNING
        assert {line["experiment_id"] for line in logged if line["log_level"] == "error"} == {one}
        assert house.source.told < 5
        house.source.broken = ""
        await house.until(one, State.STOPPED)
        await house.until(other, State.STOPPED)
        stop.set()
        await running
        await second.leave()
        assert len(names(house.backend.calls, "start")) == 2

    lived(house, story)


def test_a_row_that_can_not_be_started_holds_up_no_other(house: House) -> None:
    house.source.broken = "one"

    async def story(house: House) -> None:
        one, other = await house.create("one"), await house.create("other", "b")
        await house.until(other, State.STOPPED)
        assert (await house.get(one)).state is State.PROVISIONING
        house.source.broken = ""
        await house.until(one, State.STOPPED)

    lived(house, story)


def test_one_that_is_created_and_can_not_be_seen_to_ends_by_its_deadline(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(house: House) -> None:
        def defect(experiment: Experiment) -> None:
            raise ValueError("a defect")

        monkeypatch.setattr(house.launch._fetching, "want", defect)
        several = [await house.create(f"one-{number}") for number in range(MOST_CREATED)]
        await asyncio.sleep(5)
        monkeypatch.undo()
        await house.until(await house.create("other", "b"), State.STOPPED)
        monkeypatch.setattr(house.launch._fetching, "want", defect)
        late = await house.create("late", "c")
        skip(CODE_S)
        ended = await house.until(late, State.ERROR)
        assert ended.progress.cause is Cause.NOT_FETCHABLE
        for one in several:
            await house.until(one, State.STOPPED, State.ERROR)

    lived(house, story)


# --- the code ---


def test_code_that_is_not_to_be_had_now_is_fetched_again_with_growing_pauses(house: House) -> None:
    async def story(house: House) -> None:
        house.source.faults = [SourceUnavailable("502")] * 4
        await house.until(await house.create(), State.STOPPED)
        at = [when for when, _ in house.source.asked]
        pauses = [later - earlier for earlier, later in pairwise(at)]
        assert len(pauses) == 4
        assert pauses == sorted(pauses)

    lived(house, story)


def test_code_that_can_not_be_fetched_for_6_hours_is_an_error(house: House) -> None:
    async def story(house: House) -> None:
        house.source.always = SourceUnavailable("502")
        one = await house.create()
        await asyncio.sleep(20)
        assert "502" in (await house.get(one)).pending_reason
        skip(CODE_S - 60)
        ended = await house.until(one, State.ERROR)
        assert ended.progress.cause is Cause.NOT_FETCHABLE
        assert CODE_S <= clock() - ended.created_at < CODE_S + 70
        assert "Waits" not in ended.pending_reason

    lived(house, story)


@pytest.mark.parametrize(
    ("error", "cause"),
    [(SourceGone("404"), Cause.COMMIT_GONE), (SourceRefused("a link"), Cause.REFUSED_ARCHIVE)],
)
def test_code_that_can_never_be_had_ends_the_experiment(house: House, error: Exception, cause: Cause) -> None:
    async def story(house: House) -> None:
        house.source.always = error
        assert (await house.until(await house.create(), State.ERROR, State.FAILED)).progress.cause is cause

    lived(house, story)


def test_a_defect_in_fetching_one_commit_holds_up_no_other_and_does_not_spin(house: House) -> None:
    async def story(house: House) -> None:
        house.source.faults = [ValueError("a defect")] * 3
        await house.until(await house.create(), State.STOPPED)
        assert len(house.source.asked) == 4
        assert house.source.asked[-1][0] > 10

    lived(house, story)


def test_a_defect_that_stays_is_told_to_the_reader_and_ends_the_experiment_after_6_hours(house: House) -> None:
    async def story(house: House) -> None:
        house.source.always = ValueError("a defect")
        one = await house.create()
        await asyncio.sleep(20)
        assert DEFECT in (await house.get(one)).pending_reason
        skip(CODE_S - 60)
        ended = await house.until(one, State.ERROR)
        assert ended.progress.cause is Cause.NOT_FETCHABLE
        assert CODE_S <= clock() - ended.created_at < CODE_S + 70

    lived(house, story)


def test_a_few_commits_are_fetched_at_a_time_and_one_commit_only_once(house: House) -> None:
    house.machines = Machines()

    async def story(house: House) -> None:
        several = [await house.create(f"{sha}-{number}", sha) for sha in "abcdefg" for number in range(2)]
        for one in several:
            await house.until(one, State.STOPPED)
        assert house.source.most_busy == MAX_FETCHES
        assert len(house.source.asked) == 7
        assert not house.launch._fetching._fetches

    lived(house, story)


def test_an_archive_that_was_evicted_while_its_experiment_waited_is_fetched_again(house: House) -> None:
    async def story(house: House) -> None:
        house.backend.polls_until_placed = math.inf
        one = await house.create()
        waiting = await house.until(one, State.PENDING, State.PROVISIONING)
        house.keep.code(code_key(waiting)).path.unlink()
        house.backend.polls_until_placed = 0
        house.host.whole.clear()
        await house.until(one, State.STOPPED)
        assert len(house.source.asked) == 2

    lived(house, story)


def test_what_the_archive_lacks_is_noted_once(house: House) -> None:
    house.source.notes = ("The repository has submodules.",)

    async def story(house: House) -> None:
        assert (await house.until(await house.create(), State.STOPPED)).notes == house.source.notes

    lived(house, story)
