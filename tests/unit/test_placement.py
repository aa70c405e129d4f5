"""What an experiment asks of the cluster, and whether it fits."""

import pytest

from launcher.backend import Bundle, Capacity, NodeCapacity
from launcher.experiment import NodeGroup, Role, Specification
from launcher.machines import GIB, Machine, Machines
from launcher.placement import (
    Blocked,
    Needs,
    Running,
    avoiding,
    bundles,
    ever_fits,
    fits,
    free_of,
    needs,
    placeable,
    shortage,
    unplaced_pause_s,
    words,
)


def node(name: str, *, alive: bool = True, labels: dict[str, str] | None = None, **total: float) -> NodeCapacity:
    return NodeCapacity(name, f"host-{name}", f"10.0.0.{name}", alive, total, labels or {})


def cluster(*nodes: NodeCapacity) -> Capacity:
    return Capacity(nodes, "c1")


def asking(lane: str = "m", count: int = 1, strategy: str = "PACK", **resources: float) -> Needs:
    return Needs((lane,), (Bundle(resources),) * count, strategy)


def specification(*groups: tuple[str | None, int]) -> Specification:
    made = tuple(NodeGroup(role=Role.WORKER, count=count, command="x", machine_type=name) for name, count in groups)
    return Specification(name="e", topology="multi-grpc", groups=made)


# --- what an attempt asks ---


def test_each_node_of_each_group_is_one_bundle_with_what_its_machine_type_means():
    machines = (
        Machine("P4000", gpus=1, cpus=8, memory_bytes=GIB, labels={"accelerator": "P4000"}),
        Machine("C3", cpus=2),
    )
    spec = specification(("P4000", 2), ("C3", 1))
    gpu = Bundle({"CPU": 8.0, "GPU": 1.0, "memory": float(GIB)}, {"accelerator": "P4000"})
    assert bundles(spec, machines) == (gpu, gpu, Bundle({"CPU": 2.0}))


def test_several_nodes_are_spread_over_hosts_unless_they_may_share_them():
    machine = (Machine("m"),)
    assert needs(specification(("m", 1)), machine).strategy == "PACK"
    assert needs(specification(("m", 2)), machine).strategy == "STRICT_SPREAD"
    assert needs(specification(("m", 2)), machine, shared_hosts=True).strategy == "PACK"


def test_needs_name_the_queues_and_what_is_not_declared():
    spec = specification((None, 1), ("x", 1), ("x", 1))
    asked = needs(spec, (Machine("default"), Machine("x", declared=False), Machine("x", declared=False)))
    assert asked.lanes == ("default", "x")
    assert asked.undeclared == ("x",)


def test_needs_are_told_in_words():
    assert words({"CPU": 8, "GPU": 1, "memory": 1.5 * GIB, "tpu": 2}) == "8 CPUs, 1 GPU, 1.5 GiB of memory, 2 tpu"
    assert asking(CPU=1).words == "1 CPU"
    two = Needs((), (Bundle({"CPU": 1}), Bundle({"CPU": 1}), Bundle({"GPU": 2})))
    assert two.words == "2 nodes of 1 CPU and 2 GPUs"


def test_bundles_can_be_kept_off_nodes():
    plain = (Bundle({"CPU": 1}, {"zone": "a"}),)
    assert avoiding(plain, []) == plain
    away = avoiding(plain, ["n2", "n1"])
    assert away == (Bundle({"CPU": 1}, {"zone": "a", "ray.io/node-id": "!in(n1,n2)"}),)
    free = [node("n1", labels={"zone": "a"}, CPU=1), node("n3", labels={"zone": "a"}, CPU=1)]
    assert fits(Needs((), away), free)
    assert not fits(Needs((), away), free[:1])


# --- what fits ---


@pytest.mark.parametrize(
    ("selector", "value", "matches"),
    [
        ("a", "a", True),
        ("a", "b", False),
        ("a", None, False),
        ("!a", "b", True),
        ("!a", "a", False),
        ("!a", None, True),
        ("in(a, b)", "b", True),
        ("in(a,b)", "c", False),
        ("!in(a, b)", "b", False),
        ("!in(a, b)", "c", True),
    ],
)
def test_labels_select_nodes_as_ray_does(selector, value, matches):
    labels = {} if value is None else {"zone": value}
    assert fits(Needs((), (Bundle({"CPU": 1}, {"zone": selector}),)), [node("1", labels=labels, CPU=1)]) is matches


def test_a_bundle_needs_one_node_that_has_all_of_it():
    assert fits(asking(CPU=2), [node("1", CPU=1), node("2", CPU=2)])
    assert not fits(asking(CPU=2), [node("1", CPU=1), node("2", CPU=1)])
    assert not fits(asking(CPU=1, GPU=1), [node("1", CPU=1), node("2", GPU=1)])
    assert not fits(asking(CPU=1), [])


