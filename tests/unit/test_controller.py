"""What an attempt promises, on a cluster and nodes that misbehave as told."""

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from launcher.asking import NODE_LOST_S
from launcher.attempt import Attempt, Rules
from launcher.backend import BackendError, NodeUnavailable
from launcher.controller import NETWORK_S, PROVISIONING_S, TAKEN_UP_S, Drive
from launcher.experiment import Held, HeldNode, NodeGroup, NodeState, Role, Specification
from launcher.gang import PLACEMENT_S
from launcher.keep import FULL_BYTES, Keep
from launcher.machines import Machine
from launcher.node_types import Exit, NodeError, PrepareOrder, StartOrder
from launcher.state import HOLDING, Cause, Progress, State
from launcher.teardown import LEASE_S, TEARDOWN_S
from launcher.watch import WATCH_S
from tests.fakes import (
    Command,
    FakeBackend,
    FakeJournal,
    Host,
    Moved,
    Run,
    causes,
    clock,
    names,
    play,
    unavailable,
)

KEY = "exp-7-a1-n0"
GROUP = "exp-7-a1"
FORWARD = [
    State.PROVISIONED,
    State.NETWORK_SETUP,
    State.RUNNING,
    State.NETWORK_TEARDOWN,
]
SPECIFICATION = Specification(
    name="digits",
    topology="single",
    groups=(NodeGroup(role=Role.WORKER, command="python train.py"),),
    timeout_s=60,
)
NODE = HeldNode(KEY, "n1", "host-a", "10.0.0.1", (), "bubblewrap")
HELD = Held(GROUP, "c1", (NODE,))
RULES = Rules(grace_s=10, fence_s=120)


@dataclass
class Case:
    """An attempt, driven from the state of its row."""

    root: Path
    command: Command = field(default_factory=Command)
    state: State = State.PROVISIONING
    intended: State | None = None
    cause: Cause | None = None
    retries: int = 0
    running_for_s: float | None = None
    entered_s_ago: float = 0
    taken_up_s_ago: float = 0
    avoided: frozenset[str] = frozenset()
    rules: Rules = RULES
    host: Host = field(init=False)
    backend: FakeBackend = field(init=False)
    journal: FakeJournal = field(init=False)
    keep: Keep = field(init=False)

    def set_up(self) -> None:
        self.host = Host("host-a", self.command)
        self.backend = FakeBackend({"n1": self.host})
        progress = Progress(
            self.state, attempt=1, intended=self.intended, cause=self.cause, infrastructure_retries=self.retries
        )
        self.journal = FakeJournal(progress)
        self.keep = Keep(self.root)
        self.keep.code("1-abc").path.write_bytes(b"the archive")
        if self.state is not State.PROVISIONING:
            self.journal.held = HELD
            self.backend.groups[GROUP] = ()
            self.backend.verdict = "placed"
            self.host.runs[KEY] = Run(PrepareOrder("1-abc", "1", True, "bubblewrap"))
        if self.state in {State.RUNNING, State.NETWORK_TEARDOWN}:
            order = StartOrder("true", {}, (), "bubblewrap", None, None, 1 << 20, 10, LEASE_S)
            self.host.runs[KEY].start = order
            self.host.runs[KEY].started_at = clock() - (self.running_for_s or 0)

    def drive(self) -> Drive:
        """What a worker that has just started does with the row."""
        attempt = Attempt(
            experiment_id=7,
            specification=SPECIFICATION,
            machines=(Machine("default"),),
            progress=self.journal.progress,
            held=self.journal.held,
            code=self.keep.code("1-abc"),
            env={},
            storage_key="1",
            trusted=True,
            running_at=None if self.running_for_s is None else clock() - self.running_for_s,
            entered_at=clock() - self.entered_s_ago,
            taken_up_at=clock() - self.taken_up_s_ago,
            avoided_hosts=self.avoided,
        )
        return Drive(attempt, self.backend, self.journal, self.keep, self.rules, clock)

    def log(self) -> bytes:
        return self.keep.log(7, 1, 0, 1 << 20).read(0, 1 << 20).data


def at(delay_s: float, act: Callable[[], Any]) -> None:
    asyncio.get_running_loop().call_later(delay_s, act)


def driven(
    case: Case,
    *script: tuple[float, Callable[[Case, Drive], Any]],
    before: Callable[[Case], Any] = lambda case: None,
) -> float:
    """Drive an attempt to where it leads, doing things at their times; gives the seconds it took."""

    async def main() -> float:
        case.set_up()
        before(case)
        drive = case.drive()
        for delay_s, act in script:
            at(delay_s, lambda act=act: act(case, drive))  # type: ignore[misc]
        loop = asyncio.get_running_loop()
        began = loop.time()
        assert await drive.run() == case.journal.progress
        return loop.time() - began

    return play(main())


# --- the way forward ---


def test_a_command_that_succeeds_takes_the_attempt_through_every_state_to_stopped(tmp_path: Path) -> None:
    case = Case(tmp_path, Command(runs_s=5, log=((0, b"hello\n"), (4, b"bye\n")), artifacts={"a/b.txt": b"7"}))
    driven(case)
    assert case.journal.states == [*FORWARD, State.STOPPED]
    assert case.log() == b"hello\nbye\n"
    assert (case.keep.artifacts(7, 1).directory / "a/b.txt").read_bytes() == b"7"
    assert not case.backend.groups
    assert not case.host.runs


