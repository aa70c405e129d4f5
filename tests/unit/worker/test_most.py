"""The most that the cluster ever had, kept as text."""

from ci_bot.worker.most import MAX_NODES, NAMES, NOTHING, dump, load
from launcher.backend import Capacity, NodeCapacity


def node(number: int, *, alive: bool = True, **total: float) -> NodeCapacity:
    return NodeCapacity(f"n{number}", f"host-{number}", f"10.0.0.{number}", alive, total)


def test_nothing_is_known_at_first() -> None:
    assert load(None) == load("") == load(dump(NOTHING)) == NOTHING


def test_what_was_kept_is_what_decides_about_waiting() -> None:
    known = load(dump(Capacity((node(1, CPU=4.0), node(2, CPU=8.0, GPU=2.0)), "c1")))
    assert [{name: each.total[name] for name in NAMES} for each in known.alive] == [
        {"CPU": 8, "GPU": 2},
        {"CPU": 4, "GPU": 0},
    ]


def test_the_text_changes_only_when_something_has_grown() -> None:
    first = Capacity((node(1, CPU=4.0, memory=1e9),), "c1")
    again = Capacity((NodeCapacity("new id", "renamed", "10.0.0.1", True, {"CPU": 2.0, "memory": 2e9}),), "c2")
    kept = dump(first)
    assert dump(load(kept)) == dump(load(kept).at_least(again)) == kept
    assert dump(load(kept).at_least(Capacity((node(1, CPU=4.0, GPU=1.0),), "c3"))) != kept


def test_a_node_that_is_dead_is_none() -> None:
    assert dump(NOTHING.at_least(Capacity((node(1, alive=False, CPU=4.0),), "c1"))) == dump(NOTHING)


def test_of_addresses_without_end_the_largest_machines_are_remembered() -> None:
    many = Capacity((*(node(number, CPU=1.0) for number in range(2 * MAX_NODES)), node(-1, CPU=1.0, GPU=8.0)), "c1")
    known = load(dump(many))
    assert len(known.nodes) == MAX_NODES
    assert max(each.total["GPU"] for each in known.nodes) == 8