def test_spread_bundles_take_a_node_each_and_packed_ones_may_share():
    assert not fits(asking(count=2, strategy="STRICT_SPREAD", CPU=1), [node("1", CPU=2)])
    assert fits(asking(count=2, CPU=1), [node("1", CPU=2)])
    assert not fits(asking(count=3, CPU=1), [node("1", CPU=2)])


def test_a_spread_gang_finds_the_only_assignment_there_is():
    small, big = Bundle({"CPU": 1}), Bundle({"CPU": 4})
    gang = Needs((), (small, big), "STRICT_SPREAD")
    assert fits(gang, [node("1", CPU=4), node("2", CPU=1)])
    assert not fits(gang, [node("1", CPU=4), node("2", CPU=0)])


def test_free_is_what_our_placed_and_our_coming_attempts_leave():
    capacity = cluster(node("1", CPU=4), node("2", CPU=4), node("3", alive=False, CPU=4))
    placed = Running(1, 1, asking(CPU=3), ("1",))
    coming = Running(2, 1, asking(CPU=2))
    gone = Running(3, 1, asking(CPU=1), ("3",))
    assert {each.node_id: each.total["CPU"] for each in free_of(capacity, [coming, placed, gone])} == {"1": 1, "2": 2}


def test_of_a_gang_as_many_nodes_have_a_place_as_there_are_hosts_unless_they_share():
    free = [node("1", CPU=2), node("2", CPU=2), node("3", GPU=1)]
    assert placeable(asking(count=4, strategy="STRICT_SPREAD", CPU=1), free) == 2
    assert placeable(asking(count=5, CPU=1), free) == 4


def test_what_the_cluster_never_had_never_fits_and_what_is_merely_absent_does():
    machines, most = Machines(), cluster(node("1", CPU=4))
    assert ever_fits(asking(CPU=4), most, machines)
    assert not ever_fits(asking(CPU=5), most, machines)
    assert not ever_fits(asking(GPU=1), most, machines)
    assert ever_fits(asking(CPU=5), cluster(), machines)


def test_the_operator_s_table_is_declared_capacity_and_only_it():
    table = Machines({"big": Machine("big", cpus=64)})
    assert ever_fits(asking(CPU=64), cluster(node("1", CPU=4)), table)
    undeclared = Needs(("x",), (Bundle({"CPU": 1}),), undeclared=("x",))
    assert not ever_fits(undeclared, cluster(node("1", CPU=4)), table)


def test_a_shortage_names_the_node_that_comes_closest():
    free = [node("1", CPU=1, GPU=0), node("2", CPU=1, GPU=1)]
    short = shortage(asking(CPU=2, GPU=2), free)
    assert (short.blocked, short.host) == (Blocked.MACHINES, "host-2")
    assert short.needed == {"CPU": 2, "GPU": 2}
    assert short.free == {"CPU": 1, "GPU": 1}
    assert short.missing == {"CPU": 1, "GPU": 1}


def test_a_shortage_without_any_node_of_the_labels_misses_everything():
    wanted = Needs((), (Bundle({"CPU": 1}, {"zone": "a"}),))
    short = shortage(wanted, [node("1", CPU=8)])
    assert (short.host, short.free, short.missing) == ("", {}, {"CPU": 1})


def test_the_pauses_between_tries_of_ray_double_from_a_moment_to_half_an_hour():
    pauses = [unplaced_pause_s(times) for times in range(1, 11)]
    assert pauses == [15, 30, 60, 120, 240, 480, 960, 1800, 1800, 1800]
    assert unplaced_pause_s(10**6) == 1800


# --- capacity ---


def test_the_most_a_cluster_had_survives_a_node_that_comes_back_smaller_or_not_at_all():
    before = cluster(node("1", CPU=8, GPU=2), node("2", CPU=2))
    now = Capacity((NodeCapacity("x", "host-1", "10.0.0.1", True, {"CPU": 16}), node("2", alive=False, CPU=2)), "c2")
    most = before.at_least(now)
    assert sorted(sorted(each.total.items()) for each in most.nodes) == [[("CPU", 2)], [("CPU", 16), ("GPU", 2)]]
    assert most.at_least(before).at_least(now) == most.at_least(now)


def test_nodes_of_one_address_are_counted_not_merged():
    two = Capacity(tuple(NodeCapacity(name, "h", "a", True, {"CPU": 4.0}) for name in "xy"), "c1")
    assert len(two.at_least(two).nodes) == 2
