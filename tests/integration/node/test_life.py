"""An attempt's life on its host, from nothing to nothing, with real processes."""

import os
import pickle
import re
import signal
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from launcher import guardian_client
from launcher.node import Node
from launcher.node_types import NodeError
from launcher.state import Cause
from tests.integration.guardian.ground import wait_until
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

KEY = "exp-1-a1-n0"


@pytest.mark.parametrize("isolation", ISOLATIONS)
def test_an_attempt_goes_from_nothing_to_nothing(runner: Runner, isolation: str) -> None:
    node = runner.node
    assert node.status([KEY])[KEY].phase == "absent"
    node.prepare(KEY, order_of(isolation))
    assert node.status([KEY])[KEY].phase == "prepared"
    node.start(KEY, command_of("python train.py; echo kept > $ARTIFACTS_DIR/model", isolation))
    status = until(node, KEY, "ended")
    assert status.exit is not None
    assert (status.exit.cause, status.exit.exit_code) == (Cause.SUCCEEDED, 0)
    assert status.started_at is not None
    assert status.started_at <= status.exit.at <= time.time()
    assert log_of(node, KEY) == "hello\n"
    assert [(each.path, each.size) for each in node.artifacts(KEY)] == [("model", 5)]
    assert node.read_artifact(KEY, "model", 1, 100) == b"ept\n"
    assert node.clean(KEY).empty
    assert node.inventory() == []
    assert node.status([KEY])[KEY].phase == "absent"


def test_every_step_may_be_repeated(runner: Runner) -> None:
    node, prepare, start = runner.node, order_of("none"), command_of("echo once; sleep 600", "none")
    node.prepare(KEY, prepare)
    marker = runner.root / "attempts" / KEY / "workspace/marker"
    marker.touch()
    node.prepare(KEY, prepare)
    assert marker.exists()
    node.start(KEY, start)
    node.start(KEY, start)
    node.prepare(KEY, prepare)
    assert node.status([KEY])[KEY].phase == "running"
    node.stop(KEY, 1)
    node.stop(KEY, 1)
    ended = until(node, KEY, "ended")
    node.stop(KEY, 1)
    node.start(KEY, start)
    assert node.status([KEY])[KEY] == ended
    assert log_of(node, KEY) == "once\n"
    assert node.clean(KEY).empty
    assert node.clean(KEY).empty


def test_another_order_before_the_start_is_prepared_anew(runner: Runner) -> None:
    runner.node.prepare(KEY, order_of("none"))
    runner.node.prepare(KEY, order_of("none", workdir="elsewhere"))
    assert (runner.root / "attempts" / KEY / "workspace/elsewhere").is_dir()


def test_an_interrupted_preparation_counts_for_nothing_and_is_done_anew(runner: Runner) -> None:
    (runner.root / "attempts" / KEY / "workspace/half").mkdir(parents=True)
    assert runner.node.status([KEY])[KEY].phase == "absent"
    assert runner.node.inventory() == [KEY]
    runner.node.prepare(KEY, order_of("none"))
    assert not (runner.root / "attempts" / KEY / "workspace/half").exists()


def test_the_end_is_heard_of_at_once(runner: Runner) -> None:
    key = runner.begin("sleep 0.3; exit 3")
    mark = runner.node.watch(0, 0)
    began = time.monotonic()
    assert runner.node.watch(mark, 30) > mark
    assert time.monotonic() - began < 10
    status = runner.node.status([key])[key]
    assert status.exit is not None
    assert status.exit.told()["exit_code"] == 3


def test_a_watch_that_sees_nothing_ends_with_its_time(runner: Runner) -> None:
    mark = runner.node.watch(0, 0)
    assert runner.node.watch(mark, 0.01) == mark