def test_what_is_held_is_on_record_before_the_node_is_told_anything(tmp_path: Path) -> None:
    case = Case(tmp_path, Command(runs_s=1))
    told: dict[str, Held] = {}

    def before(case: Case) -> None:
        original = case.backend.agent

        def agent(node_id: str) -> Any:
            found = original(node_id)
            for name in ("facts", "code_offset", "put_code", "prepare"):
                setattr(found, name, partial(noted, name, getattr(found, name)))
            return found

        async def noted(name: str, method: Callable[..., Any], *arguments: Any) -> Any:
            told.setdefault(name, case.journal.held)
            return await method(*arguments)

        case.backend.agent = agent  # type: ignore[method-assign]

    driven(case, before=before)
    assert told["facts"] == Held()  # it was only asked who it is, and then what it has
    assert told["put_code"].nodes[0].key == KEY
    assert told["prepare"].nodes[0].key == KEY


@pytest.mark.parametrize(
    ("command", "cause", "end"),
    [
        (Command(runs_s=1, exit_code=3), Cause.COMMAND_EXITED, State.FAILED),
        (Command(runs_s=1, cause=Cause.OUT_OF_MEMORY), Cause.OUT_OF_MEMORY, State.FAILED),
        (Command(runs_s=0), Cause.SUCCEEDED, State.STOPPED),
    ],
)
def test_the_end_is_what_the_exit_record_says(tmp_path: Path, command: Command, cause: Cause, end: State) -> None:
    case = Case(tmp_path, command)
    driven(case)
    assert (causes(case.journal), case.journal.progress.state) == ([cause], end)


def test_the_end_of_a_command_is_acted_on_without_waiting(tmp_path: Path) -> None:
    case = Case(tmp_path, Command(runs_s=5, log=((0, b"x"),), artifacts={"a": b"1"}))
    assert driven(case) - 5 < 0.2


def test_a_long_log_is_kept_whole_before_the_node_forgets_it(tmp_path: Path) -> None:
    lines = b"".join(b"line %d\n" % number for number in range(500))
    case = Case(tmp_path, Command(runs_s=0.01, log=((0, lines),)))
    driven(case)
    assert case.log() == lines


def test_following_a_log_leaves_no_open_file_behind(tmp_path: Path) -> None:
    case = Case(tmp_path, Command(runs_s=30, log=tuple((second, b"x" * 10) for second in range(25))))
    before = len(list(Path("/proc/self/fd").iterdir()))
    driven(case)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


# --- placement ---


def test_a_gang_that_is_placed_late_goes_on(tmp_path: Path) -> None:
    case = Case(tmp_path, Command(runs_s=1))
    driven(case, before=lambda case: setattr(case.backend, "polls_until_placed", 20))
    assert case.journal.progress.state is State.STOPPED


@pytest.mark.parametrize("verdict", [None, "infeasible"])
def test_a_gang_that_is_not_placed_in_30_s_goes_back_to_the_queue_and_holds_nothing(
    tmp_path: Path, verdict: str | None
) -> None:
    case = Case(tmp_path)

    def before(case: Case) -> None:
        case.backend.polls_until_placed, case.backend.verdict = math.inf, verdict

    took_s = driven(case, before=before)
    assert case.journal.states == [State.PENDING]
    assert (case.backend.groups, case.journal.held) == ({}, Held())
    assert PLACEMENT_S <= took_s < PLACEMENT_S + 1


def test_a_drive_that_somebody_else_has_taken_over_does_not_remove_the_group_of_its_successor(tmp_path: Path) -> None:
    case = Case(tmp_path)

    def before(case: Case) -> None:
        case.backend.polls_until_placed = math.inf

    with pytest.raises(Moved):
        driven(case, (20, lambda case, drive: case.journal.moved_by_another()), before=before)
    assert GROUP in case.backend.groups


@pytest.mark.parametrize("verdict", ["lost", "absent"])
def test_a_reservation_that_is_lost_while_it_is_made_ends_the_attempt(tmp_path: Path, verdict: str) -> None:
    case = Case(tmp_path)
    driven(case, before=lambda case: setattr(case.backend, "verdict", verdict))
    assert causes(case.journal) == [Cause.RESERVATION_LOST]
    assert case.backend.groups == {}


def test_a_gang_is_never_placed_on_a_host_that_was_not_proven_clean(tmp_path: Path) -> None:
    case = Case(tmp_path, Command(runs_s=1), avoided=frozenset({"host-a"}))
    other = {}

    def before(case: Case) -> None:
        other["host"] = case.backend.nodes["n2"] = Host("host-b", case.command)

    driven(case, before=before)
    assert case.journal.held.nodes[0].host == "host-b"
    assert KEY in other["host"].ended


def lost_before(case: Case, *, room_elsewhere: bool) -> None:
    case.journal.held = Held(before=("host-a",), lost=("host-a",))
    case.backend.nodes["n2"] = Host("host-b", case.command, cpus=4 if room_elsewhere else 0)


@pytest.mark.parametrize(("room_elsewhere", "host"), [(True, "host-b"), (False, "host-a")])
def test_a_retry_goes_to_another_host_than_the_one_it_was_lost_with_if_there_is_one(
    tmp_path: Path, room_elsewhere: bool, host: str
) -> None:
    case = Case(tmp_path, Command(runs_s=1))
    driven(case, before=partial(lost_before, room_elsewhere=room_elsewhere))
    assert case.journal.held.nodes[0].host == host


def test_the_host_that_an_attempt_was_lost_with_is_on_record(tmp_path: Path) -> None:
    case = running(tmp_path)
    driven(case, (1, lambda case, drive: case.host.runs.clear()))
    assert (case.journal.progress.state, case.journal.held.lost) == (State.PENDING, ("host-a",))


