"""Every end of a command is told as it was, and takes all that the command left with it."""

import fcntl
import os
import signal
import threading
import time
from collections.abc import Callable

import pytest

from launcher import guardian_client
from launcher.fork_server import ForkServer
from launcher.guardian_client import GuardianError
from launcher.sandbox import Mount
from launcher.state import Cause
from tests.integration.guardian.ground import Attempt, wait_until

STUBBORN = """
trap '' HUP INT TERM
sleep 1000 & setsid sleep 1000 & (setsid sh -c 'trap "" TERM; sleep 1000 & sleep 1000' &)
echo ready
wait
"""


@pytest.mark.parametrize(
    ("command", "cause", "exit_code", "name"),
    [
        ("true", Cause.SUCCEEDED, 0, None),
        ("exit 7", Cause.COMMAND_EXITED, 7, None),
        ("no-such-command", Cause.COMMAND_EXITED, 127, None),
        ("kill -KILL $$", Cause.COMMAND_KILLED, None, "SIGKILL"),
        ("kill -SEGV $$", Cause.COMMAND_KILLED, None, "SIGSEGV"),
        ("kill -TERM $$", Cause.COMMAND_KILLED, None, "SIGTERM"),
        ("sh -c 'kill -KILL $$'; exit $?", Cause.COMMAND_EXITED, 137, None),
    ],
)
def test_the_end_is_told_exactly(
    attempt: Attempt, command: str, cause: Cause, exit_code: int | None, name: str | None
) -> None:
    ended = attempt.run(command)
    assert (ended["cause"], ended["exit_code"], ended["signal"]) == (cause, exit_code, name)
    assert not attempt.left()


def test_what_the_command_leaves_behind_ends_with_it_and_is_counted(attempt: Attempt) -> None:
    ended = attempt.run("setsid sleep 1000 & (setsid sleep 1000 &) ; sleep 0.1; exit 0")
    assert (ended["cause"], ended["detail"]["left"]) == (Cause.SUCCEEDED, 2)
    assert not attempt.left()


def test_a_stop_asks_first(attempt: Attempt) -> None:
    attempt.start("trap 'echo asked; exit 3' TERM; echo ready; while true; do sleep 0.05; done")
    attempt.wait_for_log(b"ready")
    assert guardian_client.stop(attempt.directory, grace_s=10)
    ended = attempt.end()
    assert (ended["exit_code"], ended["detail"]["stopped"]) == (3, True)
    assert attempt.log().endswith(b"asked\n")
    assert not attempt.left()


def test_a_stop_ends_what_ignores_it_after_the_grace(attempt: Attempt) -> None:
    attempt.start(STUBBORN)
    attempt.wait_for_log(b"ready")
    began = time.monotonic()
    guardian_client.stop(attempt.directory, grace_s=0.3)
    ended = attempt.end()
    assert (ended["cause"], ended["signal"], ended["detail"]["stopped"]) == (Cause.COMMAND_KILLED, "SIGKILL", True)
    assert time.monotonic() - began >= 0.3
    assert not attempt.left()


@pytest.mark.parametrize("held", [True, False], ids=["by its agent", "after its agent"])
def test_who_stops_it_without_an_agent_has_put_the_node_down(attempt: Attempt, held: bool) -> None:
    attempt.start("trap 'exit 0' TERM; echo ready; while true; do sleep 0.05; done")
    attempt.wait_for_log(b"ready")
    if not held:
        assert attempt.hold is not None
        attempt.hold.close()
    guardian_client.stop(attempt.directory, grace_s=5)
    wait_until(lambda: guardian_client.exit_of(attempt.directory) is not None)
    ended = attempt.end()
    assert (ended["cause"], ended["detail"]["stopped"], ended["detail"]["put_down"]) == (
        Cause.SUCCEEDED,
        True,
        not held,
    )


def test_a_killed_guardian_takes_its_processes_along_or_leaves_them_to_be_found(attempt: Attempt) -> None:
    attempt.start(STUBBORN)
    attempt.wait_for_log(b"ready")
    os.kill(attempt.processes()[0], signal.SIGKILL)
    assert attempt.hold is not None
    assert attempt.hold.wait(10)
    assert guardian_client.exit_of(attempt.directory) is None
    assert guardian_client.find(attempt.directory) is None
    if attempt.ground.enclosed:
        wait_until(lambda: not guardian_client.sweep(attempt.key), within_s=8)
    assert guardian_client.purge(attempt.directory, attempt.key) == (True, [])


