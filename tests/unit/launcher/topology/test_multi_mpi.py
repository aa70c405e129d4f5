"""What mpirun meets, of whatever MPI."""

from collections.abc import Sequence
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.topology import Wave, members_of, shape_of
from launcher.topology.multi_mpi import WAIT, common_network
from tests.unit.launcher.topology.example import placed, specification, told

GANG = specification("multi-mpi", master=1, worker=2)


def hostfile(*, gpus: tuple[int, ...] = (), cpus: float = 1) -> list[str]:
    return shape_of(GANG).files(placed(GANG, gpus=gpus, cpus=cpus))["hostfile"].splitlines()


def test_the_hostfile_has_a_line_for_each_slot() -> None:
    assert hostfile(cpus=2) == ["n0", "n0", "n1", "n1", "n2", "n2"]


def test_a_master_without_a_gpu_takes_no_part_among_workers_that_have_one() -> None:
    assert hostfile(gpus=(0, 1, 2)) == ["n1", "n2", "n2"]
    assert hostfile(gpus=(1, 1, 1)) == ["n0", "n1", "n2"]


@pytest.mark.parametrize(
    "name", ["OMPI_MCA_orte_default_hostfile", "PRTE_MCA_prte_default_hostfile", "HYDRA_HOST_FILE"]
)
def test_mpirun_without_a_hostfile_uses_ours(name: str) -> None:
    assert told(GANG, 0)[name] == "/generated/hostfile"


@pytest.mark.parametrize("name", ["OMPI_MCA_orte_set_default_slots", "PRTE_MCA_prte_set_default_slots"])
def test_a_host_that_stands_once_in_the_hostfile_has_one_slot(name: str) -> None:
    assert told(GANG, 0)[name] == "1"


def test_open_mpi_keeps_to_the_network_that_all_nodes_share() -> None:
    env = told(GANG, 0)
    assert env["OMPI_MCA_oob_tcp_if_include"] == env["OMPI_MCA_btl_tcp_if_include"] == "10.0.0.0/30"


def test_every_node_is_told_the_same() -> None:
    assert told(GANG, 0) == told(GANG, 1) == told(GANG, 2)


def test_the_master_starts_when_all_workers_have() -> None:
    assert [(member.role, member.group.wave) for member in members_of(GANG)] == [
        ("master", Wave.LAST),
        ("worker", Wave.TOGETHER),
        ("worker", Wave.TOGETHER),
    ]
    assert shape_of(GANG).launches


@pytest.mark.parametrize("count", [1, 4])
def test_without_a_master_worker_0_is_it_and_the_others_wait(count: int) -> None:
    asked = specification("multi-mpi", worker=count, command="mpirun train")
    members = members_of(asked)
    assert [member.group.command for member in members] == ["mpirun train"] + [WAIT] * (count - 1)
    assert [(member.role, member.index) for member in members] == [
        ("master", 0),
        *(("worker", index) for index in range(count - 1)),
    ]
    assert [member.decides for member in members] == [True] + [False] * (count - 1)


@pytest.mark.parametrize(
    ("addresses", "expected"),
    [
        (["10.0.0.1", "10.0.0.200"], "10.0.0.0/24"),
        (["10.0.0.1"], "10.0.0.1/32"),
        (["127.0.0.1", "127.0.0.1"], "127.0.0.1/32"),
        (["10.0.0.1", "127.0.0.1"], None),
        (["10.0.0.1", "192.168.0.1"], None),
        (["fd00::1", "fd00::2"], None),
        (["10.0.0.1", "fd00::2"], None),
        (["host-a"], None),
        ([], None),
    ],
)
def test_the_common_network_is_the_smallest_that_holds_all(addresses: Sequence[str], expected: str | None) -> None:
    assert common_network(addresses) == expected


@given(st.lists(st.ip_addresses(v=4).map(str), min_size=1, max_size=5))
def test_a_common_network_holds_every_address_and_half_of_it_does_not(addresses: list[str]) -> None:
    found = common_network(addresses)
    if found is not None:
        network = ip_network(found)
        assert all(ip_address(address) in network for address in addresses)
        halves = network.subnets() if network.prefixlen < 32 else ()
        assert not any(all(ip_address(address) in half for address in addresses) for half in halves)