# --- preparation ---


def test_a_node_that_can_not_isolate_is_an_infrastructure_failure_and_runs_nothing(tmp_path: Path) -> None:
    case = Case(tmp_path)
    driven(case, before=lambda case: setattr(case.host, "isolation", "none"))
    assert causes(case.journal) == [Cause.PREPARATION_FAILED]
    assert case.journal.progress.state is State.ERROR
    assert names(case.backend.calls, "start", "prepare") == []


def test_a_node_that_refuses_the_archive_says_whose_fault_it_is(tmp_path: Path) -> None:
    case = Case(tmp_path)
    fault = NodeError(Cause.REFUSED_ARCHIVE, "it has a link out of the tree")
    driven(case, before=lambda case: case.backend.faults["put_code"].append(fault))
    assert case.journal.progress.state is State.FAILED


def test_an_archive_that_has_gone_from_our_disk_is_a_retry_and_not_an_endless_loop(tmp_path: Path) -> None:
    case = Case(tmp_path, retries=2)
    driven(case, before=lambda case: case.keep.code("1-abc").path.unlink())
    assert (causes(case.journal), case.journal.progress.state) == ([Cause.PREPARATION_FAILED], State.PENDING)


def test_code_that_a_node_has_is_not_sent_again(tmp_path: Path) -> None:
    case = Case(tmp_path, Command(runs_s=1))
    driven(case, before=lambda case: case.host.whole.add("1-abc"))
    assert names(case.backend.calls, "put_code") == []


# --- interruption ---


@pytest.mark.parametrize("state", [State.PROVISIONING, *FORWARD[:3]])
@pytest.mark.parametrize(
    ("cause", "end"), [(Cause.WISHED, State.CANCELLED), (Cause.SHUTDOWN, State.PENDING)], ids=["wish", "shutdown"]
)
def test_an_interruption_ends_the_attempt_in_whatever_state_it_is(
    tmp_path: Path, state: State, cause: Cause, end: State
) -> None:
    case = Case(tmp_path, state=state)
    driven(case, (0.0015, lambda case, drive: drive.interrupt(cause, why="cancelled by octocat")))
    assert (causes(case.journal), case.journal.progress.state) == ([cause], end)
    assert (case.backend.groups, case.host.runs) == ({}, {})
    assert case.journal.progress.infrastructure_retries_used == 0


@pytest.mark.parametrize("state", [State.PROVISIONING, *FORWARD[:3]])
def test_an_interruption_that_comes_with_a_step_s_end_is_not_lost(tmp_path: Path, state: State) -> None:
    case = Case(tmp_path)

    def before(case: Case) -> None:
        def after(reached: State) -> None:
            if reached is state:
                drives[0].interrupt(Cause.WISHED, why="cancelled")

        case.journal.after = after
        original, drives = case.drive, []
        case.drive = lambda: drives.append(original()) or drives[0]  # type: ignore[method-assign,func-returns-value]

    if state is State.PROVISIONING:
        driven(case, (0, lambda case, drive: drive.interrupt(Cause.WISHED, why="cancelled")))
    else:
        driven(case, before=before)
        assert case.journal.states[-3:] == [state, State.NETWORK_TEARDOWN, State.CANCELLED]
    assert case.journal.progress.state is State.CANCELLED


def test_of_two_interruptions_the_first_counts(tmp_path: Path) -> None:
    case = Case(tmp_path, state=State.RUNNING, running_for_s=0)

    def both(case: Case, drive: Drive) -> None:
        drive.interrupt(Cause.SHUTDOWN)
        drive.interrupt(Cause.WISHED, why="too late")

    driven(case, (1, both))
    assert causes(case.journal) == [Cause.SHUTDOWN]


def test_a_command_that_ignores_sigterm_is_waited_for_until_its_grace_is_over(tmp_path: Path) -> None:
    case = Case(tmp_path, Command(heeds_stop=False), state=State.RUNNING, running_for_s=0)
    took_s = driven(case, (1, lambda case, drive: drive.interrupt(Cause.WISHED, why="cancelled")))
    assert 11 <= took_s < 12
    assert case.journal.progress.state is State.CANCELLED


@pytest.mark.parametrize(
    ("intended", "cause", "end"),
    [
        (State.PENDING, Cause.NODE_LOST, State.CANCELLED),
        (State.FAILED, Cause.COMMAND_EXITED, State.FAILED),
        (State.STOPPED, Cause.SUCCEEDED, State.STOPPED),
    ],
)
def test_a_wish_during_teardown_replaces_an_intended_retry_only(
    tmp_path: Path, intended: State, cause: Cause, end: State
) -> None:
    case = Case(tmp_path, state=State.NETWORK_TEARDOWN, intended=intended, cause=cause)
    driven(case, (0.001, lambda case, drive: drive.interrupt(Cause.WISHED, why="cancelled")))
    assert case.journal.progress.state is end


# --- time limits ---


def test_the_time_limit_ends_a_command(tmp_path: Path) -> None:
    case = Case(tmp_path)
    took_s = driven(case)
    assert causes(case.journal) == [Cause.TIME_LIMIT]
    assert 60 <= took_s < 62


def test_the_time_limit_goes_on_counting_while_the_worker_is_away(tmp_path: Path) -> None:
    case = Case(tmp_path, state=State.RUNNING, running_for_s=50)
    took_s = driven(case)
    assert causes(case.journal) == [Cause.TIME_LIMIT]
    assert 10 <= took_s < 12


