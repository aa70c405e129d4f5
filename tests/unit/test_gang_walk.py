"""Attempts of several nodes: started together, ended by whoever decides or fails, for the cause that came first."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from launcher.attempt import Attempt, Rules
from launcher.controller import RETURNED_S, Drive
from launcher.experiment import Held, HeldNode, NodeGroup, NodeState, Role, Specification
from launcher.keep import Keep
from launcher.machines import Machine
from launcher.node_types import Daemon, NodeError, StartOrder
from launcher.state import Cause, Progress, State
from launcher.watch import DAEMON_S
from tests.fakes import EPOCH, Command, FakeBackend, FakeJournal, Host, clock, names, play

FORWARD = [State.PROVISIONED, State.NETWORK_SETUP, State.RUNNING, State.NETWORK_TEARDOWN]
FOREVER = Command()
RULES = Rules(grace_s=10, fence_s=120)


def grpc(workers: int, servers: int) -> Specification:
    groups = (
        NodeGroup(role=Role.WORKER, count=workers, command="python train.py"),
        NodeGroup(role=Role.PARAMETER_SERVER, count=servers, command="python serve.py"),
    )
    return Specification(name="x", topology="multi-grpc", groups=groups, timeout_s=600)


def torch(workers: int) -> Specification:
    group = NodeGroup(role=Role.WORKER, count=workers, command="torchrun train.py")
    return Specification(name="x", topology="multi-torch", groups=(group,), timeout_s=600)


def mpi(workers: int) -> Specification:
    groups = (
        NodeGroup(role=Role.MASTER, command="mpirun python train.py"),
        NodeGroup(role=Role.WORKER, count=workers, command="sleep infinity"),
    )
    return Specification(name="x", topology="multi-mpi", groups=groups, timeout_s=600)


@dataclass
class Gang:
    """A gang on hosts host-0, host-1, … in the order of its ranks; what each host's command does."""

    root: Path
    specification: Specification
    commands: Mapping[int, Command] = field(default_factory=dict)
    retries: int = 0
    attempt: int = 1
    before: tuple[str, ...] = ()
    rules: Rules = RULES

    def set_up(self) -> None:
        count = sum(group.count for group in self.specification.groups)
        self.hosts = [Host(f"host-{n}", self.commands.get(n, FOREVER)) for n in range(count)]
        self.backend = FakeBackend({f"n{n}": host for n, host in enumerate(self.hosts)})
        progress = Progress(State.PROVISIONING, attempt=self.attempt, infrastructure_retries=self.retries)
        self.journal = FakeJournal(progress, held=Held(before=self.before))
        self.keep = Keep(self.root)
        self.keep.code("1-abc").path.write_bytes(b"the archive")

    def drive(self) -> Drive:
        attempt = Attempt(
            experiment_id=7,
            specification=self.specification,
            machines=tuple(Machine("default") for _ in self.specification.groups),
            progress=self.journal.progress,
            held=self.journal.held,
            code=self.keep.code("1-abc"),
            env={"EPOCHS": "3"},
            storage_key="1",
            trusted=True,
            running_at=None,
            entered_at=clock(),
            taken_up_at=clock(),
        )
        return Drive(attempt, self.backend, self.journal, self.keep, self.rules, clock)

    def key(self, rank: int) -> str:
        return f"exp-7-a{self.attempt}-n{rank}"

    def node(self, rank: int) -> HeldNode:
        return self.journal.held.nodes[rank]

    def detail(self) -> dict[str, Any]:
        return self.journal.ends[0][1]


def run(gang: Gang, *script: tuple[float, Callable[[Gang, Drive], Any]], before: Any = lambda gang: None) -> float:
    """Drive it to where it leads, doing things so many seconds after it began to run; the seconds it ran."""

    async def main() -> float:
        gang.set_up()
        before(gang)
        drive, loop, running_at = gang.drive(), asyncio.get_running_loop(), []

        def after(state: State) -> None:
            if state is State.RUNNING and not running_at:
                running_at.append(loop.time())
                for delay_s, act in script:
                    loop.call_later(delay_s, act, gang, drive)
            if state is State.NETWORK_TEARDOWN and running_at:
                running_at.append(loop.time())

        gang.journal.after = after
        await drive.run()
        return running_at[1] - running_at[0] if len(running_at) > 1 else 0.0

    return play(main())