@pytest.mark.parametrize("isolation", ISOLATIONS)
def test_a_command_that_ignores_sigterm_is_gone_after_the_grace(runner: Runner, isolation: str) -> None:
    key = runner.begin("trap '' TERM; echo ready; (setsid sleep 600 &); while :; do sleep 600; done", isolation)
    while not log_of(runner.node, key):
        time.sleep(0.01)
    runner.node.stop(key, 0.2)
    status = until(runner.node, key, "ended")
    assert status.exit is not None
    assert status.exit.told()["signal"] == "SIGKILL"
    assert runner.node.clean(key).empty
    assert guardian_client.sweep(key) == []


def test_what_still_runs_is_not_cleaned(runner: Runner) -> None:
    key = runner.begin("sleep 600")
    clean = runner.node.clean(key)
    assert not clean.empty
    assert clean.left
    assert runner.node.status([key])[key].phase == "running"


@pytest.mark.parametrize("isolation", ISOLATIONS)
def test_a_successor_finds_the_running_attempt_and_keeps_its_lease(
    runner: Runner, make_node: Callable[..., Node], isolation: str
) -> None:
    lease_s = 1.0
    key = runner.begin("sleep 3; echo done", isolation, start={"lease_s": lease_s})
    runner.node.close()
    successor = make_node()
    assert successor.inventory() == [key]
    assert successor.status([key])[key].phase == "running"
    status = until(successor, key, "ended")
    assert status.exit is not None
    assert status.exit.cause is Cause.SUCCEEDED
    assert log_of(successor, key) == "done\n"
    assert successor.clean(key).empty


def test_a_successor_keeps_the_lease_before_anybody_asks(runner: Runner, make_node: Callable[..., Node]) -> None:
    key = runner.begin("sleep 2; echo done", start={"lease_s": 0.5})
    runner.node.close()
    successor = make_node()
    successor.watch(successor.watch(0, 0), 20)
    assert log_of(successor, key) == "done\n"


