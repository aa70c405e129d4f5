"""The network document: who is where."""

from dataclasses import replace

import pytest

from launcher.network import Network, NetworkNode, Site, network
from tests.unit.launcher.topology.example import gang


def test_a_node_keeps_what_it_reported_under_its_rank_and_role() -> None:
    members = gang("multi-grpc", worker=1, server=1)
    sites = [Site("a", "host-a", "10.0.0.1", {"grpc": 7001}), Site("b", "host-b", "10.0.0.2", {"grpc": 7002})]
    assert network(members, sites).nodes == (
        NetworkNode(0, "worker", 0, "a", "host-a", "10.0.0.1", {"grpc": 7001}),
        NetworkNode(1, "parameter-server", 0, "b", "host-b", "10.0.0.2", {"grpc": 7002}),
    )


@pytest.mark.parametrize(("gpus", "cpus", "slots"), [(2, 8, 2), (0, 8, 8), (0, 2.5, 2), (0, 0.5, 1), (0, 0, 1)])
def test_a_node_is_meant_for_as_many_processes_as_it_has_gpus_or_else_processors(
    gpus: int, cpus: float, slots: int
) -> None:
    (node,) = network(gang("single", worker=1), [Site("a", "h", "10.0.0.1", gpus=gpus, cpus=cpus)]).nodes
    assert (node.slots, node.gpus) == (slots, gpus)


def test_two_nodes_never_have_one_name() -> None:
    sites = [Site("a", "host-a", "10.0.0.1"), Site("a", "host-b", "10.0.0.2")]
    with pytest.raises(ValueError, match="a name of its own"):
        network(gang("multi-torch", worker=2), sites)


def test_every_node_has_its_place() -> None:
    with pytest.raises(ValueError, match="shorter"):
        network(gang("multi-torch", worker=2), [Site("a", "host-a", "10.0.0.1")])


def test_an_endpoint_is_an_address_and_a_port_in_either_family() -> None:
    node = NetworkNode(2, "worker", 2, "c", "host-c", "10.0.0.3", {"grpc": 7000})
    assert node.endpoint("grpc") == "10.0.0.3:7000"
    assert replace(node, address="fd00::3").endpoint("grpc") == "[fd00::3]:7000"
    assert node.words == "worker 2 on host-c"


def test_peers_are_all_others() -> None:
    nodes = tuple(NetworkNode(rank, "worker", rank, f"n{rank}", "h", "10.0.0.1") for rank in range(3))
    assert [node.rank for node in Network(nodes).peers(1)] == [0, 2]
