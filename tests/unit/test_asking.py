"""Who is asked about a node: the one that has its directory, whatever machines are called."""

import asyncio
from collections.abc import Callable

import pytest

from launcher.asking import Asking
from launcher.attempt import Ended
from launcher.backend import NodeUnavailable
from launcher.experiment import Held, HeldNode
from launcher.state import Cause
from tests.fakes import FakeAgent, FakeBackend, Host, names, play

ROOT = "7" * 32
NODE = HeldNode("exp-7-a1-n0", "n1", "vm", "10.0.0.0", root_id=ROOT)


def asked(backend: FakeBackend, node: HeldNode = NODE) -> str | None:
    """The node whose agent was found; None where nobody can be it."""

    async def ask() -> str | None:
        agent = await Asking(backend).agent_of(node)
        assert agent is None or isinstance(agent, FakeAgent)
        return agent and agent.node_id

    return play(ask())


def host(root_id: str = "", name: str = "vm") -> Host:
    return Host(name, id=root_id or f"of another {name}")


def test_a_living_node_is_asked_without_asking_who_it_is() -> None:
    backend = FakeBackend({"other": host(), "n1": host(ROOT)})
    assert asked(backend) == "n1"
    assert [method for method, _ in backend.calls] == ["capacity"]


def test_a_node_that_ray_was_started_again_on_is_found_by_its_directory() -> None:
    assert asked(FakeBackend({"other": host(), "n9": host(ROOT)})) == "n9"


def test_it_is_found_under_a_new_name_at_its_address_and_under_its_name_at_a_new_address() -> None:
    assert asked(FakeBackend({"n9": host(ROOT, "renamed")})) == "n9"
    assert asked(FakeBackend({"other": host(name="elsewhere"), "n9": host(ROOT)})) == "n9"


def test_another_machine_of_the_same_name_is_not_taken_for_it() -> None:
    assert asked(FakeBackend({"n9": host()})) is None


def test_a_second_node_of_the_same_machine_is_taken_for_it_only_if_they_share_the_directory() -> None:
    assert asked(FakeBackend({"n2": host("of n2 alone")})) is None
    assert asked(FakeBackend({"n2": host(ROOT)})) == "n2"


def test_machines_that_can_not_be_it_are_not_asked() -> None:
    backend = FakeBackend({"a": host(), "b": host(name="elsewhere")})
    assert asked(backend) is None
    assert names(backend.calls, "facts") == ["facts"]


@pytest.mark.parametrize("silence", [lambda b: b.silent.add("n9"), lambda b: b.hanging.add("n9")])
def test_as_long_as_one_that_may_be_it_is_silent_nothing_is_known(silence: Callable[[FakeBackend], None]) -> None:
    backend = FakeBackend({"n9": host(ROOT)})
    silence(backend)
    with pytest.raises(NodeUnavailable, match="does not say who it is"):
        asked(backend)


def test_a_namesake_that_hangs_does_not_hold_up_the_one_that_is_it() -> None:
    backend = FakeBackend({"n9": host(ROOT), "other": host()})
    backend.hanging.add("other")

    async def ask() -> float:
        assert await Asking(backend).agent_of(NODE) is not None
        return asyncio.get_running_loop().time()

    assert play(ask()) < 1


def test_of_a_copied_disk_the_one_at_the_old_address_is_it() -> None:
    assert asked(FakeBackend({"n9": host(ROOT), "copy": host(ROOT)})) == "n9"
    moved = HeldNode(NODE.key, "n1", "vm", "10.0.0.1", root_id=ROOT)
    assert asked(FakeBackend({"copy": host(ROOT), "n9": host(ROOT)}), moved) == "n9"


def test_a_record_from_before_there_were_ids_goes_by_name() -> None:
    old = HeldNode(NODE.key, "n1", "vm", "10.0.0.0")
    assert asked(FakeBackend({"a": host(name="elsewhere"), "n9": host()}), old) == "n9"
    assert asked(FakeBackend({"a": host(name="elsewhere")}), old) is None


@pytest.mark.parametrize(
    ("cluster_id", "there", "cause", "why"),
    [
        ("c2", "n1", Cause.HEAD_LOST, "another one took its place"),
        ("c2", "n9", Cause.HEAD_LOST, "another one took its place"),
        ("c1", "n9", Cause.NODE_LOST, "it left the cluster"),
        ("c1", "n1", Cause.RESERVATION_LOST, "Ray knows no such group"),
    ],
)
def test_a_reservation_that_is_gone_was_lost_by_whoever_went_before_it(
    cluster_id: str, there: str, cause: Cause, why: str
) -> None:
    backend = FakeBackend({there: host(ROOT)}, cluster_id=cluster_id)
    lost = play(Asking(backend).reservation_lost(Held(group="g", nodes=(NODE,), cluster_id="c1")))
    assert lost is not None
    assert (lost.cause, lost.detail["why"]) == (cause, why)


@pytest.mark.parametrize(("silent_s", "told"), [(0.0, "10 s"), (4.0, "14 s")])
def test_silence_is_told_from_when_it_began(silent_s: float, told: str) -> None:
    backend = FakeBackend({"n1": host(ROOT)}, hanging={"n1"})
    with pytest.raises(Ended) as lost:
        play(Asking(backend).status(NODE, within_s=10, silent_s=silent_s))
    assert lost.value.detail["why"] == f"it has not answered for {told}"