@pytest.mark.parametrize(("ran_s", "cause"), [(30, Cause.SUCCEEDED), (70, Cause.TIME_LIMIT)])
def test_a_command_that_ended_in_time_while_the_worker_was_away_is_not_timed_out(
    tmp_path: Path, ran_s: float, cause: Cause
) -> None:
    case = Case(tmp_path, state=State.RUNNING, running_for_s=5000)

    def before(case: Case) -> None:
        run = case.host.runs[KEY]
        run.exit = Exit(Cause.SUCCEEDED, 0, None, (run.started_at or 0) + ran_s)

    driven(case, before=before)
    assert causes(case.journal) == [cause]


@pytest.mark.parametrize("state", [State.PROVISIONED, State.NETWORK_SETUP, State.RUNNING])
def test_a_worker_that_restarts_takes_the_attempt_up_in_any_state(tmp_path: Path, state: State) -> None:
    case = Case(tmp_path, Command(runs_s=5), state=state, running_for_s=0 if state is State.RUNNING else None)
    driven(case, (5, lambda case, drive: case.host.end(KEY, Cause.SUCCEEDED, code=0)))
    assert case.journal.progress.state is State.STOPPED
    assert len(names(case.backend.calls, "start")) == (0 if state is State.RUNNING else 1)


STALLED = {State.PROVISIONING: ("facts", PROVISIONING_S), State.NETWORK_SETUP: ("start", NETWORK_S)}


def stalled(case: Case, method: str) -> None:
    """The node says "not now" for ever, yet often enough to be no lost node."""

    async def never(*_: Any) -> Any:
        await asyncio.Event().wait()

    at(1e6, lambda: None)  # time goes on although everybody waits
    original = case.backend.agent

    def agent(node_id: str) -> Any:
        found = original(node_id)
        setattr(found, method, never)
        return found

    case.backend.agent = agent  # type: ignore[method-assign]


@pytest.mark.parametrize("state", STALLED)
@pytest.mark.parametrize("entered_s_ago", [0, 50, 100])
def test_a_state_s_deadline_goes_on_counting_while_workers_come_and_go(
    tmp_path: Path, state: State, entered_s_ago: float
) -> None:
    method, limit_s = STALLED[state]
    case = Case(tmp_path, state=state, entered_s_ago=entered_s_ago, taken_up_s_ago=40)
    took_s = driven(case, before=lambda case: stalled(case, method))
    assert causes(case.journal) == [Cause.DEADLINE]
    assert 0 <= took_s - (limit_s - entered_s_ago) < 1


@pytest.mark.parametrize("state", STALLED)
@pytest.mark.parametrize("taken_up_s_ago", [0, 40, 5000])
def test_a_worker_that_was_away_for_longer_than_the_deadline_gives_the_attempt_a_minute(
    tmp_path: Path, state: State, taken_up_s_ago: float
) -> None:
    case = Case(tmp_path, state=state, entered_s_ago=86400, taken_up_s_ago=taken_up_s_ago)
    took_s = driven(case, before=lambda case: stalled(case, STALLED[state][0]))
    assert causes(case.journal) == [Cause.DEADLINE]
    assert 0 <= took_s - max(TAKEN_UP_S - taken_up_s_ago, 0) < 1


@pytest.mark.parametrize("state", [State.PROVISIONING, State.PROVISIONED, State.NETWORK_SETUP])
def test_what_could_go_on_goes_on_however_long_the_worker_was_away(tmp_path: Path, state: State) -> None:
    case = Case(tmp_path, Command(runs_s=1), state=state, entered_s_ago=86400)
    driven(case)
    assert case.journal.progress.state is State.STOPPED


def test_a_clock_that_was_set_back_makes_no_deadline_longer(tmp_path: Path) -> None:
    case = Case(tmp_path, state=State.NETWORK_SETUP, entered_s_ago=-86400)
    assert driven(case, before=lambda case: stalled(case, "start")) < NETWORK_S + 1


# --- every step twice ---


@pytest.mark.parametrize("moment", [0.002 * step for step in range(1, 22)])
def test_a_worker_that_dies_at_any_moment_leaves_what_the_next_one_brings_to_its_end(
    tmp_path: Path, moment: float
) -> None:
    case = Case(tmp_path, Command(runs_s=0.005, log=((0, b"hello\n"),), artifacts={"a": b"1"}))

    async def main() -> None:
        case.set_up()
        first = asyncio.create_task(case.drive().run())
        await asyncio.sleep(moment)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        if case.journal.progress.state in HOLDING | {State.NETWORK_TEARDOWN}:
            await case.drive().run()

    play(main())
    assert case.journal.states == [*FORWARD, State.STOPPED]
    assert case.log() == b"hello\n"
    assert (case.backend.groups, case.host.runs, len(case.host.ended)) == ({}, {}, 1)


CALLS = (
    "reserve reservation capacity gpu_ids facts code_offset put_code prepare start status watch read_log artifacts "
    "read_artifact clean release"
)


@pytest.mark.parametrize("method", CALLS.split())
def test_a_call_that_is_not_answered_is_made_again(tmp_path: Path, method: str) -> None:
    case = Case(tmp_path, Command(runs_s=1, log=((0, b"hello\n"),), artifacts={"a": b"1"}))
    driven(case, before=lambda case: case.backend.faults[method].extend(unavailable(2)))
    assert case.journal.states == [*FORWARD, State.STOPPED]
    assert case.log() == b"hello\n"


