"""The parts of the Ray backend that decide something: answers, the fence, what may come back from a cluster."""

import asyncio
import inspect
import os
import pickle
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

import pytest

from launcher.backend import AgentClient, Capacity, HeadLost, NodeCapacity, NodeUnavailable, Reservation
from launcher.node_types import Clean, Daemon, Exit, NodeError, NodeStatus, Unreached
from launcher.ray_backend import agent_client
from launcher.ray_backend.agent_client import RayAgent
from launcher.ray_backend.answers import in_order, judge
from launcher.ray_backend.client import RayBackend
from launcher.ray_backend.exits import HEAD_SILENT, why_ended
from launcher.ray_backend.fence import Answer, Fence
from launcher.ray_backend.order import identity_of, refusal
from launcher.ray_backend.passing import OWNERLESS_S, Passing
from launcher.ray_backend.wire import MAX_BYTES, WireError, pack, receive, unpack_values
from launcher.state import Cause
from tests.fakes import play


def row(state: str, scheduling: str = "") -> dict:
    return {"state": state, "stats": {"scheduling_state": scheduling}, "bundles_to_node_id": {1: "b", 0: "a"}}


@pytest.mark.parametrize(
    ("state", "scheduling", "expected"),
    [
        ("CREATED", "FINISHED", "placed"),
        ("PENDING", "QUEUED", "waiting"),
        ("PENDING", "NO_RESOURCES", "waiting"),
        ("PREPARED", "", "waiting"),
        ("PENDING", "INFEASIBLE", "infeasible"),
        ("RESCHEDULING", "FAILED_TO_COMMIT_RESOURCES", "lost"),
        ("RESCHEDULING", "INFEASIBLE", "lost"),
        ("REMOVED", "REMOVED", "absent"),
    ],
)
def test_a_group_that_lost_a_part_is_lost_and_one_that_does_not_fit_now_waits(state, scheduling, expected):
    assert judge(row(state, scheduling)).state == expected


def test_a_placed_reservation_names_its_nodes_in_bundle_order():
    assert judge(row("CREATED")) == Reservation("placed", ("a", "b"))


def test_gpu_ids_are_in_the_node_s_order():
    assert in_order(["10", "2", "MIG-b", "0", "MIG-a"]) == ("0", "2", "10", "MIG-a", "MIG-b")


def test_the_driver_s_end_is_told_in_words():
    assert why_ended(HEAD_SILENT, "noise") == "the head does not answer"
    assert why_ended(1, "Authentication failed") == "the connection to Ray ended (1): Authentication failed"
    assert why_ended(-9, "") == "the connection to Ray ended (-9)"


def test_the_worker_s_side_never_imports_ray():
    code = "import sys, launcher.ray_backend, launcher.ray_head; print('ray' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "False\n"


def test_a_node_answers_every_question_of_the_worker():
    names = [name for name, each in vars(AgentClient).items() if inspect.iscoroutinefunction(each)]
    shell = Path(agent_client.__file__).with_name("agent.py").read_text()  # it imports Ray
    assert [name for name in names if f'"{name}"' not in shell] == []


# --- the fence ---


def fence(silence_s: float = 10) -> tuple[Fence, list[str]]:
    fallen: list[str] = []
    return Fence(lambda: Answer.OURS, silence_s, fallen.append, answered_at=100.0), fallen


def test_another_cluster_at_the_head_s_address_ends_everything_at_once():
    watch, fallen = fence()
    watch.hear(Answer.ANOTHER, 100.1)
    assert fallen == ["the head's address is answered by another cluster"]


def test_silence_ends_everything_only_when_it_lasts():
    watch, fallen = fence()
    watch.hear(Answer.SILENCE, 109.0)
    watch.hear(Answer.OURS, 110.0)
    watch.hear(Answer.SILENCE, 119.0)
    assert fallen == []
    watch.hear(Answer.SILENCE, 121.0)
    watch.hear(Answer.SILENCE, 122.0)
    assert fallen == ["the head has not answered for 11 s", "the head has not answered for 12 s"]


# --- the wire ---


class Evil:
    """What runs a command when it is unpickled."""

    def __reduce__(self):
        return os.system, ("true",)


