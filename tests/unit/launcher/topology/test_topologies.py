"""Topologies as data: groups, ranks and who decides, whatever the topology."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ci_bot.run.plan import Planner
from launcher.controller import Rules
from launcher.experiment import Specification
from launcher.machines import Machines
from launcher.topology import SHAPES, members_of, seat, shape_of
from tests.unit.config.example import problem, read
from tests.unit.launcher.topology import multi_ring
from tests.unit.launcher.topology.example import gang, placed, specification, told

COUNTS: dict[str, dict[str, int]] = {
    "single": {"worker": 1},
    "multi-grpc": {"worker": 3, "server": 2},
    "multi-mpi": {"master": 1, "worker": 4},
    "multi-torch": {"worker": 5},
}


@pytest.mark.parametrize("topology", SHAPES)
def test_every_topology_covers_every_node_once_in_rank_order(topology: str) -> None:
    asked = specification(topology, **COUNTS[topology])
    members = members_of(asked)
    assert [member.rank for member in members] == list(range(sum(group.count for group in asked.groups)))
    by_source = [sum(member.group.source == source for member in members) for source in range(len(asked.groups))]
    assert by_source == [group.count for group in asked.groups]


@pytest.mark.parametrize(
    ("topology", "deciding"),
    [("single", [0]), ("multi-grpc", [0]), ("multi-mpi", [0]), ("multi-torch", [0, 1, 2, 3, 4])],
)
def test_it_is_said_who_decides(topology: str, deciding: list[int]) -> None:
    members = gang(topology, **COUNTS[topology])
    assert [member.rank for member in members if member.decides] == deciding


@pytest.mark.parametrize("topology", SHAPES)
def test_a_gang_has_a_port_on_every_node_and_a_single_node_none(topology: str) -> None:
    members = gang(topology, **COUNTS[topology])
    assert all(bool(member.group.ports) == (len(members) > 1) for member in members)


@pytest.mark.parametrize("topology", SHAPES)
def test_variables_are_plain_texts_and_files_plain_names(topology: str) -> None:
    asked = specification(topology, **COUNTS[topology])
    assert all("\n" not in value and value for value in told(asked, 0).values())
    assert all("/" not in name for name in shape_of(asked).files(placed(asked)))


RING_1 = "version: 1\ntype: multi-ring\nworker: {command: python ring.py, count: 3}\n"
RING_2 = """\
version: 2
workflows:
  ring:
    steps:
      - name: repo
        command: experiment.run_ring_multi_node
        params: {workerCommand: python ring.py, workerCount: 3}
"""


@pytest.mark.parametrize("text", [RING_1, RING_2])
def test_a_fifth_topology_is_one_file_and_one_line(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is beside this one, the line is the first one: from a configuration's text on nothing else knows it."""
    monkeypatch.setitem(SHAPES, "multi-ring", multi_ring.SHAPE)
    configuration = read(text)
    assert configuration.problems == ()
    kept = configuration.experiments[0].specification.model_dump_json()
    plan = Planner(Machines(), Rules(time_limit_s=3600)).record(Specification.model_validate_json(kept), {})
    assert (plan["experiment"], plan["type"]) == ("repo", "multi-ring")
    assert [(node["role"], node["index"], node["decides"], node["command"]) for node in plan["nodes"]] == [
        ("worker", index, True, "python ring.py") for index in range(3)
    ]
    next_ones = [f"<address of worker {each}>:<port ring of worker {each}>" for each in (1, 2, 0)]
    assert [node["env"]["NEXT"] for node in plan["nodes"]] == next_ones
    assert plan["files"] == {"/generated/ring": " ".join(f"<name of worker {each}>" for each in range(3))}


def test_a_fifth_topology_is_in_what_a_person_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SHAPES, "multi-ring", multi_ring.SHAPE)
    assert "Write `type: multi-ring`." in problem(RING_1.replace("multi-ring", "Ring")).message
    one_of = "one of single, multi-grpc, multi-mpi, multi-torch, multi-ring"
    assert one_of in problem(RING_1.replace("multi-ring", "multi-star")).message
    assert "multi-ring" in problem(RING_1.replace("type: multi-ring\n", "")).message
    assert "experiment.run_ring_multi_node" in problem(RING_2.replace("run_ring", "run_star")).message


def test_neighbours_on_one_host_get_neighbouring_ranks() -> None:
    members = gang("multi-torch", worker=5)
    hosts = ["b", "a", "b", "a", "b"]
    assert [hosts[bundle] for bundle in seat(members, hosts)] == ["b", "b", "b", "a", "a"]


def test_the_host_of_the_first_that_decides_comes_first_in_every_group() -> None:
    members = gang("multi-grpc", worker=2, server=2)
    assert seat(members, ["a", "b", "b", "a"]) == (0, 1, 3, 2)


def test_a_master_and_the_worker_beside_it_come_first() -> None:
    assert seat(gang("multi-mpi", master=1, worker=3), ["a", "b", "a", "c"]) == (0, 2, 1, 3)


def test_without_a_master_all_machines_are_of_one_group() -> None:
    assert seat(gang("multi-mpi", worker=4), ["a", "b", "a", "b"]) == (0, 2, 1, 3)


def test_each_node_needs_its_bundle() -> None:
    with pytest.raises(ValueError, match="2 nodes need a bundle each, got 1"):
        seat(gang("multi-torch", worker=2), ["a"])


@given(data=st.data(), workers=st.integers(1, 6), servers=st.integers(1, 4))
def test_every_bundle_is_given_once_and_only_within_its_group(data: st.DataObject, workers: int, servers: int) -> None:
    members = gang("multi-grpc", worker=workers, server=servers)
    hosts = data.draw(st.lists(st.sampled_from("abc"), min_size=len(members), max_size=len(members)))
    seats = seat(members, hosts)
    assert sorted(seats[:workers]) == list(range(workers))
    assert sorted(seats[workers:]) == list(range(workers, workers + servers))
    for part in (seats[:workers], seats[workers:]):
        on = [hosts[bundle] for bundle in part]
        assert sum(a != b for a, b in pairwise(on)) == len(set(on)) - 1