def test_a_lease_that_could_not_be_taken_is_taken_with_the_next_question(
    runner: Runner, make_node: Callable[..., Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    key = runner.begin("sleep 2; echo done", start={"lease_s": 0.7})
    runner.node.close()

    def busy(*_: object) -> None:
        raise guardian_client.GuardianError("it does not listen")

    with monkeypatch.context() as context:
        context.setattr(guardian_client, "hold", busy)
        successor = make_node()
    assert successor.status([key])[key].phase == "running"
    successor.watch(successor.watch(0, 0), 20)
    assert log_of(successor, key) == "done\n"


def test_without_a_successor_the_attempt_ends_after_its_lease(runner: Runner, make_node: Callable[..., Node]) -> None:
    key = runner.begin("sleep 600", start={"lease_s": 0.3, "grace_s": 0.2})
    attempt = runner.root / "attempts" / key
    runner.node.close()
    while guardian_client.exit_of(attempt) is None:
        time.sleep(0.02)
    assert make_node().status([key])[key].phase == "ended"


def test_an_agent_of_another_cluster_keeps_no_lease_of_the_cluster_before(make_node: Callable[..., Node]) -> None:
    before = make_node(cluster_id="before")
    before.put_code(CODE, 0, packed(FILES), True)
    for key, command in ((KEY, "sleep 600"), ("exp-2-a1-n0", "sleep 0.5; exit 3")):
        before.prepare(key, order_of("none"))
        before.start(key, command_of(command, "none", lease_s=1, grace_s=0.2))
    after = make_node(cluster_id="after")
    before.close()
    give_up_at = time.monotonic() + 20
    while after.status([KEY])[KEY].phase == "running":
        assert time.monotonic() < give_up_at
        time.sleep(0.1)
    ended = after.status([KEY])[KEY].exit
    assert ended is not None
    assert (ended.cause, ended.detail["why"]) == (Cause.NODE_LOST, "no agent held the lease for 1 s")
    came_to = after.status(["exp-2-a1-n0"])["exp-2-a1-n0"].exit
    assert came_to is not None
    assert (came_to.cause, came_to.exit_code) == (Cause.COMMAND_EXITED, 3)
    assert all(after.clean(key).empty for key in after.inventory())


def test_what_the_cluster_before_prepared_is_of_the_cluster_that_prepares_it_again(
    make_node: Callable[..., Node],
) -> None:
    before = make_node(cluster_id="before")
    before.put_code(CODE, 0, packed(FILES), True)
    before.prepare(KEY, order_of("none"))
    after = make_node(cluster_id="after")
    after.prepare(KEY, order_of("none"))
    after.start(KEY, command_of("sleep 2; echo done", "none", lease_s=0.5))
    before.stop_all(0)
    until(after, KEY, "ended")
    assert log_of(after, KEY) == "done\n"


def test_marks_of_a_successor_are_higher(runner: Runner, make_node: Callable[..., Node]) -> None:
    key = runner.begin("true")
    until(runner.node, key, "ended")
    mark = runner.node.watch(0, 0)
    assert make_node().watch(mark, 10) > mark


@pytest.mark.parametrize("isolation", ISOLATIONS)
def test_a_killed_guardian_is_told_as_lost_and_leaves_nothing(runner: Runner, isolation: str) -> None:
    key = runner.begin("(setsid sleep 600 &); sleep 600", isolation)
    found = guardian_client.find(runner.root / "attempts" / key)
    assert found is not None
    os.kill(found.pid, signal.SIGKILL)
    assert until(runner.node, key, "lost").exit is None
    with pytest.raises(NodeError, match="lost") as caught:
        runner.node.start(key, command_of("true", isolation))
    assert caught.value.cause is Cause.GUARDIAN_LOST
    assert runner.node.clean(key).empty
    assert guardian_client.sweep(key) == []


def test_a_guardian_that_hangs_is_ended_by_a_stop(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    key = runner.begin("sleep 600")
    found = guardian_client.find(runner.root / "attempts" / key)
    assert found is not None
    os.kill(found.pid, signal.SIGSTOP)
    monkeypatch.setattr(guardian_client, "_ANSWER_S", 0.1)
    assert runner.node.status([key])[key].phase == "running"
    runner.node.stop(key, 0)
    assert until(runner.node, key, "lost", "ended")
    assert runner.node.clean(key).empty


def test_a_guardian_that_hangs_is_ended_by_a_stop_however_often_it_was_asked_before(
    runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = runner.begin("sleep 600")
    found = guardian_client.find(runner.root / "attempts" / key)
    assert found is not None
    os.kill(found.pid, signal.SIGSTOP)
    monkeypatch.setattr(guardian_client, "_ANSWER_S", 0.02)
    for _ in range(25):  # more than may wait for it at once
        assert runner.node.status([key])[key].phase == "running"
    runner.node.stop(key, 0)
    assert until(runner.node, key, "lost", "ended")
    assert runner.node.clean(key).empty


def test_stop_all_stops_all(runner: Runner) -> None:
    keys = [runner.begin("sleep 600") for _ in range(2)]
    runner.node.stop_all(1)
    for key in keys:
        until(runner.node, key, "ended")


def test_stop_all_stops_the_others_where_some_can_not_be_stopped(runner: Runner) -> None:
    key = runner.begin("sleep 600")
    strays = [runner.root / "attempts" / name for name in ("a-file", "z-file")]
    for stray in strays:
        stray.touch()
    try:
        with pytest.raises(ExceptionGroup) as caught:
            runner.node.stop_all(1)
    finally:
        for stray in strays:
            stray.unlink()
    assert [type(error) for error in caught.value.exceptions] == [NotADirectoryError] * 2
    until(runner.node, key, "ended")


def test_stop_all_does_not_wait_for_one_before_it_stops_the_next(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("exp-1-a1-n0", "exp-2-a1-n0"):
        (node._attempts / key).mkdir()
    both = threading.Barrier(2)
    monkeypatch.setattr(guardian_client, "stop", lambda *_: both.wait(timeout=10))
    node.stop_all(1)
    assert not both.broken


def test_an_agent_that_was_cut_off_ends_nothing_of_the_cluster_after_its_own(runner: Runner) -> None:
    theirs = runner.begin("sleep 600")  # of no cluster by name: anybody's
    after = Node(runner.root, environ=os.environ, cluster_id="after")
    try:
        after.prepare("exp-9-a1-n0", order_of("none"))
        after.start("exp-9-a1-n0", command_of("sleep 600", "none"))
        before = Node(runner.root, environ=os.environ, cluster_id="before")
        before.stop_all(0)
        before.close()
        until(after, theirs, "ended")
        assert after.status(["exp-9-a1-n0"])["exp-9-a1-n0"].phase == "running"
        after.stop_all(0)
        until(after, "exp-9-a1-n0", "ended")
        assert after.clean("exp-9-a1-n0").empty
    finally:
        after.close()


def test_starting_what_was_not_prepared_is_refused(node: Node) -> None:
    with pytest.raises(NodeError, match="was not prepared"):
        node.start(KEY, command_of("true", "none"))
    assert node.inventory() == []


def test_starting_with_another_isolation_than_prepared_is_refused(runner: Runner) -> None:
    runner.node.prepare(KEY, order_of("bubblewrap"))
    with pytest.raises(NodeError, match="not prepared for isolation none"):
        runner.node.start(KEY, command_of("true", "none"))


def test_a_fork_never_runs_without_isolation(runner: Runner) -> None:
    with pytest.raises(NodeError, match="fork") as caught:
        runner.node.prepare(KEY, order_of("none", trusted=False))
    assert caught.value.cause is Cause.NOT_SUPPORTED


@pytest.mark.parametrize("key", ["", ".", "..", "a/b", "../x", "a\0b", "-x", "x" * 201, "a.part"])
def test_a_key_that_is_no_name_is_refused(node: Node, key: str) -> None:
    for ask in (lambda: node.prepare(key, order_of("none")), lambda: node.clean(key), lambda: node.code_offset(key)):
        with pytest.raises(NodeError, match="is no key"):
            ask()


def test_missing_code_is_said(node: Node) -> None:
    with pytest.raises(NodeError, match="the code was not sent"):
        node.prepare(KEY, order_of("none", code_key="7-" + "b" * 40))


def test_the_log_is_final_once_the_command_has_ended(runner: Runner) -> None:
    key = runner.begin("echo one; sleep 600")
    while not runner.node.read_log(key, 0, 100).data:
        time.sleep(0.01)
    assert not runner.node.read_log(key, 4, 100).final
    runner.node.stop(key, 1)
    until(runner.node, key, "ended")
    first = runner.node.read_log(key, 0, 2)
    assert (first.data, first.next_offset, first.final) == (b"on", 2, False)
    assert runner.node.read_log(key, 2, 100).final


def test_trees_of_any_depth_and_mode_are_cleaned(runner: Runner) -> None:
    deep = "import os\nfor _ in range(1200): os.mkdir('dddd'); os.chdir('dddd')\n"
    key, _ = runner.run(f'python -c "{deep}"; mkdir ro; touch ro/x; chmod 0 ro; ln -s / root')
    assert runner.node.clean(key).empty
    assert not (runner.root / "attempts" / key).exists()
    assert Path("/etc").exists()


def test_facts_tell_the_host(node: Node) -> None:
    facts = node.facts()
    assert facts.pid == os.getpid()
    assert facts.free_disk_bytes > 0
    assert facts.memory_total_bytes > 0
    assert facts.isolation == "bubblewrap" or facts.isolation_why
    assert pickle.loads(pickle.dumps(facts)) == facts


def test_errors_survive_the_way_to_the_worker() -> None:
    error = pickle.loads(pickle.dumps(NodeError(Cause.DISK_FULL, "no room")))
    assert (error.cause, error.why, str(error)) == (Cause.DISK_FULL, "no room", "disk full: no room")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_a_directory_of_somebody_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    os.chown(tmp_path / "theirs", 65534, 65534)
    (tmp_path / "link").symlink_to(tmp_path / "theirs")
    for root in ("theirs", "link"):
        with pytest.raises(NodeError, match="belongs to another user"):
            Node(tmp_path / root, environ={})


@needs_sandbox
@pytest.mark.parametrize("place", ["/var/tmp", "/dev/shm"])
def test_a_node_may_lie_where_a_sandbox_has_something_of_its_own(place: str) -> None:
    with tempfile.TemporaryDirectory(dir=place) as root:
        node = Node(Path(root), environ={})
        node.put_code(CODE, 0, packed(FILES), True)
        runner = Runner(node, Path(root))
        assert runner.printed("python train.py && pip --version | cut -c1-3", "bubblewrap") == "hello\npip\n"
        node.clean("exp-1-a1-n0")
        node.close()


def test_code_of_another_boot_is_forgotten(runner: Runner, make_node: Callable[..., Node]) -> None:
    (runner.root / "seed").unlink()  # the tests' own arrangement
    assert runner.node.code_offset(CODE) == -1
    assert make_node().code_offset(CODE) == -1
    (runner.root / "boot").write_text("another boot")
    assert make_node().code_offset(CODE) == 0


def test_a_node_keeps_its_id_and_two_agents_on_one_directory_have_one(
    make_node: Callable[..., Node], tmp_path: Path
) -> None:
    first = make_node().facts().root_id
    assert re.fullmatch("[0-9a-f]{32}", first)
    assert make_node().facts().root_id == first
    assert [path.name for path in (tmp_path / "node").glob("id*")] == ["id"]


def test_agents_that_begin_on_a_new_directory_at_once_agree_on_its_id(tmp_path: Path) -> None:
    def begin_in(directory: str) -> str:
        node = Node(tmp_path / directory, environ={})
        node.close()
        return node.facts().root_id

    with ThreadPoolExecutor(16) as pool:
        ids = set(pool.map(begin_in, ["new"] * 16))
    assert ids == {(tmp_path / "new/id").read_text()}
    assert begin_in("other") not in ids


@needs_sandbox
def test_what_was_made_ahead_is_moved_and_is_what_would_be_made_on_demand(runner: Runner) -> None:
    node, attempts = runner.node, runner.root / "attempts"
    node.warm()
    (ahead,) = (path for path in (runner.root / "seed").glob("*-*") if path.is_dir())
    inodes = {(ahead / "bin/activate").stat().st_ino, (runner.root / "code" / CODE / "train.py").stat().st_ino}
    keys = ["exp-1-a1-n0", "exp-2-a1-n0"]
    for key in keys:
        node.prepare(key, order_of("bubblewrap"))
    moved, made = (attempts / key for key in keys)
    assert {(moved / name).stat().st_ino for name in ("env/bin/activate", "workspace/train.py")} == inodes
    assert not ahead.exists()
    for name in ("env", "workspace"):
        assert told(moved / name) == told(made / name)
    assert told(moved / "env")["bin/pip"][1].startswith(b"#!/venv/bin/python")


def test_an_attempt_that_is_cleared_leaves_the_next_one_its_tree(runner: Runner) -> None:
    key, _ = runner.run("echo changed >train.py")
    assert not (runner.root / "code" / CODE).exists()
    assert runner.node.clean(key).empty
    wait_until((runner.root / "code" / CODE).exists)
    assert (runner.root / "code" / CODE / "train.py").read_text() == FILES["train.py"]


def told(tree: Path) -> dict[str, tuple[int, bytes]]:
    """Mode and content of every file of a tree."""
    files = (path for path in tree.rglob("*") if path.is_file() and not path.is_symlink())
    return {str(path.relative_to(tree)): (path.stat().st_mode, path.read_bytes()) for path in files}
