"""What a node does for one member of a gang: ports, peers, names, generated files, artifacts of an earlier attempt."""

import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from launcher import ports
from launcher.disk_room import FULL_BYTES, DiskRoom
from launcher.node import Node
from launcher.node_root import BOOT_ID
from launcher.node_types import Document, NodeError, Peer, Unreached
from launcher.probing import unreached
from launcher.state import Cause
from tests.integration.node.conftest import (
    CODE,
    FILES,
    ISOLATIONS,
    Runner,
    command_of,
    log_of,
    needs_sandbox,
    order_of,
    packed,
    until,
)

KEY = "exp-7-a1-n0"
BIND = """python -c 'import os, socket
s = socket.socket()
s.bind(("", int(os.environ["P"])))
s.listen()
print("bound")'"""


@pytest.fixture
def neighbour(tmp_path: Path, seed: Path) -> Iterator[Node]:
    """Another agent on the same host, with a directory of its own."""
    root = tmp_path / "neighbour"
    root.mkdir()
    (root / "seed").symlink_to(seed)
    (root / "boot").write_text(BOOT_ID.read_text())
    found = Node(root, environ=dict(os.environ))
    yield found
    found.close()


def reached(port: int) -> bool:
    return unreached([Peer(0, "127.0.0.1", port)]) == ()


@pytest.mark.parametrize("isolation", ISOLATIONS)
def test_a_command_binds_its_port_that_peers_have_tried_and_nobody_else_gets(
    runner: Runner, neighbour: Node, monkeypatch: pytest.MonkeyPatch, isolation: str
) -> None:
    node = runner.node
    node.prepare(KEY, order_of(isolation))
    port = node.reserve_ports(KEY, ["main"])["main"]
    assert node.reserve_ports(KEY, ["main"]) == {"main": port}
    for _ in range(20):
        assert reached(port)
    node.start(KEY, command_of(f"{BIND}; sleep 600", isolation, env={"P": str(port)}))
    while not (said := log_of(node, KEY)).endswith("\n"):
        time.sleep(0.01)
    assert said == "bound\n"
    monkeypatch.setattr(ports, "RANGE", range(port, port + 1))
    neighbour.put_code(CODE, 0, packed(FILES), True)
    neighbour.prepare(KEY, order_of("none"))
    with pytest.raises(NodeError, match="0 are free"):
        neighbour.reserve_ports(KEY, ["main"])
    node.stop(KEY, 1)
    until(node, KEY, "ended")
    assert node.clean(KEY).empty
    assert neighbour.reserve_ports(KEY, ["main"]) == {"main": port}
    assert neighbour.clean(KEY).empty
    socket.create_server(("127.0.0.1", port)).close()


def test_a_successor_listens_again_but_never_where_a_command_does(
    runner: Runner, make_node: Callable[..., Node]
) -> None:
    runner.node.prepare(KEY, order_of("none"))
    port = runner.node.reserve_ports(KEY, ["main"])["main"]
    runner.node.close()
    second = make_node()
    assert reached(port)
    assert second.reserve_ports(KEY, ["main"]) == {"main": port}
    second.start(KEY, command_of(f"sleep 1; {BIND}", "none", env={"P": str(port)}))
    second.close()
    third = make_node()
    status = until(third, KEY, "ended")
    assert log_of(third, KEY) == "bound\n"
    assert status.exit is not None
    assert third.reserve_ports(KEY, ["main"]) == {"main": port}
    assert third.clean(KEY).empty


def test_ports_that_a_dying_predecessor_held_are_taken_with_a_later_question(
    runner: Runner, make_node: Callable[..., Node]
) -> None:
    runner.node.prepare(KEY, order_of("none"))
    port = runner.node.reserve_ports(KEY, ["main"])["main"]
    successor = make_node()
    runner.node.close()
    successor.status([KEY])
    assert reached(port)


def test_ports_are_given_back_with_another_preparation(runner: Runner) -> None:
    runner.node.prepare(KEY, order_of("none"))
    port = runner.node.reserve_ports(KEY, ["main"])["main"]
    runner.node.prepare(KEY, order_of("none", workdir="src"))
    socket.create_server(("127.0.0.1", port)).close()


def test_only_what_is_prepared_has_ports_and_artifacts(runner: Runner) -> None:
    with pytest.raises(NodeError, match="was not prepared"):
        runner.node.reserve_ports(KEY, ["main"])
    with pytest.raises(NodeError, match="was not prepared"):
        runner.node.put_artifact(KEY, "x", 0, b"", True)
    key = runner.begin("sleep 600")
    with pytest.raises(NodeError, match="has begun"):
        runner.node.put_artifact(key, "x", 0, b"", True)


@needs_sandbox
def test_a_gang_has_names_inside_the_sandbox(runner: Runner) -> None:
    hosts = (("10.0.0.1", "worker-0"), ("10.0.0.2", "worker-1"), ("fd00::3", "worker-2"))
    said = runner.printed(
        "hostname; for n in $(hostname) worker-1 worker-2; do getent ahosts $n | head -1 | cut -d' ' -f1; done",
        "bubblewrap",
        start={"document": Document("worker-0", hosts)},
    )
    assert said.splitlines() == ["worker-0", "10.0.0.1", "10.0.0.2", "fd00::3"]