def test_a_drive_whose_row_was_moved_by_another_lets_go_without_touching_anything(tmp_path: Path) -> None:
    case = Case(tmp_path, state=State.RUNNING, running_for_s=0)

    def act(case: Case, drive: Drive) -> None:
        case.journal.moved_by_another()
        case.backend.calls.clear()
        drive.interrupt(Cause.WISHED, why="cancelled")

    with pytest.raises(Moved):
        driven(case, (1, act))
    assert names(case.backend.calls, "stop", "clean", "release") == []
    assert KEY in case.host.runs


# --- what gets lost ---


def running(tmp_path: Path, command: Command | None = None, *, retries: int = 2) -> Case:
    return Case(tmp_path, command or Command(), state=State.RUNNING, running_for_s=0, retries=retries)


def test_a_node_that_is_silent_for_a_moment_loses_nothing(tmp_path: Path) -> None:
    case = running(tmp_path)
    driven(
        case,
        (1, lambda case, drive: case.backend.silent.add("n1")),
        (12, lambda case, drive: case.backend.silent.clear()),
        (20, lambda case, drive: case.host.end(KEY, Cause.SUCCEEDED, code=0)),
    )
    assert case.journal.progress.state is State.STOPPED


@pytest.mark.parametrize("how", ["silent", "hanging"])
def test_a_node_that_is_silent_for_longer_ends_the_attempt(tmp_path: Path, how: str) -> None:
    case = running(tmp_path)
    ended: list[float] = []

    def before(case: Case) -> None:
        case.journal.after = lambda state: ended.append(asyncio.get_running_loop().time())

    driven(
        case,
        (1, lambda case, drive: getattr(case.backend, how).add("n1")),
        (200, lambda case, drive: getattr(case.backend, how).clear()),
        before=before,
    )
    assert causes(case.journal) == [Cause.NODE_LOST]
    assert NODE_LOST_S - WATCH_S <= ended[0] - 1 <= NODE_LOST_S  # from when it was last heard
    assert case.journal.progress.state is State.PENDING


def test_a_node_that_left_is_given_up_only_after_its_fence_and_the_guardians_lease(tmp_path: Path) -> None:
    case = running(tmp_path)
    gone: list[float] = []
    released: list[float] = []

    def leave(case: Case, drive: Drive) -> None:
        case.backend.nodes.clear()
        gone.append(asyncio.get_running_loop().time())

    def before(case: Case) -> None:
        case.backend.on_release = lambda name: released.append(asyncio.get_running_loop().time())

    driven(case, (1, leave), before=before)
    assert case.journal.progress.state is State.PENDING
    assert released[0] - gone[0] >= RULES.fence_s + LEASE_S + RULES.grace_s


def test_the_fence_is_waited_for_however_long_it_is(tmp_path: Path) -> None:
    case = Case(tmp_path, state=State.RUNNING, running_for_s=0, retries=2, rules=Rules(fence_s=900))
    took_s = driven(case, (1, lambda case, drive: case.backend.nodes.clear()))
    assert case.journal.progress.state is State.PENDING
    assert took_s > 900
    assert case.journal.quarantined == {}


@pytest.mark.parametrize("cluster_id", [None, "c2"])
def test_the_record_that_a_successor_finds_on_the_disk_is_the_truth(tmp_path: Path, cluster_id: str | None) -> None:
    case = running(tmp_path, Command(artifacts={"a": b"1"}, log=((0, b"hello\n"),)))

    def lose(case: Case, drive: Drive) -> None:
        case.host.end(KEY, Cause.SUCCEEDED, code=0)
        case.backend.silent.add("n1")

    driven(case, (1, lose), (8, lambda case, drive: case.backend.restart_ray("n1", "n9", cluster_id)))
    assert case.journal.states == [State.NETWORK_TEARDOWN, State.STOPPED]
    assert case.log() == b"hello\n"


def test_another_head_in_the_place_of_the_old_one_ends_the_attempt_as_head_lost(tmp_path: Path) -> None:
    case = running(tmp_path)

    def before(case: Case) -> None:
        case.backend.verdict = None

    driven(case, (1, lambda case, drive: case.backend.restart_ray("n1", "n9", "c2")), before=before)
    assert causes(case.journal) == [Cause.HEAD_LOST]
    assert case.journal.progress.state is State.PENDING
    assert case.host.runs == {}


def test_a_node_that_was_fenced_for_another_head_is_told_as_the_heads_loss(tmp_path: Path) -> None:
    case = running(tmp_path)

    def fenced(case: Case, drive: Drive) -> None:
        case.backend.cluster_id = "c2"
        case.host.end(KEY, Cause.COMMAND_KILLED, stopped=True)

    driven(case, (1, fenced))
    assert causes(case.journal) == [Cause.HEAD_LOST]


def head_is_down(tmp_path: Path, until_s: float) -> Case:
    case = running(tmp_path)
    case.rules = replace(RULES, fence_s=30)  # the time limit is 60

    def end(case: Case, drive: Drive) -> None:
        case.backend.head_down = False
        case.host.end(KEY, Cause.SUCCEEDED, code=0)

    driven(case, (1, lambda case, drive: setattr(case.backend, "head_down", True)), (until_s, end))
    return case


def test_a_head_that_comes_back_before_the_fences_fall_ends_nothing(tmp_path: Path) -> None:
    case = head_is_down(tmp_path, until_s=25)
    assert causes(case.journal) == [Cause.SUCCEEDED]


def test_a_head_that_is_silent_until_the_fences_fall_is_named_as_such(tmp_path: Path) -> None:
    case = head_is_down(tmp_path, until_s=55)
    assert causes(case.journal) == [Cause.HEAD_LOST]


