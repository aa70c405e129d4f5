"""The process that guardians are forked from: it may hang or be killed, and no guardian or order is lost by that."""

import fcntl
import os
import resource
import signal
import subprocess
import sys
import termios
from array import array
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from launcher import guardian_client
from launcher.fork_server import ForkServer
from launcher.guardian import tree
from launcher.guardian_client import GuardianError
from tests.integration.guardian.ground import Attempt, Ground, wait_until

Kept = Callable[[Attempt], Attempt]


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    return Ground("none", False, tmp_path, tmp_path)


def test_guardians_outlive_the_server_that_forked_them(ground: Ground, kept: Kept) -> None:
    attempt = kept(ground.attempt())
    with ForkServer() as server:
        os.mkfifo(attempt.workspace / "door")
        guardian_client.spawn(attempt.directory, attempt.order("cat door; exit 7"), server)
    attempt.hold = guardian_client.hold(attempt.directory, lambda _: None)
    (attempt.workspace / "door").write_text("on its own")
    assert attempt.end()["exit_code"] == 7
    assert attempt.log() == b"on its own"


def test_a_server_ends_with_whoever_started_it() -> None:
    argv = [sys.executable, "-c", "from launcher.fork_server import *; print(ForkServer().pid, flush=True); input()"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as agent:
        assert agent.stdout is not None
        server = int(agent.stdout.readline())
        assert tree.process(server) is not None
        agent.kill()
    wait_until(lambda: (found := tree.process(server)) is None or not found.lives)


def test_a_guardian_has_a_session_and_a_name_of_its_own(ground: Ground, kept: Kept) -> None:
    attempt = kept(ground.attempt())
    with ForkServer() as server:
        guardian_client.spawn(attempt.directory, attempt.order("sleep 1000"), server)
        found = guardian_client.find(attempt.directory)
        assert found is not None
        assert Path(f"/proc/{found.pid}/comm").read_text() == "guardian\n"
        assert os.getsid(found.pid) not in {os.getsid(0), os.getsid(server.pid)}
        assert (known := tree.process(found.pid)) is not None
        assert known.parent not in {os.getpid(), server.pid}


def test_a_server_that_was_killed_is_replaced(ground: Ground, kept: Kept) -> None:
    with ForkServer() as server:
        for _ in range(2):
            killed = server.pid
            os.kill(killed, signal.SIGKILL)
            attempt = kept(ground.attempt())
            guardian_client.spawn(attempt.directory, attempt.order("sleep 1000"), server)
            assert guardian_client.find(attempt.directory) is not None
            assert server.pid != killed


def test_an_order_that_a_server_took_with_it_is_given_to_the_next(ground: Ground, kept: Kept) -> None:
    attempt = kept(ground.attempt())
    with ForkServer() as server:
        hung = server.pid
        os.kill(hung, signal.SIGSTOP)
        with ThreadPoolExecutor(1) as pool:
            order = attempt.order("sleep 1000")
            spawned = pool.submit(guardian_client.spawn, attempt.directory, order, server)
            wait_until(lambda: _unread_bytes(server) > 0)
            os.kill(hung, signal.SIGKILL)
            spawned.result()
        assert guardian_client.find(attempt.directory) is not None
        assert server.pid != hung


def test_orders_that_meet_a_dying_server_are_given_to_the_next(ground: Ground, kept: Kept) -> None:
    with ForkServer() as server:
        for _ in range(20):
            attempt = kept(ground.attempt())
            order = attempt.order("true")
            os.kill(server.pid, signal.SIGKILL)  # it is not dead yet, and takes nothing any more
            guardian_client.spawn(attempt.directory, order, server)


def test_a_server_that_hangs_is_not_waited_for(ground: Ground, kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guardian_client, "_SPAWN_S", 0.1)
    attempt, next_one = kept(ground.attempt()), kept(ground.attempt())
    with ForkServer() as server:
        hung = server.pid
        os.kill(hung, signal.SIGSTOP)
        with pytest.raises(GuardianError, match=r"did not begin within 0\.1 s"):
            guardian_client.spawn(attempt.directory, attempt.order("true"), server)
        assert server.pid != hung
        monkeypatch.undo()
        guardian_client.spawn(next_one.directory, next_one.order("sleep 1000"), server)


def test_a_guardian_that_is_slow_to_begin_costs_nobody_the_server(ground: Ground, kept: Kept) -> None:
    warm = kept(ground.attempt())
    with ForkServer() as server:
        guardian_client.spawn(warm.directory, warm.order("true"), server)
        healthy = server.pid
        order, never_comes = os.pipe()
        with open(order, "rb"), open(never_comes, "wb"), pytest.raises(TimeoutError):
            server.fork(order, 2)
        assert server.pid == healthy


def test_a_closed_server_forks_nothing(ground: Ground, kept: Kept) -> None:
    attempt = kept(ground.attempt())
    server = ForkServer()
    server.close()
    with pytest.raises(GuardianError, match="was closed"):
        guardian_client.spawn(attempt.directory, attempt.order("true"), server)


def test_whoever_ignored_the_end_of_children_has_guardians_all_the_same(ground: Ground, kept: Kept) -> None:
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        server = ForkServer()
    finally:
        signal.signal(signal.SIGCHLD, before)
    with server:
        first = server.pid
        for _ in range(3):
            attempt = kept(ground.attempt())
            guardian_client.spawn(attempt.directory, attempt.order("true"), server)
        assert server.pid == first


def test_a_server_without_descriptors_makes_way_for_another(ground: Ground, kept: Kept) -> None:
    attempt = kept(ground.attempt())
    with ForkServer() as server:
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (3, 3))
        guardian_client.spawn(attempt.directory, attempt.order("sleep 1000"), server)
        assert guardian_client.find(attempt.directory) is not None


def _unread_bytes(server: ForkServer) -> int:
    """What the server was sent and has not taken."""
    size = array("i", [0])
    fcntl.ioctl(server._door, termios.TIOCOUTQ, size)
    return size[0]
