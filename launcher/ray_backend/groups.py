"""Reservations as Ray's placement groups: named, found again by anybody who knows the name. Blocks.

They are detached, but for those whose name says that they go with the driver that made them."""

from collections.abc import Iterable, Mapping
from typing import Any

import ray
from ray._private import state as ray_state
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group

from launcher.backend import Bundle, Capacity, NodeCapacity, Reservation, Strategy
from launcher.group_names import LASTING, is_passing
from launcher.ray_backend.answers import judge
from launcher.ray_backend.order import NAMESPACE


def capacity() -> Capacity:
    """The nodes and what they have in total."""
    nodes = (
        NodeCapacity(
            node_id=node["NodeID"],
            host=node["NodeManagerHostname"],
            address=node["NodeManagerAddress"],
            alive=node["Alive"],
            total=dict(node["Resources"]),
            labels=dict(node["Labels"] or {}),
        )
        for node in ray.nodes()
    )
    return Capacity(tuple(nodes), cluster_id())


def cluster_id() -> str:
    """The id that this cluster's head made for it."""
    found: str = ray._private.worker.global_worker.gcs_client.cluster_id.hex()
    return found


def reserve(name: str, bundles: tuple[Bundle, ...], strategy: Strategy) -> None:
    """Ask for a placement group; one that has the name already is the one."""
    if _row(name):
        return
    try:
        placement_group(
            [dict(bundle.resources) for bundle in bundles],
            strategy=strategy,
            name=name,
            lifetime=None if is_passing(name) else "detached",
            bundle_label_selector=[dict(bundle.labels) for bundle in bundles],
        )
    except ray.exceptions.RaySystemError as error:
        if "already exists" not in str(error):
            raise


def reservation(name: str) -> Reservation:
    """Where a placement group stands."""
    row = _row(name)
    return judge(row) if row else Reservation("absent", why="Ray knows no such group")


def reservations() -> list[str]:
    """The names of the App's placement groups."""
    rows = ray_state.state.placement_group_table().values()
    return sorted(row["name"] for row in rows if row["name"].startswith(LASTING) and row["state"] != "REMOVED")


def release(name: str) -> None:
    """Remove a placement group; one that is not there is removed already."""
    row = _row(name)
    if row:
        remove_placement_group(handle(row))


def gone(names: Iterable[str]) -> set[str]:
    """Those of these placement groups that Ray does not have."""
    return {name for name in names if _row(name) is None}


def placed(name: str) -> PlacementGroup | None:
    """The handle of a placement group that is placed; it must never reach anybody else."""
    row = _row(name)
    return handle(row) if row and row["state"] == "CREATED" else None


def handle(row: Mapping[str, Any]) -> PlacementGroup:
    """Ray's handle of the group in a row."""
    return PlacementGroup(ray.PlacementGroupID(bytes.fromhex(row["placement_group_id"])))


def _row(name: str) -> Mapping[str, Any] | None:
    row: Mapping[str, Any] | None = ray_state.state.get_placement_group_by_name(name, NAMESPACE)
    return row if row and row["state"] != "REMOVED" else None
