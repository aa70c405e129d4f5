"""One node's command has another run something, through the launch agent, with real processes and no MPI."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher import launch_door
from tests.integration.node.conftest import ISOLATIONS, needs_sandbox
from tests.integration.node.mpi_ground import Gang, gang_of

AGENT = "$OMPI_MCA_plm_rsh_agent"
SOCKET = """
import os, socket, sys
place = os.path.dirname(os.environ["OMPI_MCA_plm_rsh_agent"])
def say(*parts):
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(60)
        s.connect(place + "/agent.sock")
        try:
            for part in parts:
                s.sendall(part)
            s.shutdown(socket.SHUT_WR)
            return s.recv(1000)
        except OSError as error:
            return repr(error).encode()
"""


@pytest.fixture
def gang(tmp_path: Path, seed: Path) -> Iterator[Gang]:
    with gang_of(tmp_path, seed, 2) as found:
        yield found


@pytest.mark.parametrize("isolation", ISOLATIONS)
def test_a_command_runs_on_the_other_node_and_its_code_comes_back(gang: Gang, isolation: str) -> None:
    gang.start(
        f"{AGENT} -x rank1 'A=1' \\; export A \\; 'echo $A $DESCENT_ATTEMPT $PWD' \\; exit 7", isolation=isolation
    )
    assert gang.code() == 7
    where = "/workspace" if isolation == "bubblewrap" else f"{gang.roots[1]}/attempts/{gang.keys[1]}/workspace"
    assert gang.log(1) == f"1 {gang.keys[1]} {where}\n"
    (daemon,) = gang.daemons(1)
    assert (daemon.exit_code, daemon.signal) == (7, None)
    gang.end()


@pytest.mark.parametrize(("number", "name"), [(9, "SIGKILL"), (40, "signal 40")])
def test_a_signal_is_told_as_one(gang: Gang, number: int, name: str) -> None:
    gang.start(f"{AGENT} rank1 'kill -{number} $$'", isolation="none")
    assert gang.code() == 128 + number
    assert [each.signal for each in gang.daemons(1)] == [name]


def test_a_host_that_is_none_of_ours_is_refused_by_name(gang: Gang) -> None:
    gang.start(f"{AGENT} elsewhere true", isolation="none")
    assert gang.code() == 255
    assert gang.log() == "descent: no node named elsewhere in this experiment; nodes are rank0, rank1\n"


def test_a_command_for_the_node_itself_runs_where_it_was_asked_for(gang: Gang) -> None:
    gang.start(f"{AGENT} rank0 'echo $DESCENT_ATTEMPT' \\; exit 4", isolation="none")
    assert gang.code() == 4
    assert gang.log() == f"{gang.keys[0]}\n"


def test_a_worker_can_start_nothing_elsewhere(gang: Gang) -> None:
    gang.start("sleep 600", f"{AGENT} rank0 true", isolation="none")
    gang.until(lambda: gang.phase(1) == "ended")
    assert gang.log(1) == "descent: rank1 only serves the mpirun of another node, and can start nothing on rank0\n"


def test_a_preparation_is_waited_for_and_the_user_is_told(gang: Gang, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch_door, "NOTICE_S", 0.1)
    monkeypatch.setattr(launch_door, "POLL_S", 0.2)
    worker = "while [ ! -e $PS_JOBSPACE/go ]; do sleep 0.1; done; echo prepared; sleep infinity"
    gang.start(f"{AGENT} rank1 echo started", worker, isolation="none")
    gang.until(gang.log)
    next_step = "if its command only waits, write `sleep infinity`"
    assert gang.log() == f"descent: waiting for node rank1: its preparation still runs; {next_step}\n"
    gang.go(1)
    assert gang.code() == 0
    assert gang.log(1) == "prepared\nstarted\n"


def test_a_failed_preparation_ends_the_node_with_its_code(gang: Gang) -> None:
    gang.start(f"sleep 1; {AGENT} rank1 true", "echo begun; (exit 3) && sleep infinity", isolation="none")
    gang.until(lambda: gang.phase(1) == "ended")
    status = gang.nodes[1].status([gang.keys[1]])[gang.keys[1]]
    assert status.exit is not None
    assert status.exit.exit_code == 3
    assert gang.log(1) == "begun\n"
    assert gang.code() == 255
    assert gang.log() == "descent: node rank1: its command is ended\n"


def test_a_node_that_does_not_answer_is_named(gang: Gang, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch_door, "NOTICE_S", 0.1)
    monkeypatch.setattr(launch_door, "UNREACHED_S", 1.0)
    gang.down.add(1)
    gang.start(f"{AGENT} rank1 true", isolation="none")
    assert gang.code() == 255
    assert gang.log().splitlines() == [
        "descent: waiting for node rank1: it can't be reached: its agent is down",
        "descent: node rank1 can't be reached: its agent is down",
    ]


def test_what_runs_when_its_node_is_stopped_has_the_grace(gang: Gang) -> None:
    gang.start(
        f"{AGENT} rank1 'trap \"echo saved; exit 4\" TERM; echo up; while :; do sleep 0.1; done'", isolation="none"
    )
    gang.until(lambda: "up" in gang.log(1))
    gang.nodes[1].stop(gang.keys[1], 30)
    gang.until(lambda: gang.phase(1) == "ended")
    assert gang.log(1).splitlines()[-1] == "saved"
    assert [each.exit_code for each in gang.daemons(1)] == [4]
    assert gang.code() == 4


@needs_sandbox
def test_what_was_killed_with_its_node_is_told_as_killed(gang: Gang) -> None:
    gang.start(f"{AGENT} rank1 'trap \"\" TERM; echo up; while :; do sleep 0.1; done'")
    gang.until(lambda: "up" in gang.log(1))
    gang.nodes[1].stop(gang.keys[1], 0)
    gang.until(lambda: gang.phase(1) == "ended")
    assert [each.signal for each in gang.daemons(1)] == ["SIGKILL"]
    assert gang.code() == 137
    gang.replace(1)
    assert [each.signal for each in gang.daemons(1)] == ["SIGKILL"]
    gang.end()


def test_a_successor_bears_what_was_half_removed(gang: Gang) -> None:
    gang.start("true", isolation="none")
    assert gang.code() == 0
    shutil.rmtree(gang.roots[0] / "attempts" / gang.keys[0] / "launch")
    gang.replace(0)
    gang.end()


@needs_sandbox
def test_nonsense_on_the_socket_harms_nobody(gang: Gang) -> None:
    script = SOCKET + (
        'lie = b\'{"ended": {"id": "%s", "exit_code": -5}}\\n\' % (b\'a\' * 32)\n'
        'serve = b\'{"op": "serve"}\\n\'\n'
        "for parts in ([b'\\0' * 9000], [b'[]\\n'], [b'{}\\n'], [b'x' * 70000] * 30, [serve, lie]):\n"
        "    print(say(*parts)[:60], flush=True)\n"
        "try:\n"
        "    os.unlink(place + '/agent.sock')\n"
        "except OSError as error:\n"
        "    print(error.strerror)\n"
    )
    gang.start(f"python - <<'EOF'\n{script}EOF\n{AGENT} rank1 exit 5")
    assert gang.code() == 5, gang.log()
    lines = gang.log().splitlines()
    assert lines[-1] == "Read-only file system"
    assert len(lines) == 6
    assert [each.exit_code for each in gang.daemons(1)] == [5]
    gang.end()
