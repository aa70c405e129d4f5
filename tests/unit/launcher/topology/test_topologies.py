"""Topologies as data: groups, ranks and who decides, whatever the topology."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.experiment import Topology
from launcher.network import Network
from launcher.topology import SHAPES, Decides, Group, Shape, members_of, seat, shape_of
from tests.unit.launcher.topology.example import gang, placed, specification, told

COUNTS: dict[Topology, dict[str, int]] = {
    Topology.SINGLE: {"worker": 1},
    Topology.MULTI_GRPC: {"worker": 3, "server": 2},
    Topology.MULTI_MPI: {"master": 1, "worker": 4},
    Topology.MULTI_TORCH: {"worker": 5},
}


@pytest.mark.parametrize("topology", Topology)
def test_every_topology_covers_every_node_once_in_rank_order(topology: Topology) -> None:
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
    members = gang(topology, **COUNTS[Topology(topology)])
    assert [member.rank for member in members if member.decides] == deciding


@pytest.mark.parametrize("topology", Topology)
def test_a_gang_has_a_port_on_every_node_and_a_single_node_none(topology: Topology) -> None:
    members = gang(topology, **COUNTS[topology])
    assert all(bool(member.group.ports) == (len(members) > 1) for member in members)


@pytest.mark.parametrize("topology", Topology)
def test_variables_are_plain_texts_and_files_plain_names(topology: Topology) -> None:
    asked = specification(topology, **COUNTS[topology])
    assert all("\n" not in value and value for value in told(asked, 0).values())
    assert all("/" not in name for name in shape_of(asked).files(placed(asked)))


def test_a_fifth_topology_is_one_file_and_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is what stands here, the line is the first one below it."""

    def groups(asked: Any) -> tuple[Group, ...]:
        return (Group("peer", 0, asked.groups[0].count, "ring", Decides.ALL, ("ring",)),)

    def environment(network: Network, rank: int) -> Mapping[str, str]:
        return {"NEXT": network.nodes[(rank + 1) % len(network.nodes)].endpoint("ring")}

    def files(network: Network) -> Mapping[str, str]:
        return {"ring": " ".join(node.name for node in network.nodes)}

    monkeypatch.setitem(SHAPES, Topology.MULTI_TORCH, Shape(groups, environment, files))
    asked = specification("multi-torch", worker=3)
    assert [(member.role, member.index, member.decides) for member in members_of(asked)] == [
        ("peer", 0, True),
        ("peer", 1, True),
        ("peer", 2, True),
    ]
    assert [told(asked, rank)["NEXT"] for rank in range(3)] == ["10.0.0.2:7000", "10.0.0.3:7000", "10.0.0.1:7000"]
    assert shape_of(asked).files(placed(asked)) == {"ring": "n0 n1 n2"}


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