@needs_sandbox
def test_generated_files_are_there_to_be_read(runner: Runner) -> None:
    show = "cat /generated/hostfile; echo x 2>/dev/null >/generated/hostfile || rm -f /generated/hostfile || echo kept"
    said = runner.printed(
        f"({show}) 2>/dev/null", "bubblewrap", start={"document": Document(files={"hostfile": "worker-0 slots=1\n"})}
    )
    assert said == "worker-0 slots=1\nkept\n"


def test_without_isolation_generated_files_are_in_the_attempts_directory(runner: Runner) -> None:
    key, _ = runner.run(
        "cat ../generated/hostfile", start={"document": Document(files={"hostfile": "host-a slots=1\n"})}
    )
    assert log_of(runner.node, key) == "host-a slots=1\n"


@pytest.mark.parametrize("isolation", ISOLATIONS)
def test_a_command_starts_with_the_network_document_that_its_node_was_told_last(
    runner: Runner, make_node: Callable[..., Node], isolation: str
) -> None:
    node = runner.node
    node.prepare(KEY, order_of(isolation))
    for number in (1, 2):
        env = {"MASTER_ADDR": f"10.0.0.{number}", "EPOCHS": "1"}
        document = Document("worker-0", (("10.0.0.1", "worker-0"),), {"hostfile": f"host-{number}\n"}, env)
        assert node.connect(KEY, document, []) == ()
    node.close()
    successor = make_node()
    command = "echo $MASTER_ADDR $EPOCHS; cat $([ -d /generated ] && echo /generated || echo ../generated)/hostfile"
    order = command_of(command, isolation, document=None, env={"EPOCHS": "3"})
    successor.start(KEY, order)
    with pytest.raises(NodeError, match="has begun"):
        successor.connect(KEY, Document(), [])
    until(successor, KEY, "ended")
    assert log_of(successor, KEY) == "10.0.0.2 3\nhost-2\n"
    successor.start(KEY, order)


def test_a_node_that_was_told_nothing_of_its_gang_starts_nothing(runner: Runner) -> None:
    with pytest.raises(NodeError, match="was not prepared"):
        runner.node.connect(KEY, Document(), [])
    runner.node.prepare(KEY, order_of("none"))
    with pytest.raises(NodeError, match="was told nothing of the other nodes") as caught:
        runner.node.start(KEY, command_of("true", "none", document=None))
    assert caught.value.cause is Cause.PREPARATION_FAILED
    assert runner.node.status([KEY])[KEY].phase == "prepared"


def test_a_node_says_whom_it_can_not_reach(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("launcher.node.unreached", lambda peers: unreached(peers, 0.1))
    runner.node.prepare(KEY, order_of("none"))
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # and does not listen
        peer = Peer(1, "127.0.0.1", bound.getsockname()[1])
        assert runner.node.connect(KEY, Document(), [peer]) == (Unreached(1, "127.0.0.1", peer.port, "refused"),)


@pytest.mark.parametrize("isolation", ISOLATIONS)
def test_artifacts_that_were_put_back_are_the_commands_own(runner: Runner, isolation: str) -> None:
    node = runner.node
    node.prepare(KEY, order_of(isolation))
    node.put_artifact(KEY, "deep/model", 0, b"epoch 1\n", False)
    node.put_artifact(KEY, "deep/model", 8, b"epoch 2\n", True)
    node.prepare(KEY, order_of(isolation))
    node.start(KEY, command_of("cd $ARTIFACTS_DIR/deep && echo epoch 3 >> model && touch new && cat model", isolation))
    until(node, KEY, "ended")
    assert log_of(node, KEY) == "epoch 1\nepoch 2\nepoch 3\n"
    assert [each.path for each in node.artifacts(KEY)] == ["deep/model", "deep/new"]


@pytest.mark.parametrize("isolation", ISOLATIONS)
def test_what_an_earlier_attempt_left_wins_over_what_the_repository_has_there(
    runner: Runner, tmp_path: Path, isolation: str
) -> None:
    node, outside = runner.node, tmp_path / "outside"
    outside.mkdir()
    node.prepare(KEY, order_of(isolation, artifacts="results"))
    (runner.root / "attempts" / KEY / "artifacts/checkpoints").symlink_to(outside)
    node.put_artifact(KEY, "checkpoints/model", 0, b"epoch 1\n", True)
    node.put_artifact(KEY, "old.txt/model", 0, b"a file was here\n", True)
    node.start(KEY, command_of("cd results && echo epoch 2 >> checkpoints/model && cat */model", isolation))
    until(node, KEY, "ended")
    assert log_of(node, KEY) == "epoch 1\nepoch 2\na file was here\n"
    assert [each.path for each in node.artifacts(KEY)] == ["checkpoints/model", "old.txt/model"]
    assert list(outside.iterdir()) == []


def test_nothing_is_put_back_where_a_command_could_not_begin_after_it(
    runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = runner.node
    node.prepare(KEY, order_of("none"))
    monkeypatch.setattr(DiskRoom, "_free_bytes", lambda _: FULL_BYTES + 7)
    node.put_artifact(KEY, "small", 0, b"7 bytes", True)
    with pytest.raises(NodeError, match="bytes are left") as caught:
        node.put_artifact(KEY, "large", 0, b"of 8 now", True)
    assert caught.value.cause is Cause.DISK_FULL
    assert [each.path for each in node.artifacts(KEY)] == ["small"]


def test_a_status_tells_the_nodes_time(node: Node) -> None:
    before = time.time()
    assert before <= node.status([KEY])[KEY].clock <= time.time()
