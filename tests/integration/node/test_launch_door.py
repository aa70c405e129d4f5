"""Whoever connects to a launch's socket may be hostile, or merely broken; that is its own affair alone."""

import json
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from launcher import launch_door
from launcher.daemons import MAX_COMMAND_BYTES, Daemons
from launcher.launch_door import Door
from launcher.mpi import talk
from launcher.node_types import Daemon, Launch, LaunchPeer

PROMPT_S = launch_door.SEND_S / 2
SERVE = b'{"op": "serve"}\n'
ELSEWHERE = b'{"op": "launch", "id": "%s", "host": "elsewhere", "command": "true"}\n' % (b"a" * 32)
ID = "1" * 32
ENDED = {"id": ID, "name": "orted", "exit_code": 0, "signal": None, "at": 5}


class Ground:
    """A door, and connections to it."""

    def __init__(self, directory: Path, launch: Launch, stack: ExitStack) -> None:
        self._stack, self._directory = stack, directory
        self.bumps: list[None] = []
        self.daemons = Daemons(directory.parent, lambda: self.bumps.append(None))
        self.door = Door(directory, "rank0", launch, daemons=self.daemons, peer=self.ask)
        stack.callback(self.door.close)

    def ask(self, _node_id: str, method: str, _arguments: tuple[Any, ...]) -> Daemon | None:
        assert method in {"launch", "launched"}
        return Daemon(ID, "orted", 7, None, 5.0) if method == "launched" else None

    def connect(self, *said: bytes) -> socket.socket:
        connection = self._stack.enter_context(talk.connect(str(self._directory)))
        connection.settimeout(30)
        with suppress(BrokenPipeError):  # it was refused; what is there to read says why
            for each in said:
                connection.sendall(each)
        return connection

    def order(self, number: int, command: str = "true") -> None:
        assert self.daemons.order(f"{number:032x}", command)
        self.door.wake()


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Ground]]:
    (tmp_path / "launch").mkdir()
    before = threading.active_count()
    with ExitStack() as stack:
        yield lambda **launch: Ground(tmp_path / "launch", Launch(**{"serves": True, "peers": {}, **launch}), stack)
    until(lambda: threading.active_count() <= before)


def until(fact: Callable[[], object]) -> None:
    end = time.monotonic() + 30
    while not fact():
        assert time.monotonic() < end
        time.sleep(0.01)


def promptly(act: Callable[[], object]) -> None:
    """Do it in less time than a peer has that does not read."""
    thread = threading.Thread(target=act, daemon=True)
    thread.start()
    thread.join(PROMPT_S)
    assert not thread.is_alive()


def all_of(connection: socket.socket) -> bytes:
    """Everything that comes until the other side closes."""
    with suppress(ConnectionError), connection.makefile("rb") as file:
        return file.read()
    return b""


def is_served(ground: Ground) -> bool:
    """Whether a main process that connects now is told what to do, and what it says is noted."""
    with ground.connect(SERVE, json.dumps({"ended": ENDED}).encode() + b"\n") as connection:
        return next(talk.messages(connection)) == {"noted": ID}


def test_a_main_process_that_does_not_read_holds_up_nobody(make: Callable[..., Ground]) -> None:
    ground = make()
    connection = ground.connect(SERVE)

    def orders() -> None:
        for number in range(20):
            ground.order(number, "x" * MAX_COMMAND_BYTES)

    promptly(orders)
    connection.recv(1)
    assert b"can start nothing on elsewhere" in all_of(ground.connect(ELSEWHERE))
    promptly(ground.door.close)


def test_orders_and_news_go_past_each_other(make: Callable[..., Ground]) -> None:
    ground = make()
    for number in range(600):
        ground.order(number, f"{number:1000}")
    connection = ground.connect(SERVE, *[b'{"began": {"id": "%s", "name": "orted"}}\n' % ID.encode()] * 1500)
    said = talk.messages(connection)
    assert [int(next(said)["run"]["id"], 16) for _ in range(600)] == list(range(600))
    ground.order(600)
    assert next(said)["run"]["id"] == f"{600:032x}"
    assert len(ground.bumps) == 1