def fails(rank: int, cause: Cause = Cause.COMMAND_EXITED, code: int | None = 1) -> Callable[[Gang, Drive], None]:
    return lambda gang, drive: gang.hosts[rank].end(gang.key(rank), cause, code=code)


# --- the way forward ---


def test_nothing_starts_before_every_node_has_reached_every_other(tmp_path: Path) -> None:
    gang = Gang(tmp_path, grpc(2, 1), {0: Command(runs_s=5)})
    run(gang)
    assert gang.journal.states == [*FORWARD, State.STOPPED]
    calls = names(gang.backend.calls, "prepare", "reserve_ports", "connect", "start")
    assert calls == ["prepare"] * 3 + ["reserve_ports"] * 3 + ["connect"] * 3 + ["start"] * 3


def test_every_node_is_told_its_rank_its_peers_and_what_the_configuration_says(tmp_path: Path) -> None:
    gang = Gang(tmp_path, grpc(2, 1), {0: Command(runs_s=5)})
    run(gang)
    orders = [started(gang, rank) for rank in range(3)]
    assert [environment(order)["INDEX"] for order in orders] == ["0", "1", "0"]
    for rank, order in enumerate(orders):
        assert environment(order)["EPOCHS"] == "3"
        assert order.document is not None
        assert order.document.hostname == gang.key(rank)
        assert [name for _, name in order.document.hosts] == [gang.key(0), gang.key(1), gang.key(2)]
    assert [order.command for order in orders] == ["python train.py"] * 2 + ["python serve.py"]


def started(gang: Gang, rank: int) -> StartOrder:
    """What a node was told to start, with the network document that it then knew."""
    order = gang.hosts[rank].ended[gang.key(rank)].start
    assert order is not None
    return order


def environment(order: StartOrder) -> dict[str, str]:
    assert order.document is not None
    return {**order.document.env, **order.env}


def test_nothing_starts_before_every_node_has_the_network_document(tmp_path: Path) -> None:
    gang = Gang(tmp_path, grpc(2, 1), {0: Command(runs_s=5)})

    def slow(gang: Gang) -> None:
        gang.hosts[2].slow = {"connect": 20}

    run(gang, before=slow)
    runs = [host.ended[gang.key(rank)] for rank, host in enumerate(gang.hosts)]
    assert all(each.told is not None for each in runs)
    assert min(each.started_at or 0 for each in runs) >= EPOCH + 20


def test_a_node_that_does_not_acknowledge_the_network_document_keeps_all_from_starting(tmp_path: Path) -> None:
    gang = Gang(tmp_path, torch(3))
    fault = NodeError(Cause.DISK_FULL, "no room")
    run(gang, before=lambda gang: gang.backend.faults["connect"].append(fault))
    assert names(gang.backend.calls, "start") == []
    assert gang.journal.ends[0][0] is Cause.DISK_FULL


def test_what_the_nodes_were_told_of_each_other_stays_whatever_the_next_worker_believes(tmp_path: Path) -> None:
    gang = Gang(tmp_path, mpi(1), {0: Command(runs_s=5)})

    def drive(cpus: int) -> Drive:
        made = gang.drive()
        made.attempt = replace(made.attempt, machines=(Machine("default", cpus=cpus),) * 2)
        return made

    async def main() -> None:
        gang.set_up()
        task = asyncio.ensure_future(drive(2).run())
        while not names(gang.backend.calls, "start"):
            await asyncio.sleep(0.0001)
        task.cancel()  # the worker dies, and the next one has another machines.yaml
        await asyncio.gather(task, return_exceptions=True)
        await drive(8).run()

    play(main())
    documents = [started(gang, rank).document for rank in range(2)]
    both = f"{gang.key(0)}\n" * 2 + f"{gang.key(1)}\n" * 2
    assert [each.files["hostfile"] for each in documents if each] == [both, both]


def test_a_gang_of_one_is_told_what_a_gang_is(tmp_path: Path) -> None:
    gang = Gang(tmp_path, torch(1), {0: Command(runs_s=1)})
    run(gang)
    assert environment(started(gang, 0))["WORLD_SIZE"] == "1"