def test_a_reservation_that_is_lost_ends_the_attempt_and_the_command_with_it(tmp_path: Path) -> None:
    case = running(tmp_path)
    driven(case, (1, lambda case, drive: setattr(case.backend, "verdict", "lost")))
    assert (causes(case.journal), case.journal.progress.state) == ([Cause.RESERVATION_LOST], State.PENDING)
    assert case.host.ended[KEY].exit is not None


@pytest.mark.parametrize(
    ("lose", "cause"),
    [
        (lambda case: setattr(case.host.runs[KEY], "guardian", False), Cause.GUARDIAN_LOST),
        (lambda case: case.host.runs.clear(), Cause.NODE_LOST),
        (lambda case: case.host.end(KEY, Cause.COMMAND_KILLED, stopped=True), Cause.NODE_LOST),
    ],
    ids=["the guardian", "the attempt's directory", "cut off"],
)
def test_what_a_node_has_lost_is_an_infrastructure_retry(
    tmp_path: Path, lose: Callable[[Case], Any], cause: Cause
) -> None:
    case = running(tmp_path)
    driven(case, (1, lambda case, drive: lose(case)))
    assert (causes(case.journal), case.journal.progress.state) == ([cause], State.PENDING)
    assert case.journal.progress.infrastructure_retries_used == 1


def test_what_was_put_down_on_purpose_is_queued_again_at_no_cost(tmp_path: Path) -> None:
    case = running(tmp_path, retries=0)
    driven(case, (1, lambda case, drive: case.host.end(KEY, Cause.SUCCEEDED, code=0, stopped=True, put_down=True)))
    assert (causes(case.journal), case.journal.progress.state) == ([Cause.SHUTDOWN], State.PENDING)
    assert case.journal.progress.infrastructure_retries_used == 0


def test_after_the_last_retry_it_is_an_error(tmp_path: Path) -> None:
    case = running(tmp_path, retries=0)
    driven(case, (1, lambda case, drive: setattr(case.host.runs[KEY], "guardian", False)))
    assert case.journal.progress.state is State.ERROR


# --- teardown ---


def torn_down(tmp_path: Path, intended: State, command: Command | None = None) -> Case:
    cause = {
        State.STOPPED: Cause.SUCCEEDED,
        State.FAILED: Cause.COMMAND_EXITED,
        State.CANCELLED: Cause.WISHED,
        State.PENDING: Cause.NODE_LOST,
    }
    command = command or Command(artifacts={"a": b"1"})
    return Case(tmp_path, command, state=State.NETWORK_TEARDOWN, intended=intended, cause=cause[intended])


def ended(case: Case) -> None:
    case.host.end(KEY, Cause.SUCCEEDED, code=0)


TOO_MUCH = NodeError(Cause.ARTIFACTS_NOT_STORED, "there are more than 50000 files")


def test_what_waits_for_the_disk_of_artifacts_waits_in_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case(tmp_path, Command(runs_s=1, artifacts={"a": b"1"}))
    in_threads: list[str] = []

    async def to_thread(work: Any, *arguments: Any) -> Any:
        in_threads.append(work.__name__)
        return work(*arguments)

    monkeypatch.setattr("launcher.teardown.asyncio.to_thread", to_thread)
    driven(case)
    assert [name for name in in_threads if name in {"__enter__", "write", "__exit__"}] == [
        "__enter__",
        "write",
        "__exit__",
    ]


@pytest.mark.parametrize(
    ("intended", "end"), [(State.STOPPED, State.ERROR), (State.FAILED, State.FAILED), (State.PENDING, State.PENDING)]
)
def test_artifacts_that_can_not_be_stored_turn_only_a_success_into_an_error(
    tmp_path: Path, intended: State, end: State
) -> None:
    case = torn_down(tmp_path, intended)

    def before(case: Case) -> None:
        ended(case)
        case.backend.faults["artifacts"].append(TOO_MUCH)

    driven(case, before=before)
    assert case.journal.progress.state is end
    assert case.host.runs == {}


WITHOUT = " A next attempt begins without them."


@pytest.mark.parametrize(("intended", "without"), [(State.FAILED, ""), (State.CANCELLED, ""), (State.PENDING, WITHOUT)])
@pytest.mark.parametrize("rounds", [1, 3])
def test_of_any_other_end_a_reader_is_told_once_that_its_artifacts_could_not_be_kept(
    tmp_path: Path, intended: State, without: str, rounds: int
) -> None:
    case = torn_down(tmp_path, intended)
    there: list[bool] = []

    def before(case: Case) -> None:
        ended(case)
        case.backend.faults["artifacts"].extend([TOO_MUCH] * rounds)
        case.host.leftovers = [("python (pid 7)",)] * (rounds - 1)
        watch_notes(case, lambda: there.append(KEY in case.host.runs))

    driven(case, before=before)
    why = "there are more than 50000 files"
    assert case.journal.notes == [f"The artifacts of attempt 1 on host-a could not be kept: {why}.{without}"]
    assert there == [True]


def watch_notes(case: Case, told: Callable[[], None]) -> None:
    original = case.journal.remark

    async def remark(experiment_id: int, notes: Sequence[str]) -> None:
        told()
        await original(experiment_id, notes)

    case.journal.remark = remark  # type: ignore[method-assign]