@pytest.mark.parametrize(
    "value",
    [
        None,
        (1, None, {"a": [b"x", 1.5, ("y",)]}),
        Capacity((NodeCapacity("n", "h", "a", True, {"CPU": 1.0}),), "c"),
        {"k": NodeStatus("ended", Exit(Cause.COMMAND_EXITED, 7, None, 1.0, {"hint": ""}))},
        (Unreached(1, "::1", 20000, "refused"), Daemon("d", "worker-1", 0, None, 1.0)),
    ],
)
def test_our_values_come_back_as_they_were(value):
    assert unpack_values(pack(value)[8:]) == value


def test_our_errors_come_back_with_what_they_say():
    error = unpack_values(pack(NodeError(Cause.DISK_FULL, "no room"))[8:])
    assert (error.cause, error.why) == (Cause.DISK_FULL, "no room")
    assert unpack_values(pack(NodeUnavailable("gone"))[8:]).why == "gone"


@pytest.mark.parametrize(
    "body",
    [
        pickle.dumps(Evil()),
        pickle.dumps(PurePosixPath("/")),
        pickle.dumps(eval),
        b"clauncher.backend\nreplace\n.",
        b"clauncher.backend\nMapping\n.",
        b"clauncher.backend\nNodeCapacity\n(tR.",
        b"cos\nsystem\n(S'true'\ntR.",
        b"",
        b"\x80\x05garbage",
    ],
)
def test_nothing_but_our_values_comes_back(body):
    with pytest.raises((WireError, EOFError)):
        unpack_values(body)


def reading(data: bytes) -> bytes:
    async def read() -> bytes:
        reader = asyncio.StreamReader()
        reader.feed_data(data)
        reader.feed_eof()
        return await receive(reader)

    return asyncio.run(read())


def test_a_message_that_breaks_off_is_the_end():
    for cut in range(len(pack("abc"))):
        with pytest.raises(EOFError):
            reading(pack("abc")[:cut])
    assert pickle.loads(reading(pack("abc"))) == "abc"


def test_a_message_that_says_it_is_huge_is_not_read():
    with pytest.raises(WireError, match="the limit is"):
        reading((MAX_BYTES + 1).to_bytes(8, "big"))


class ByGetattr:
    """Pickles as the members of enumerations did up to Python 3.11.3."""

    def __init__(self, kind: object, name: str) -> None:
        self.kind, self.name = kind, name

    def __reduce__(self) -> tuple[object, ...]:
        return getattr, (self.kind, self.name)


def test_members_of_our_enumerations_come_back_from_every_python() -> None:
    assert unpack_values(pack(ByGetattr(Cause, "DISK_FULL"))[8:]) is Cause.DISK_FULL


@pytest.mark.parametrize(("kind", "name"), [(Cause, "__class__"), (Cause, "mro"), (NodeError, "__init__")])
def test_nothing_but_members_comes_back_that_way(kind: object, name: str) -> None:
    with pytest.raises(WireError):
        unpack_values(pack(ByGetattr(kind, name))[8:])


# --- what goes with its owner ---


class Keeper:
    """The attempts of a node: each ends on the second time it is told to."""

    def __init__(self, *keys: str) -> None:
        self.here = dict.fromkeys(keys, 0)

    def inventory(self) -> list[str]:
        return sorted(self.here)

    def stop(self, key: str, grace_s: float) -> None:
        self.here[key] += 1

    def clean(self, key: str) -> Clean:
        if self.here[key] < 2:
            return Clean(empty=False, left=("its command",))
        del self.here[key]
        return Clean(empty=True)


MINE, APPS = "run-1a2b3c4d-exp-1-a1-n0", "exp-1-a1-n0"


def passing(keeper: Keeper, *gone: str) -> Passing:
    return Passing(keeper, lambda names: set(names) & set(gone))


def test_what_lost_its_reservation_is_ended_after_its_owner_had_time_and_until_it_is_gone():
    keeper = Keeper(MINE, APPS)
    watch = passing(keeper, "run-1a2b3c4d-exp-1-a1", "exp-1-a1")
    watch.look(100)
    watch.look(100 + OWNERLESS_S - 1)
    assert keeper.here == {MINE: 0, APPS: 0}
    watch.look(100 + OWNERLESS_S)
    assert keeper.here == {MINE: 1, APPS: 0}
    watch.look(102 + OWNERLESS_S)
    assert keeper.here == {APPS: 0}


