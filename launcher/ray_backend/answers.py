"""What Ray's answers mean. Pure."""

from collections.abc import Iterable, Mapping
from typing import Any

from launcher.backend import Reservation

WAITING = frozenset({"PENDING", "PREPARED"})


def judge(row: Mapping[str, Any]) -> Reservation:
    """Where a placement group stands, from Ray's row of it.

    Ray replaces a lost bundle by itself, and two groups that it does that for can wait for each other for ever: a group
    that is rescheduled is lost.
    """
    state, scheduling = row["state"], row["stats"]["scheduling_state"]
    if state == "CREATED":
        nodes = row["bundles_to_node_id"]
        return Reservation("placed", tuple(nodes[index] for index in sorted(nodes)))
    if state in WAITING and scheduling == "INFEASIBLE":
        return Reservation("infeasible", why="no node of the cluster has what it asks")
    if state in WAITING:
        return Reservation("waiting", why="what it asks is in use")
    if state == "RESCHEDULING":
        return Reservation("lost", why="a node with a part of it was lost")
    return Reservation("absent", why="the group was removed")


def in_order(gpu_ids: Iterable[str]) -> tuple[str, ...]:
    """The ids in the node's order: Ray gives strings, in none."""
    return tuple(sorted(gpu_ids, key=lambda each: (not each.isdecimal(), int(each) if each.isdecimal() else 0, each)))