@pytest.mark.parametrize(("intended", "end"), [(State.STOPPED, State.ERROR), (State.FAILED, State.FAILED)])
def test_a_log_that_can_not_be_kept_does_not_take_the_artifacts_along(
    tmp_path: Path, intended: State, end: State
) -> None:
    case = torn_down(tmp_path, intended)

    def before(case: Case) -> None:
        ended(case)
        case.backend.faults["read_log"].append(NodeError(Cause.DISK_FULL, "no room"))

    driven(case, before=before)
    assert case.journal.progress.state is end
    assert case.keep.artifacts(7, 1).is_whole
    if intended is State.STOPPED:
        assert case.journal.ends == [(Cause.ARTIFACTS_NOT_STORED, {"why": "the log could not be kept: no room"})]
    else:
        assert case.journal.notes == ["The log of attempt 1 on host-a could not be kept: no room."]


def test_that_neither_log_nor_artifacts_could_be_kept_is_told_of_both(tmp_path: Path) -> None:
    case = torn_down(tmp_path, State.STOPPED)

    def before(case: Case) -> None:
        ended(case)
        case.backend.faults["read_log"].append(NodeError(Cause.DISK_FULL, "no room"))
        case.backend.faults["artifacts"].append(TOO_MUCH)

    driven(case, before=before)
    assert causes(case.journal) == [Cause.ARTIFACTS_NOT_STORED]
    (note,) = case.journal.notes
    assert "artifacts" in note


@pytest.mark.parametrize(("intended", "end"), [(State.STOPPED, State.ERROR), (State.PENDING, State.PENDING)])
def test_artifacts_for_which_there_is_no_room_here_leave_none_of_themselves(
    tmp_path: Path, intended: State, end: State
) -> None:
    case = torn_down(tmp_path, intended, Command(artifacts={"a": b"1" * 1000, "b": b"2" * 1000, "c": b"3"}))

    def before(case: Case) -> None:
        ended(case)
        kept = case.keep.artifacts(7, 1)
        case.keep.free_bytes = lambda: FULL_BYTES + 1500 - sum(each.size for each in kept.files())  # type: ignore[method-assign]

    driven(case, before=before)
    why = "there is no room for 'b' on Descent's own disk, which has 512 MiB left"
    assert case.journal.progress.state is end
    assert case.keep.artifacts(7, 1).files() == []
    assert not case.keep.artifacts(7, 1).is_whole
    if intended is State.STOPPED:
        assert case.journal.ends == [(Cause.ARTIFACTS_NOT_STORED, {"why": why})]
    else:
        assert case.journal.notes == [f"The artifacts of attempt 1 on host-a could not be kept: {why}.{WITHOUT}"]


def test_artifacts_are_called_whole_once_all_of_them_are_stored(tmp_path: Path) -> None:
    stored, refused = torn_down(tmp_path / "a", State.FAILED), torn_down(tmp_path / "b", State.FAILED)
    driven(stored, before=ended)
    assert stored.keep.artifacts(7, 1).is_whole

    def refuse(case: Case) -> None:
        ended(case)
        case.backend.faults["read_artifact"].append(TOO_MUCH)

    driven(refused, before=refuse)
    assert not refused.keep.artifacts(7, 1).is_whole


def test_that_artifacts_are_lost_is_on_record_before_the_node_forgets_them(tmp_path: Path) -> None:
    case = torn_down(tmp_path, State.STOPPED)
    there: list[bool] = []

    def before(case: Case) -> None:
        ended(case)
        case.backend.faults["artifacts"].append(TOO_MUCH)
        case.journal.after = lambda state: there.append(KEY in case.host.runs)

    driven(case, before=before)
    assert there == [True, False]


def test_a_success_whose_node_left_with_the_artifacts_is_an_error_after_one_fence(tmp_path: Path) -> None:
    case = torn_down(tmp_path, State.STOPPED)
    took_s = driven(case, before=left)
    assert causes(case.journal) == [Cause.ARTIFACTS_NOT_STORED]
    assert took_s < 2 * RULES.fence_s


def left(case: Case) -> None:
    """The node has left the cluster, and had begun before."""
    case.journal.held = replace(HELD, nodes=(replace(NODE, state=NodeState.RUNNING),))
    case.backend.nodes.clear()


def test_a_retry_says_that_a_node_left_with_its_artifacts_if_it_had_begun(tmp_path: Path) -> None:
    begun, not_begun = torn_down(tmp_path / "a", State.PENDING), torn_down(tmp_path / "b", State.PENDING)
    driven(begun, before=left)
    driven(not_begun, before=lambda case: case.backend.nodes.clear())
    (note,) = begun.journal.notes
    assert "host-a left the cluster with them" in note
    assert not_begun.journal.notes == []


@pytest.mark.parametrize("fault", [None, NodeError(Cause.DISK_FULL, "the disk is full")], ids=["left", "refuses"])
def test_a_host_that_is_not_proven_clean_is_an_error_and_is_set_apart(tmp_path: Path, fault: NodeError | None) -> None:
    case = torn_down(tmp_path, State.PENDING)

    def before(case: Case) -> None:
        ended(case)
        case.host.leftovers = [("python (pid 7)",)] * 9999
        case.backend.faults["clean"] = [fault] * 9999 if fault else []  # type: ignore[assignment]

    driven(case, before=before)
    assert causes(case.journal) == [Cause.NOT_PROVEN_CLEAN]
    assert case.journal.progress.state is State.ERROR
    assert case.journal.quarantined == {"host-a": fault.why if fault else "python (pid 7)"}
    assert GROUP in case.backend.groups


def test_a_command_that_never_ends_is_not_called_clean(tmp_path: Path) -> None:
    case = torn_down(tmp_path, State.FAILED, Command(ends_at_all=False))
    driven(case)
    assert case.journal.progress.state is State.ERROR
    assert "does not end" in case.journal.quarantined["host-a"]