def test_every_reserved_port_is_tried_with_one_question_to_each_node(tmp_path: Path) -> None:
    gang = Gang(tmp_path, torch(2), {0: Command(runs_s=1), 1: Command(runs_s=1)})
    tried: list[list[int]] = []

    def before(gang: Gang) -> None:
        original = gang.backend.why_unreached
        gang.backend.why_unreached = lambda port: tried.append(port) or original(port)  # type: ignore[method-assign,func-returns-value]

    run(gang, before=before)
    assert sorted(tried) == sorted(port for node in gang.journal.held.nodes for port in node.ports.values())
    assert names(gang.backend.calls, "connect") == ["connect"] * 2


def test_the_configurations_own_variables_win(tmp_path: Path) -> None:
    gang = Gang(tmp_path, torch(2), {0: Command(runs_s=1), 1: Command(runs_s=1)})

    def drive() -> Drive:
        drive = Gang.drive(gang)
        drive.attempt = replace(drive.attempt, env={"PET_NPROC_PER_NODE": "2"})
        return drive

    gang.drive = drive  # type: ignore[method-assign]
    run(gang)
    told = environment(started(gang, 1))
    assert (told["PET_NPROC_PER_NODE"], told["PET_NODE_RANK"]) == ("2", "1")


def test_a_single_node_takes_no_step_of_a_gang(tmp_path: Path) -> None:
    single = Specification(
        name="x", topology="single", groups=(NodeGroup(role=Role.WORKER, command="true"),), timeout_s=9
    )
    gang = Gang(tmp_path, single, {0: Command(runs_s=1)})
    run(gang)
    assert gang.journal.states == [*FORWARD, State.STOPPED]
    assert names(gang.backend.calls, "reserve_ports", "connect") == []


def test_a_new_worker_does_not_connect_again_what_may_have_begun(tmp_path: Path) -> None:
    gang = Gang(tmp_path, torch(2), {0: Command(runs_s=5), 1: Command(runs_s=5)})

    async def main() -> None:
        gang.set_up()
        first = gang.drive()
        task = asyncio.ensure_future(first.run())
        while not (starts := names(gang.backend.calls, "start")):
            await asyncio.sleep(0.0001)
        task.cancel()  # the worker dies with some of them started
        await asyncio.gather(task, return_exceptions=True)
        assert len(starts) < 3
        await gang.drive().run()

    play(main())
    assert gang.journal.progress.state is State.STOPPED
    assert names(gang.backend.calls, "connect") == ["connect"] * 2


# --- who decides ---


def test_the_end_of_worker_0_ends_a_grpc_gang_and_the_others_are_stopped_which_is_no_failure(tmp_path: Path) -> None:
    gang = Gang(tmp_path, grpc(2, 1), {0: Command(runs_s=5)})
    run(gang)
    assert gang.journal.progress.state is State.STOPPED
    assert [gang.node(rank).state for rank in range(3)] == [NodeState.ENDED, NodeState.STOPPED, NodeState.STOPPED]
    assert gang.node(0).exit_code == 0


def test_a_worker_that_ends_well_before_the_master_ends_nothing(tmp_path: Path) -> None:
    gang = Gang(tmp_path, grpc(2, 1), {0: Command(runs_s=50), 1: Command(runs_s=5)})
    assert run(gang) >= 50
    assert gang.journal.progress.state is State.STOPPED


def test_a_torch_gang_succeeds_when_every_node_has(tmp_path: Path) -> None:
    gang = Gang(tmp_path, torch(2), {0: Command(runs_s=5), 1: Command(runs_s=40)})
    assert run(gang) >= 40
    assert gang.journal.progress.state is State.STOPPED


def test_who_fails_before_the_master_ends_fails_the_gang(tmp_path: Path) -> None:
    gang = Gang(tmp_path, grpc(2, 1))
    assert run(gang, (5, fails(2, code=3))) < 7
    assert gang.journal.progress.state is State.FAILED
    assert gang.detail()["who"] == "parameter-server 0 on host-2"
    assert (gang.detail()["rank"], gang.detail()["exit_code"], gang.detail()["others"]) == (2, 3, 2)


# --- which cause was the first ---