def test_clearing_an_attempt_leaves_one_of_the_same_key_elsewhere_alone(
    attempt: Attempt, kept: Callable[[Attempt], Attempt]
) -> None:
    other = kept(attempt.ground.attempt())
    other.key = attempt.key
    other.start("echo ready; sleep 1000")
    attempt.run("true")
    assert guardian_client.purge(attempt.directory, attempt.key) == (True, [])
    assert guardian_client.find(other.directory) is not None
    guardian_client.stop(other.directory, grace_s=0)
    other.end()


@pytest.mark.parametrize("victim", [1, 2], ids=["bwrap", "pid-1"])
def test_a_sandbox_that_was_ended_from_outside_never_looks_like_success(enclosed: Attempt, victim: int) -> None:
    enclosed.start(STUBBORN)
    enclosed.wait_for_log(b"ready")
    os.kill(enclosed.processes()[victim], signal.SIGKILL)
    ended = enclosed.end()
    assert (ended["cause"], ended["exit_code"]) == (Cause.GUARDIAN_LOST, None)
    assert not enclosed.left()


def test_without_an_agent_the_tree_ends_after_the_lease(attempt: Attempt) -> None:
    attempt.spawn(STUBBORN, lease_s=0.5, grace_s=0.2)
    wait_until(lambda: guardian_client.exit_of(attempt.directory) is not None)
    ended = attempt.end()
    assert ended["cause"] == Cause.NODE_LOST
    assert "lease" in ended["detail"]["why"]
    assert not attempt.left()


def test_a_held_lease_does_not_end_and_a_successor_takes_it_over(attempt: Attempt) -> None:
    attempt.start("sleep 3; exit 4", lease_s=2.0, grace_s=0.2)
    assert attempt.hold is not None
    attempt.hold.close()
    attempt.hold = guardian_client.hold(attempt.directory, lambda _: None)
    assert attempt.end()["exit_code"] == 4


def test_the_holder_hears_of_the_end_at_once(attempt: Attempt) -> None:
    heard: list[object] = []
    attempt.spawn("until [ -e go ]; do sleep 0.02; done; exit 5")
    attempt.hold = guardian_client.hold(attempt.directory, heard.append)
    (attempt.workspace / "go").touch()
    wait_until(lambda: heard != [])
    told_at = time.time()
    ended = attempt.end()
    assert heard == [ended]
    assert told_at - ended["at"] < 3


def test_a_second_guardian_never_starts(attempt: Attempt) -> None:
    attempt.start("echo once; sleep 0.3")
    with ForkServer() as server:
        with pytest.raises(GuardianError, match="started before"):
            guardian_client.spawn(attempt.directory, attempt.order("echo twice"), server)
        attempt.end()
        with pytest.raises(GuardianError, match="started before"):
            guardian_client.spawn(attempt.directory, attempt.order("echo twice"), server)
    assert attempt.log() == b"once\n"


def test_who_asks_whether_there_is_a_guardian_never_keeps_one_from_starting(attempt: Attempt) -> None:
    (attempt.directory / "lock").touch()
    (attempt.directory / "lock").chmod(0o666)
    with open(attempt.directory / "lock", "rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        letting_go = threading.Timer(0.25, fcntl.flock, (lock.fileno(), fcntl.LOCK_UN))
        letting_go.start()
        assert attempt.run("exit 4")["exit_code"] == 4
        letting_go.join()


def test_a_command_that_can_not_start_says_why(attempt: Attempt) -> None:
    ended = attempt.run("true", cwd="/no/such/directory")
    assert ended["cause"] == Cause.PREPARATION_FAILED
    assert "/no/such/directory: No such file or directory" in ended["detail"]["why"]
    assert not attempt.left()


def test_a_sandbox_that_can_not_start_says_why(enclosed: Attempt) -> None:
    ended = enclosed.run("true", mounts=(Mount("/no/such/source", "/data"),))
    assert ended["cause"] == Cause.PREPARATION_FAILED
    assert "/no/such/source" in ended["detail"]["why"]
    assert not enclosed.left()


def test_a_guardian_says_how_it_stands(attempt: Attempt) -> None:
    attempt.start("echo ready; sleep 1000")
    attempt.wait_for_log(b"ready")
    found = guardian_client.find(attempt.directory)
    assert found is not None
    assert (found.phase, found.pid, found.log_size) == ("running", attempt.processes()[0], 6)
    assert found.memory_bytes > 0
    guardian_client.stop(attempt.directory, grace_s=0)
    attempt.end()
    assert guardian_client.find(attempt.directory) is None


def test_a_guardian_that_is_terminated_ends_its_tree_in_order(attempt: Attempt) -> None:
    attempt.start("echo ready; sleep 1000", grace_s=5)
    attempt.wait_for_log(b"ready")
    os.kill(attempt.processes()[0], signal.SIGTERM)
    ended = attempt.end()
    assert (ended["signal"], ended["detail"]["stopped"]) == ("SIGTERM", True)
    assert not attempt.left()