def test_leftovers_that_go_away_are_waited_for(tmp_path: Path) -> None:
    case = torn_down(tmp_path, State.STOPPED)

    def before(case: Case) -> None:
        ended(case)
        case.host.leftovers = [("python (pid 7)",)] * 3

    driven(case, before=before)
    assert case.journal.progress.state is State.STOPPED


def test_nothing_is_given_back_before_the_node_was_proven_empty(tmp_path: Path) -> None:
    case = Case(tmp_path, Command(runs_s=1))
    left: list[set[str]] = []

    def before(case: Case) -> None:
        case.host.leftovers = [("python (pid 7)",)] * 3
        case.backend.on_release = lambda name: left.append(set(case.host.runs))

    driven(case, before=before)
    assert left == [set()]


def test_every_node_is_cleared_also_when_the_first_one_can_not_be_proven_clean(tmp_path: Path) -> None:
    case = torn_down(tmp_path, State.FAILED)
    second = HeldNode("exp-7-a1-n1", "n2", "host-b", "10.0.0.2")

    def before(case: Case) -> None:
        ended(case)
        case.host.leftovers = [("python (pid 7)",)] * 9999
        other = case.backend.nodes["n2"] = Host("host-b")
        other.runs[second.key] = Run(PrepareOrder("1-abc", "1", True, "bubblewrap"))
        case.journal.held = Held(GROUP, "c1", (NODE, second))

    driven(case, before=before)
    assert case.backend.nodes["n2"].runs == {}
    assert list(case.journal.quarantined) == ["host-a"]
    assert GROUP in case.backend.groups


def test_every_host_that_is_not_proven_clean_is_named(tmp_path: Path) -> None:
    case = torn_down(tmp_path, State.FAILED)
    second = HeldNode("exp-7-a1-n1", "n2", "host-b", "10.0.0.2")

    def before(case: Case) -> None:
        ended(case)
        other = case.backend.nodes["n2"] = Host("host-b")
        case.host.leftovers = [("python (pid 7)",)] * 9999
        other.leftovers = [("sh (pid 8)",)] * 9999
        case.journal.held = Held(GROUP, "c1", (NODE, second))

    driven(case, before=before)
    why = "host-a: python (pid 7); host-b: sh (pid 8)"
    assert case.journal.ends == [(Cause.NOT_PROVEN_CLEAN, {"node": "host-a, host-b", "why": why})]


def test_a_group_that_can_not_be_given_back_now_does_not_hold_up_the_end(tmp_path: Path) -> None:
    case = torn_down(tmp_path, State.STOPPED)

    def before(case: Case) -> None:
        ended(case)
        case.backend.faults["release"] = [BackendError("no")] * 9999

    driven(case, before=before)
    assert case.journal.progress.state is State.STOPPED


def test_an_end_keeps_the_record_of_where_it_ran_and_a_retry_begins_with_nothing(tmp_path: Path) -> None:
    stopped, retried = torn_down(tmp_path / "a", State.STOPPED), torn_down(tmp_path / "b", State.PENDING)
    for case in (stopped, retried):
        driven(case, before=ended)
    assert stopped.journal.held == replace(HELD, nodes=(replace(NODE, state=NodeState.STOPPED),))
    assert retried.journal.held == Held(before=("host-a",))


def test_a_node_that_comes_back_in_time_is_asked_and_not_fenced(tmp_path: Path) -> None:
    case = torn_down(tmp_path, State.STOPPED)

    def before(case: Case) -> None:
        ended(case)
        host = case.backend.nodes.pop("n1")
        at(100, lambda: case.backend.nodes.update(n9=host))

    took_s = driven(case, before=before)
    assert case.journal.progress.state is State.STOPPED
    assert took_s < 101


def test_silence_of_a_node_in_teardown_proves_nothing(tmp_path: Path) -> None:
    case = torn_down(tmp_path, State.PENDING)
    driven(case, before=lambda case: case.backend.faults["status"].extend([NodeUnavailable("no")] * 9999))
    assert causes(case.journal) == [Cause.NOT_PROVEN_CLEAN]
    assert GROUP in case.backend.groups


@pytest.mark.parametrize("between", ["silence", "an answer"])
def test_only_an_absence_without_a_break_fences_a_node(tmp_path: Path, between: str) -> None:
    case = torn_down(tmp_path, State.PENDING)

    def before(case: Case) -> None:
        ended(case)
        host = case.backend.nodes.pop("n1")
        host.leftovers = [("python (pid 7)",)] * 9999
        if between == "silence":
            at(100, lambda: case.backend.faults["capacity"].append(BackendError("no")))
        else:
            at(100, lambda: case.backend.nodes.update(n1=host))
            at(101, case.backend.nodes.clear)

    fence_s = RULES.fence_s + LEASE_S + RULES.grace_s
    assert driven(case, before=before) > 100 + fence_s
    assert case.journal.progress.state is State.PENDING


def test_artifacts_that_come_slowly_and_do_come_are_waited_for(tmp_path: Path) -> None:
    case = torn_down(tmp_path, State.STOPPED, Command(artifacts=dict.fromkeys("abcdef", b"1")))

    def before(case: Case) -> None:
        ended(case)
        case.host.slow = {"read_artifact": TEARDOWN_S / 3}
        at(TEARDOWN_S * 1.5, lambda: case.backend.faults["read_artifact"].append(NodeUnavailable("no")))

    assert driven(case, before=before) > TEARDOWN_S
    assert case.journal.progress.state is State.STOPPED
    assert len(case.keep.artifacts(7, 1).files()) == 6