def test_the_first_cause_is_named_and_not_the_avalanche_whatever_the_clocks_say(tmp_path: Path) -> None:
    gang = Gang(tmp_path, torch(4))

    def skewed(gang: Gang) -> None:
        gang.hosts[2].skew_s = 3600
        gang.hosts[1].skew_s = -60

    out = fails(2, Cause.OUT_OF_MEMORY, 137)
    run(gang, (5, fails(1)), (5.05, fails(0)), (4.98, out), (5.1, fails(3)), before=skewed)
    assert gang.journal.ends[0][0] is Cause.OUT_OF_MEMORY
    assert gang.detail()["who"] == "worker 2 on host-2"


def test_a_node_that_is_lost_is_the_cause_of_its_peers_failures(tmp_path: Path) -> None:
    gang = Gang(tmp_path, torch(3), retries=1)

    def cut(gang: Gang, drive: Drive) -> None:
        gang.backend.hanging.add("n1")
        asyncio.get_running_loop().call_later(60, gang.backend.hanging.clear)

    took_s = run(gang, (5, cut), (6, fails(0)), (6.1, fails(2)))
    assert took_s <= 5 + 15 + 10
    assert gang.journal.ends[0][0] is Cause.NODE_LOST
    assert gang.detail()["node"] == "host-1"
    assert gang.journal.progress.state is State.PENDING
    assert gang.journal.held.before == ("host-0", "host-1", "host-2")


def test_a_reservation_lost_with_its_node_is_no_failure_of_the_peers(tmp_path: Path) -> None:
    gang = Gang(tmp_path, torch(2), retries=1)

    def lose(gang: Gang, drive: Drive) -> None:
        gang.backend.hanging.add("n0")
        gang.backend.verdict = "lost"
        asyncio.get_running_loop().call_later(60, gang.backend.hanging.clear)

    run(gang, (5, lose), (8, fails(1)))
    assert gang.journal.ends[0][0] is Cause.NODE_LOST
    assert gang.journal.progress.state is State.PENDING


def test_who_failed_long_before_the_master_ended_fails_the_gang_however_late_we_hear_of_it(tmp_path: Path) -> None:
    gang = Gang(tmp_path, grpc(2, 1), {0: Command(runs_s=10)})

    def cut(gang: Gang, drive: Drive) -> None:
        gang.backend.silent.add("n1")
        asyncio.get_running_loop().call_later(8, gang.backend.silent.clear)

    run(gang, (4, cut), (5, fails(1, code=3)))
    assert (gang.journal.ends[0][0], gang.detail()["who"]) == (Cause.COMMAND_EXITED, "worker 1 on host-1")


def test_what_the_masters_good_end_made_fail_is_no_failure(tmp_path: Path) -> None:
    gang = Gang(tmp_path, grpc(2, 1), {0: Command(runs_s=10)})
    run(gang, (9.9, fails(1)))
    assert gang.journal.progress.state is State.STOPPED


def test_what_the_masters_good_end_can_not_have_made_fail_is_a_failure(tmp_path: Path) -> None:
    gang = Gang(tmp_path, grpc(2, 1), {0: Command(runs_s=10)})
    run(gang, (9.9, fails(1, Cause.OUT_OF_MEMORY, None)))
    assert gang.journal.progress.state is State.FAILED
    assert (gang.journal.ends[0][0], gang.detail()["who"]) == (Cause.OUT_OF_MEMORY, "worker 1 on host-1")


def test_only_who_still_ran_was_stopped(tmp_path: Path) -> None:
    gang = Gang(tmp_path, torch(3), {0: Command(runs_s=2)})
    run(gang, (5, fails(1)))
    assert gang.detail()["others"] == 1


def test_a_peer_that_can_not_be_reached_is_named(tmp_path: Path) -> None:
    gang = Gang(tmp_path, torch(3), retries=0)

    def wall(gang: Gang) -> None:
        gang.hosts[2].walled = "no route to host"

    run(gang, before=wall)
    assert State.RUNNING not in gang.journal.states
    assert gang.journal.ends[0][0] is Cause.PEER_UNREACHABLE
    why = gang.detail()["why"]
    assert why.startswith("Node 0 (worker 0 on host-0, 10.0.0.")
    assert "cannot reach" in why
    assert "worker 2 on host-2" in why
    assert "no route to host" in why
    assert why.endswith("; 1 more pair can't either")


# --- MPI ---


def daemon(rank: int, **end: Any) -> Callable[[Gang, Drive], None]:
    known = {"id": "d1", "name": "orted", "exit_code": None, "signal": None, "at": None} | end

    def record(gang: Gang, drive: Drive) -> None:
        gang.hosts[rank].runs[gang.key(rank)].daemons = (Daemon(**known),)
        gang.hosts[rank].bump()

    return record