def test_what_has_its_reservation_is_left_alone_and_the_time_begins_anew_when_it_is_seen_again():
    keeper, gone = Keeper(MINE), {"run-1a2b3c4d-exp-1-a1"}
    watch = Passing(keeper, lambda names: set(names) & gone)
    watch.look(100)
    gone.clear()
    watch.look(105)
    gone.add("run-1a2b3c4d-exp-1-a1")
    watch.look(109)
    watch.look(109 + OWNERLESS_S - 1)
    assert keeper.here == {MINE: 0}


def test_the_cluster_is_not_asked_for_the_app_s():
    def gone(names):
        raise AssertionError("asked")

    Passing(Keeper(APPS), gone).look(100)


def test_one_that_can_not_be_cleared_does_not_keep_the_next():
    class Stuck(Keeper):
        def clean(self, key: str) -> Clean:
            if key == MINE:
                raise NodeError(Cause.PREPARATION_FAILED, "busy")
            return super().clean(key)

    keeper = Stuck(MINE, "run-2-exp-1-a1-n0")
    watch = passing(keeper, "run-1a2b3c4d-exp-1-a1", "run-2-exp-1-a1")
    for now in (0, OWNERLESS_S, OWNERLESS_S + 2):
        watch.look(now)
    assert list(keeper.here) == [MINE]


def test_a_node_s_inventory_is_the_app_s_alone():
    async def ask(*question, **more):
        return [MINE, APPS]

    assert asyncio.run(RayAgent("n1", ask).inventory()) == [APPS]


# --- a guest ---


def test_a_guest_is_told_what_the_cluster_s_agents_were_made_with():
    ours = identity_of("code", 120, None)
    assert refusal(identity_of("older", 120, None), ours).startswith("its agent is of another version")
    with_storage = identity_of("code", 60.5, Path("/mnt/my storage"))
    assert refusal(with_storage, ours) == (
        "its agent was made with FENCE_S=60.5 and STORAGE_DIR=/mnt/my storage; set the same here"
    )
    assert "without STORAGE_DIR" in refusal(identity_of("code", 60, None), ours)


# --- the keeper ---


def test_whatever_where_the_head_is_asked_of_raises_is_told_and_it_is_asked_again(caplog):
    asked: list[float] = []

    def where() -> None:
        asked.append(asyncio.get_running_loop().time())
        raise LookupError("a record of another version")

    async def main() -> str:
        backend = RayBackend(where, environment={}, fence_s=120)
        try:
            await backend.connect(timeout_s=20)
        except HeadLost as lost:
            return lost.why
        finally:
            await backend.close()
        return ""

    why = play(main())
    assert why == "Ray could not be reached within 20 s: LookupError: a record of another version"
    assert len(asked) > 5
    assert [record.levelname for record in caplog.records] == ["WARNING"]  # once, however often it is the same


# --- the agent ---


def test_the_launches_of_one_attempt_do_not_keep_those_of_another_waiting():
    agent = pytest.importorskip("launcher.ray_backend.agent")
    at_once, over = agent.LAUNCHES_AT_ONCE, threading.Event()
    waiting: list[str] = []

    class Launching:
        def launched(self, key: str, launch_id: str, timeout_s: float) -> str:
            waiting.append(key)
            if key == "greedy":
                over.wait(30)
            return key

    async def main() -> None:
        made = agent.NodeAgent.__new__(agent.NodeAgent)
        made._node, made._calls, made._turns = Launching(), None, agent.Turns(at_once)
        with ThreadPoolExecutor(at_once + 1) as pool:
            made._pools = {"launched": pool}
            greedy = [asyncio.ensure_future(made.call("launched", ("greedy", "d", 5.0))) for _ in range(at_once * 2)]
            try:
                async with asyncio.timeout(20):
                    assert await made.call("launched", ("modest", "d", 5.0)) == "modest"
                assert waiting.count("greedy") == at_once
            finally:
                over.set()
            assert await asyncio.gather(*greedy) == ["greedy"] * at_once * 2

    asyncio.run(main())
