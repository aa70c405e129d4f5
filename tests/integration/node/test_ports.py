"""Ports are kept, given up and tried, on real sockets."""

import errno
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from launcher import port_locks
from launcher import ports as ports_module
from launcher.node_types import NodeError, Peer
from launcher.ports import RANGE, Ports
from launcher.probing import unreached
from tests import namespace

ADDRESSES = [
    (socket.AF_INET, "0.0.0.0"),
    (socket.AF_INET, "127.0.0.1"),
    pytest.param(socket.AF_INET6, "::", marks=pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6")),
]


@pytest.fixture
def agent() -> Iterator[Callable[[], Ports]]:
    """Makes what an agent keeps its ports with."""
    made: list[Ports] = []

    def make() -> Ports:
        made.append(Ports())
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def attempt(tmp_path: Path) -> Path:
    found = tmp_path / "exp-1-a1-n0"
    found.mkdir()
    return found


def bound(port: int, family: int = socket.AF_INET, address: str = "127.0.0.1") -> socket.socket:
    """A socket as strict as any program may have: without SO_REUSEADDR."""
    found = socket.socket(family)
    try:
        found.bind((address, port))
    except OSError:
        found.close()
        raise
    return found


def why(port: int, address: str = "127.0.0.1", timeout_s: float = 5.0) -> str:
    """Why a peer could not connect; empty when it could."""
    return "".join(each.why for each in unreached([Peer(1, address, port)], timeout_s))


def test_each_name_has_a_port_of_its_own_and_keeps_it(agent: Callable[[], Ports], attempt: Path) -> None:
    ports = agent()
    first = ports.reserve(attempt, ["main", "more"])
    assert len(set(first.values())) == 2
    assert set(first.values()) <= set(RANGE)
    assert ports.reserve(attempt, ["more", "main"]) == first
    assert ports.reserve(attempt, ["main", "third"])["main"] == first["main"]


@pytest.mark.parametrize(("family", "address"), ADDRESSES)
def test_a_port_in_use_is_not_given(
    agent: Callable[[], Ports], attempt: Path, monkeypatch: pytest.MonkeyPatch, family: int, address: str
) -> None:
    free = agent().reserve(attempt, ["a"])["a"]
    monkeypatch.setattr(ports_module, "RANGE", range(free - 1, free + 1))
    ports = agent()
    with bound(free - 1, family, address), pytest.raises(NodeError, match="0 are free"):
        ports.reserve(attempt.parent / "other", ["b"])


def test_two_agents_never_give_the_same_port_at_once(
    agent: Callable[[], Ports], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def take(number: int) -> list[int]:
        ports = agent()
        found: list[int] = []
        for part in range(10):
            path = tmp_path / f"agent-{number}/exp-{part}-a1-n0"
            path.mkdir(parents=True)
            found += ports.reserve(path, [f"p{index}" for index in range(20)]).values()
        return found

    monkeypatch.setattr(ports_module, "RANGE", range(20000, 20600))  # so few that they meet
    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(take, range(2))
    assert len(set(one) | set(other)) == 400


def test_a_name_is_kept_while_nobody_listens(
    agent: Callable[[], Ports], attempt: Path, tmp_path: Path, monkeypatch
) -> None:
    ports = agent()
    port = ports.reserve(attempt, ["a"])["a"]
    ports.hand_over(attempt)
    monkeypatch.setattr(ports_module, "RANGE", range(port, port + 1))
    (tmp_path / "other").mkdir()
    with pytest.raises(NodeError, match="0 are free"):
        agent().reserve(tmp_path / "other", ["a"])


@pytest.mark.parametrize(("family", "address"), ADDRESSES)
def test_a_port_can_be_bound_right_after_it_was_tried_and_handed_over(
    agent: Callable[[], Ports], attempt: Path, family: int, address: str
) -> None:
    ports = agent()
    port = ports.reserve(attempt, ["a"])["a"]
    for tried in ("127.0.0.1", "::1") if socket.has_dualstack_ipv6() else ("127.0.0.1",):
        assert unreached([Peer(rank, tried, port) for rank in range(50)]) == ()
    with socket.create_connection(("127.0.0.1", port)):  # and somebody who does not reset
        ports.hand_over(attempt)
        bound(port, family, address).close()
    with pytest.raises(NodeError, match="has started without"):
        ports.reserve(attempt, ["a", "b"])


def test_a_released_port_is_anybodys(
    agent: Callable[[], Ports], attempt: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ports = agent()
    port = ports.reserve(attempt, ["a"])["a"]
    monkeypatch.setattr(ports_module, "RANGE", range(port, port + 1))
    ports.release(attempt.name)
    ports.release(attempt.name)
    bound(port).close()
    (tmp_path / "other").mkdir()
    assert agent().reserve(tmp_path / "other", ["a"]) == {"a": port}


def test_too_few_free_ports_are_said_and_none_is_kept(
    agent: Callable[[], Ports], attempt: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = agent().reserve(attempt, ["a"])["a"]
    monkeypatch.setattr(ports_module, "RANGE", range(port, port + 2))
    (tmp_path / "other").mkdir()
    with pytest.raises(NodeError, match="are wanted, 1 are free"):
        agent().reserve(tmp_path / "other", ["a", "b"])
    bound(port + 1).close()


def test_no_command_on_the_hosts_network_can_take_ports_by_their_names(
    agent: Callable[[], Ports], attempt: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = range(20000, 20016)
    monkeypatch.setattr(ports_module, "RANGE", few)
    with ExitStack() as stack:
        for port in few:
            name = stack.enter_context(socket.socket(socket.AF_UNIX))
            name.bind(f"\0descent-port-{port}")
        assert agent().reserve(attempt, ["a"])["a"] in few


def test_hosts_that_share_files_have_ports_of_their_own(agent: Callable[[], Ports], tmp_path: Path) -> None:
    with namespace.aside() as network:
        if network is None:
            pytest.skip("no second network here")
        found = []
        for number, where in enumerate((network.left, network.entered)):
            path = tmp_path / f"host-{number}/exp-1-a1-n0"
            path.mkdir(parents=True)
            (path / "ports.json").write_text('{"ports": {"a": 20077}, "handed": true}')
            with where():
                found.append(agent().take_again(path))
        assert found == [[], []]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_command_of_another_user_cannot_reach_the_locks(agent: Callable[[], Ports], attempt: Path) -> None:
    agent().reserve(attempt, ["a"])
    done = subprocess.run(
        ["cat", port_locks.path()],
        user=65534,
        cwd="/",
        env={"PATH": os.defpath, "LC_ALL": "C"},
        capture_output=True,
        text=True,
    )
    assert "Permission denied" in done.stderr


def test_locks_that_cannot_be_had_are_said_when_a_port_is_wanted_and_keep_no_successor_from_beginning(
    agent: Callable[[], Ports], attempt: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = agent()
    port = first.reserve(attempt, ["a"])["a"]
    first.close()
    monkeypatch.setattr(port_locks, "DIRECTORY", tmp_path)
    port_locks.path().mkdir()
    successor = agent()
    assert successor.take_again(attempt) == [port]
    with pytest.raises(NodeError, match=f"{port_locks.path()} must be a file of ours"):
        successor.reserve(attempt, ["a"])


HOLDER = """
import sys
from pathlib import Path
from launcher.ports import Ports
ports = Ports()
print(*ports.reserve(Path(sys.argv[1]), ["a", "b"]).values(), flush=True)
if sys.argv[2] == "hand over":
    ports.hand_over(Path(sys.argv[1]))
    print("handed", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("handed", [False, True])
def test_the_successor_of_a_killed_agent_has_the_same_ports(
    agent: Callable[[], Ports], attempt: Path, handed: bool
) -> None:
    argv = [sys.executable, "-c", HOLDER, str(attempt), "hand over" if handed else ""]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        first = [int(word) for word in holder.stdout.readline().split()]
        assert not handed or holder.stdout.readline() == "handed\n"
        with ThreadPoolExecutor(1) as pool:
            successor = agent()
            asked = pool.submit(successor.reserve, attempt, ["a", "b"])  # it waits for its predecessor's end
            holder.kill()
            assert list(asked.result().values()) == first
    assert why(first[0], timeout_s=0.5) == ("refused" if handed else "")
    if handed:
        bound(first[0]).close()
    assert agent().take_again(attempt) == first


def test_a_port_that_somebody_took_meanwhile_is_said(
    agent: Callable[[], Ports], attempt: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ports_module, "_TAKE_S", 0.1)
    ports = agent()
    port = ports.reserve(attempt, ["a"])["a"]
    ports.close()
    with bound(port), pytest.raises(NodeError, match=f"port {port} was reserved"):
        agent().reserve(attempt, ["a"])


def test_peers_that_cannot_be_reached_are_named_with_the_reason(agent: Callable[[], Ports], attempt: Path) -> None:
    port = agent().reserve(attempt, ["a"])["a"]
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, bound(0) as idle:
        crowd = []
        for _ in range(4):  # more than wait in its queue: the next ones are not answered
            connection = socket.socket()
            connection.setblocking(False)
            assert connection.connect_ex(full.getsockname()) in {0, errno.EINPROGRESS}
            crowd.append(connection)
        peers = [
            Peer(1, "127.0.0.1", port),
            Peer(2, "127.0.0.1", idle.getsockname()[1]),
            Peer(3, "127.0.0.1", full.getsockname()[1]),
        ]
        began = time.monotonic()
        found = unreached(peers, 0.8)
        assert time.monotonic() - began < 5
        for connection in crowd:
            connection.close()
    assert [(each.rank, each.address, each.why) for each in found] == [
        (2, "127.0.0.1", "refused"),
        (3, "127.0.0.1", "timed out"),
    ]
    assert unreached([]) == ()


def test_a_peer_that_listens_late_is_reached(agent: Callable[[], Ports], attempt: Path) -> None:
    ports = agent()
    port = ports.reserve(attempt, ["a"])["a"]
    ports.close()
    with ThreadPoolExecutor(1) as pool:
        tried = pool.submit(why, port, timeout_s=10)
        agent().take_again(attempt)
        assert tried.result() == ""