def killed(rank: int, signal: str) -> Callable[[Gang, Drive], None]:
    def now(gang: Gang, drive: Drive) -> None:
        daemon(rank, signal=signal, at=clock())(gang, drive)

    return now


def test_workers_of_mpi_are_there_before_the_master_begins(tmp_path: Path) -> None:
    gang = Gang(tmp_path, mpi(2), {0: Command(runs_s=5)})
    run(gang)
    assert gang.journal.progress.state is State.STOPPED
    started = [node for method, node in gang.backend.calls if method == "start"]
    assert started[-1] == "n0"
    launches = [host.ended[gang.key(rank)].start.launch for rank, host in enumerate(gang.hosts)]  # type: ignore[union-attr]
    assert [launch.serves for launch in launches if launch] == [False, True, True]
    assert set(launches[0].peers) == {gang.key(1), gang.key(2)}  # type: ignore[union-attr]


def test_an_mpirun_that_returns_0_is_no_success_when_a_daemon_was_killed(tmp_path: Path) -> None:
    gang = Gang(tmp_path, mpi(2), {0: Command(runs_s=6)})
    run(gang, (5, daemon(1, signal="SIGKILL", at=1.0)))
    assert gang.journal.progress.state is State.FAILED
    assert gang.journal.ends[0][0] is Cause.DAEMON_LOST
    assert gang.detail()["who"] == "worker 0 on host-1"


def test_an_mpirun_that_fails_for_a_daemon_that_was_killed_names_the_daemon(tmp_path: Path) -> None:
    gang = Gang(tmp_path, mpi(2))
    run(gang, (5, killed(1, "SIGKILL")), (5.2, fails(0, code=205)))
    assert gang.journal.ends[0][0] is Cause.DAEMON_LOST
    assert gang.detail()["who"] == "worker 0 on host-1"


def test_a_daemon_that_ends_with_an_mpirun_that_failed_is_not_its_cause(tmp_path: Path) -> None:
    gang = Gang(tmp_path, mpi(2))
    run(gang, (4.9, killed(2, "SIGTERM")), (5, fails(0, code=3)), (5.1, killed(1, "SIGKILL")))
    assert (gang.journal.ends[0][0], gang.detail()["exit_code"]) == (Cause.COMMAND_EXITED, 3)


def test_nor_when_ray_lost_the_reservation_first(tmp_path: Path) -> None:
    gang = Gang(tmp_path, mpi(2), {0: Command(runs_s=5.5)})

    def lose(gang: Gang, drive: Drive) -> None:
        gang.backend.verdict = "lost"
        gang.backend.silent.add("n0")  # it is heard of only after
        asyncio.get_running_loop().call_later(3, gang.backend.silent.clear)

    run(gang, (4, daemon(1, signal="SIGKILL", at=1.0)), (5, lose))
    assert gang.journal.ends[0][0] is Cause.DAEMON_LOST


def test_an_mpirun_that_never_ends_after_it_lost_a_daemon_is_ended(tmp_path: Path) -> None:
    gang = Gang(tmp_path, mpi(2))
    took_s = run(gang, (5, daemon(2, exit_code=255, at=1.0)))
    assert 5 + DAEMON_S <= took_s <= 5 + DAEMON_S + 5
    assert gang.journal.ends[0][0] is Cause.DAEMON_LOST


def test_daemons_that_ended_well_end_nothing(tmp_path: Path) -> None:
    gang = Gang(tmp_path, mpi(1), {0: Command(runs_s=60)})
    assert run(gang, (5, daemon(1, exit_code=0, at=1.0))) >= 60
    assert gang.journal.progress.state is State.STOPPED


def gone(rank: int, *, master_s: float) -> Callable[[Gang, Drive], None]:
    """A daemon fails now; its mpirun was seen to have gone so many seconds before, by the master's clock."""

    def both(gang: Gang, drive: Drive) -> None:
        host, master = gang.hosts[rank], gang.hosts[0]
        master.runs[gang.key(0)].mpirun_gone = {"d1": clock() + master.skew_s - master_s}
        daemon(rank, exit_code=1, at=clock() + host.skew_s)(gang, drive)

    return both


