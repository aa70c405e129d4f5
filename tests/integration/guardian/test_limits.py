"""A command that wants too much harms itself only, and is told what was too much."""

import os
from pathlib import Path

import pytest

from launcher import guardian_client
from launcher.guardian.cgroup import Cgroup
from launcher.guardian_client import Limits
from launcher.guardian_order import cgroup_name
from launcher.sandbox import Mount
from launcher.state import Cause
from tests.integration.guardian.ground import Attempt

MEMORY = 96 << 20
EATER = """
/usr/bin/python3 -c '
import time
kept = []
while True:
    kept.append(b"x" * (4 << 20))
    time.sleep(0.005)
'
"""


def _assert_out_of_memory(attempt: Attempt, ended: dict[str, object]) -> None:
    detail = ended["detail"]
    assert isinstance(detail, dict)
    assert (ended["cause"], detail["limit"]) == (Cause.OUT_OF_MEMORY, "96 MiB")
    assert 70 < float(detail["used"]) < 400
    assert not attempt.left()


def test_a_command_that_takes_too_much_memory_is_ended(attempt: Attempt) -> None:
    _assert_out_of_memory(attempt, attempt.run(EATER, limits=Limits(memory_bytes=MEMORY)))


def test_a_child_that_takes_too_much_memory_ends_all_even_if_its_parent_waits_on(attempt: Attempt) -> None:
    ended = attempt.run(f"({EATER}) & wait; sleep 1000", limits=Limits(memory_bytes=MEMORY))
    _assert_out_of_memory(attempt, ended)


def test_files_in_memory_count_as_memory(enclosed: Attempt) -> None:
    """Either its limit ends it, or its file system is full before."""
    ended = enclosed.run(
        "head -c 200M /dev/zero > /dev/shm/a && head -c 200M /dev/zero > /tmp/b", limits=Limits(memory_bytes=MEMORY)
    )
    assert ended["cause"] in {Cause.OUT_OF_MEMORY, Cause.COMMAND_EXITED}
    assert not enclosed.left()


def test_what_lies_on_a_disk_is_no_memory_wherever_it_is_mounted(enclosed: Attempt) -> None:
    on_disk = Mount(str(enclosed.workspace), "/tmp", writable=True)
    ended = enclosed.run("echo a > /tmp/a; sleep 1", mounts=(on_disk,), limits=Limits(memory_bytes=MEMORY))
    assert ended["cause"] == Cause.SUCCEEDED, ended


def test_memory_within_the_limit_is_left_alone(attempt: Attempt) -> None:
    ended = attempt.run("/usr/bin/python3 -c 'x = b\"x\" * (32 << 20)'", limits=Limits(memory_bytes=4 * MEMORY))
    assert ended["cause"] == Cause.SUCCEEDED


def test_a_process_bomb_stays_small_and_ends(attempt: Attempt) -> None:
    bomb = "/usr/bin/python3 -c 'import os,time\nfor i in range(200): os.fork() or time.sleep(1000)\ntime.sleep(1000)'"
    ended = attempt.run(bomb, limits=Limits(pids=40))
    assert ended["cause"] in {Cause.COMMAND_EXITED, Cause.COMMAND_KILLED}
    assert not attempt.left()


def test_a_disk_filler_is_ended_at_its_limit(attempt: Attempt) -> None:
    filler = "while true; do head -c 1M /dev/urandom >> file; mkdir -p d; sleep 0.01; done"
    limits = Limits(disk_bytes=20 << 20, disk_floor_bytes=0)
    ended = attempt.run(filler, limits=limits, watched=(str(attempt.workspace),))
    assert (ended["cause"], ended["detail"]["limit"]) == (Cause.DISK_LIMIT, "20 MiB")
    assert ended["detail"]["used_bytes"] > ended["detail"]["limit_bytes"] == 20 << 20
    assert not attempt.left()


def test_an_innocent_command_on_a_full_disk_is_no_users_fault(attempt: Attempt) -> None:
    state = os.statvfs(attempt.workspace)
    more_than_there_is = 4 * state.f_bavail * state.f_frsize
    limits = Limits(disk_floor_bytes=more_than_there_is)
    ended = attempt.run("sleep 1000", limits=limits, watched=(str(attempt.workspace),))
    assert ended["cause"] == Cause.DISK_FULL
    assert not attempt.left()


def test_control_groups_are_gone_after_the_end(attempt: Attempt) -> None:
    attempt.start("sleep 1000", limits=Limits(memory_bytes=MEMORY, pids=50))
    begun = guardian_client.started_of(attempt.directory)
    assert begun is not None
    if not begun["cgroups"]:
        pytest.skip("no writable control group here: limits are watched")
    for path in begun["cgroups"]:
        members = [int(line) for line in Path(path, "cgroup.procs").read_text().split()]
        assert members
        assert attempt.processes()[0] not in members
    guardian_client.stop(attempt.directory, 0.0)
    attempt.end()
    assert not any(Path(path).exists() for path in begun["cgroups"])


def test_a_control_group_that_was_never_written_down_is_found_and_removed(attempt: Attempt) -> None:
    group = Cgroup(cgroup_name(attempt.directory, attempt.key), MEMORY, 50)
    if not group.directories:
        pytest.skip("no writable control group here: limits are watched")
    assert guardian_client.is_empty(attempt.directory, attempt.key)[1] == [
        f"control group {path}" for path in sorted(group.directories)
    ]
    assert guardian_client.purge(attempt.directory, attempt.key) == (True, [])