def test_who_comes_last_is_the_main_process(make: Callable[..., Ground]) -> None:
    ground = make()
    former = ground.connect(SERVE)
    ground.order(1)
    assert select.select([former], [], [], 30)[0]
    latter = ground.connect(SERVE)
    assert all_of(former).count(b"\n") == 1
    ground.order(2)
    said = talk.messages(latter)
    assert [int(next(said)["run"]["id"], 16) for _ in range(2)] == [1, 2]


@pytest.mark.parametrize(
    "said",
    [
        *(b"[" * 100_000, b"[]", b"5", b"\0", b"\xff", b"", b"x" * (talk.MAX_LINE_BYTES + 1)),
        *(b'{"ended": %s}' % each for each in (b"null", b"[]", b"true", b"{}", b"[" * 100_000)),
        *(
            json.dumps({kind: {**ENDED, key: wrong}}).encode()
            for kind, key, wrong in (
                *(("ended", "exit_code", wrong) for wrong in (True, -1, 10**400, None, [])),
                *(("ended", "signal", wrong) for wrong in (["SIGKILL"], {}, 9)),
                *(("ended", "at", wrong) for wrong in (float("nan"), True, "now")),
                *((kind, "name", wrong) for kind in ("began", "ended") for wrong in ([], 5)),
                *((kind, "id", wrong) for kind in ("began", "ended") for wrong in ([], 5, "x")),
            )
        ),
    ],
    ids=lambda said: repr(said[:60]),
)
def test_nonsense_ends_its_own_connection_and_nothing_else(make: Callable[..., Ground], said: bytes) -> None:
    # A traceback in a thread would be a warning, which fails the test.
    ground = make()
    for hello in (b"", SERVE):
        connection = ground.connect()
        with suppress(ConnectionError):
            connection.sendall(hello + said + b"\n")
        assert all_of(connection) == b""
    assert ground.bumps == []
    assert is_served(ground)


@pytest.mark.parametrize(
    "hello",
    [
        {"op": ["launch"]},
        {"op": "launch"},
        {"op": "launch", "id": ID, "host": "rank1", "command": ["true"]},
        {"op": "launch", "id": 5, "host": "rank1", "command": "true"},
        {"op": "launch", "id": ID, "host": ["rank1"], "command": "true"},
        {"op": "serve"},
    ],
)
def test_an_odd_hello_is_no_hello(make: Callable[..., Ground], hello: dict[str, Any]) -> None:
    ground = make(serves=False, peers={"rank1": LaunchPeer("b", "key")})
    assert all_of(ground.connect(json.dumps(hello).encode() + b"\n")) == b""
    good = {"op": "launch", "id": ID, "host": "rank1", "command": "true"}
    assert all_of(ground.connect(json.dumps(good).encode() + b"\n")) == b'{}\n{"code": 7}\n'


def test_a_command_that_nothing_could_execute_is_refused_at_once(make: Callable[..., Ground]) -> None:
    ground = make(serves=False, peers={"rank1": LaunchPeer("b", "key")})
    hello = {"op": "launch", "id": ID, "host": "rank1", "command": "x" * (MAX_COMMAND_BYTES + 1)}
    assert b"at most 131071 bytes is wanted" in all_of(ground.connect(json.dumps(hello).encode() + b"\n"))


def test_a_hello_in_drips_has_no_more_time(make: Callable[..., Ground], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch_door, "HELLO_S", 0.3)
    connection = make().connect()
    for _ in range(100):
        try:
            connection.sendall(b" ")
        except BrokenPipeError:
            break
        if select.select([connection], [], [], 0.1)[0]:
            break
    else:
        pytest.fail("it was waited for")


def test_one_attempt_has_only_so_many_connections(make: Callable[..., Ground], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch_door, "SPARE_CONNECTIONS", 1)
    monkeypatch.setattr(launch_door, "MPIRUNS", 2)
    ground = make(serves=False, peers={"rank1": LaunchPeer("b", "key")})
    held = [ground.connect(b"{") for _ in range(3)]
    assert b"3 connections to this node's agent are open, which is the most" in all_of(ground.connect())
    held[0].close()
    until(lambda: b"no node named" in all_of(ground.connect(ELSEWHERE)))


def test_without_threads_a_connection_is_lost_and_the_next_is_not(
    make: Callable[..., Ground], monkeypatch: pytest.MonkeyPatch
) -> None:
    ground = make()

    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as without:
        without.setattr(threading.Thread, "start", start)
        assert all_of(ground.connect()) == b""
    assert is_served(ground)