def wrong_clocks(gang: Gang) -> None:
    gang.hosts[0].skew_s, gang.hosts[1].skew_s = -40, 300


@pytest.mark.parametrize("runs_s", [6, 60])
def test_a_daemon_that_fails_because_its_mpirun_had_gone_is_no_loss(tmp_path: Path, runs_s: float) -> None:
    gang = Gang(tmp_path, mpi(2), {0: Command(runs_s=runs_s)})
    assert run(gang, (5, gone(1, master_s=0.1)), before=wrong_clocks) >= runs_s
    assert gang.journal.progress.state is State.STOPPED


def test_a_daemon_that_its_mpirun_ends_for_is_a_loss_however_well_that_ends(tmp_path: Path) -> None:
    gang = Gang(tmp_path, mpi(2), {0: Command(runs_s=6)})
    run(gang, (5, gone(1, master_s=-0.5)), before=wrong_clocks)
    assert gang.journal.ends[0][0] is Cause.DAEMON_LOST


def test_a_daemon_that_its_mpirun_has_told_to_end_is_no_loss(tmp_path: Path) -> None:
    gang = Gang(tmp_path, mpi(2), {0: Command(runs_s=60)})
    assert run(gang, (5, killed(1, "SIGTERM"))) >= 60
    assert gang.journal.progress.state is State.STOPPED


# --- what is lost before the commands run ---


LOSSES: dict[str, Callable[[FakeBackend], Any]] = {
    "it does not answer": lambda backend: backend.hanging.add("n1"),
    "it refuses": lambda backend: backend.silent.add("n1"),
    "it left": lambda backend: backend.nodes.pop("n1"),
}
LONG = {State.PROVISIONING: "prepare", State.PROVISIONED: "reserve_ports", State.NETWORK_SETUP: "start"}


@pytest.mark.parametrize("state", LONG)
@pytest.mark.parametrize("loss", LOSSES)
def test_a_node_that_dies_in_any_state_is_named_within_15_s(tmp_path: Path, state: State, loss: str) -> None:
    gang = Gang(tmp_path, torch(3), retries=1)
    ended_at: list[float] = []

    async def main() -> None:
        gang.set_up()
        for host in gang.hosts:
            host.slow = {LONG[state]: 400 if state is State.PROVISIONING else 100}
        loop = asyncio.get_running_loop()
        gang.journal.after = lambda reached: ended_at.append(loop.time())
        drive = asyncio.ensure_future(gang.drive().run())
        while LONG[state] not in {method for method, _ in gang.backend.calls}:
            await asyncio.sleep(0.01)
        await asyncio.sleep(7)
        ended_at.clear()
        died_at = loop.time()
        LOSSES[loss](gang.backend)
        while not ended_at:
            await asyncio.sleep(0.01)
        ended_at.append(died_at)
        gang.backend.hanging.clear()
        gang.backend.silent.clear()
        await drive

    play(main())
    assert (gang.journal.ends[0][0], gang.detail()["node"]) == (Cause.NODE_LOST, "host-1")
    assert ended_at[0] - ended_at[-1] <= 15.1


def test_a_living_node_may_take_its_time_to_prepare(tmp_path: Path) -> None:
    gang = Gang(tmp_path, torch(2), {0: Command(runs_s=1), 1: Command(runs_s=1)})

    def slow(gang: Gang) -> None:
        gang.hosts[1].slow = {"prepare": 800}

    run(gang, before=slow)
    assert gang.journal.progress.state is State.STOPPED


def test_a_node_whose_agent_only_begins_is_waited_for(tmp_path: Path) -> None:
    gang = Gang(tmp_path, torch(2), {0: Command(runs_s=1), 1: Command(runs_s=1)})

    def slow(gang: Gang) -> None:
        gang.hosts[1].slow = {"facts": 25, "status": 25}
        asyncio.get_running_loop().call_later(20, gang.hosts[1].slow.pop, "status")

    run(gang, before=slow)
    assert gang.journal.progress.state is State.STOPPED


@pytest.mark.parametrize("state", LONG)
def test_a_reservation_that_is_lost_before_the_commands_run_ends_the_attempt(tmp_path: Path, state: State) -> None:
    gang = Gang(tmp_path, torch(2), retries=1)
    began = 0.0

    async def main() -> float:
        nonlocal began
        gang.set_up()
        for host in gang.hosts:
            host.slow = {LONG[state]: 100}
        drive = asyncio.ensure_future(gang.drive().run())
        while LONG[state] not in {method for method, _ in gang.backend.calls}:
            await asyncio.sleep(0.01)
        began = asyncio.get_running_loop().time()
        gang.backend.verdict = "lost"
        await drive
        return asyncio.get_running_loop().time() - began

    assert play(main()) < 15
    assert gang.journal.ends[0][0] is Cause.RESERVATION_LOST


# --- what a node made ---


def test_each_nodes_log_and_artifacts_are_kept_apart(tmp_path: Path) -> None:
    commands = {
        n: Command(runs_s=5, log=((0, f"node {n}\n".encode()),), artifacts={"model": str(n).encode()}) for n in range(2)
    }
    gang = Gang(tmp_path, torch(2), commands)
    run(gang)
    for rank in range(2):
        assert gang.keep.log(7, 1, rank, 1 << 20).read(0, 1 << 20).data == f"node {rank}\n".encode()
        assert (gang.keep.artifacts(7, 1).directory / f"worker-{rank}/model").read_bytes() == str(rank).encode()


def test_the_artifacts_of_the_attempt_before_are_there_again_each_on_its_node(tmp_path: Path) -> None:
    gang = Gang(tmp_path, torch(2), {0: Command(runs_s=5), 1: Command(runs_s=5)}, attempt=3)

    def earlier(gang: Gang) -> None:
        for rank in range(2):
            with gang.keep.artifacts(7, 2, f"worker-{rank}").receive("checkpoints/last", 3) as file:
                file.write(f"ck{rank}".encode())

    run(gang, before=earlier)
    returned = [host.ended[gang.key(rank)].returned for rank, host in enumerate(gang.hosts)]
    assert returned == [{"checkpoints/last": b"ck0"}, {"checkpoints/last": b"ck1"}]


def test_what_was_only_half_stored_of_an_attempt_replaces_but_does_not_hide_what_was_there(tmp_path: Path) -> None:
    gang = Gang(tmp_path, torch(1), {0: Command(runs_s=5)}, attempt=4)

    def earlier(gang: Gang) -> None:
        for attempt, files in enumerate(({"old": b"1"}, {"a": b"2", "b": b"2"}, {"a": b"3"}), 1):
            store = gang.keep.artifacts(7, attempt, "worker-0")
            for path, data in files.items():
                with store.receive(path, len(data)) as file:
                    file.write(data)
            if attempt < 3:
                store.seal()

    run(gang, before=earlier)
    assert gang.hosts[0].ended[gang.key(0)].returned == {"a": b"3", "b": b"2"}


def test_no_deadline_ends_artifacts_that_are_on_their_way_back(tmp_path: Path) -> None:
    gang = Gang(tmp_path, torch(1), {0: Command(runs_s=5)}, attempt=2)
    run(gang, before=many_artifacts(put_s=50))
    assert len(gang.hosts[0].ended[gang.key(0)].returned) == 40
    assert gang.journal.progress.state is State.STOPPED


def test_artifacts_that_do_not_get_on_are_ended(tmp_path: Path) -> None:
    gang = Gang(tmp_path, torch(1), {0: Command(runs_s=5)}, attempt=2)
    run(gang, before=many_artifacts(put_s=RETURNED_S + 5))
    assert gang.journal.ends[0][0] is Cause.DEADLINE


def many_artifacts(put_s: float) -> Callable[[Gang], None]:
    def keep(gang: Gang) -> None:
        for number in range(40):
            with gang.keep.artifacts(7, 1, "worker-0").receive(f"{number}", 1) as file:
                file.write(b"x")
        gang.hosts[0].slow = {"put_artifact": put_s}

    return keep


def test_a_retry_elsewhere_says_that_storage_is_not_shared(tmp_path: Path) -> None:
    gang = Gang(tmp_path, torch(1), {0: Command(runs_s=5)}, attempt=2, before=("host-9",))
    run(gang)
    assert any("/storage" in note and "host-9" in note for note in gang.journal.notes)
    shared = Gang(tmp_path / "b", torch(1), {0: Command(runs_s=5)}, attempt=2, before=("host-9",))
    shared.rules = replace(RULES, shared_storage=True)
    run(shared)
    assert shared.journal.notes == []
