"""What a row of the database says of an experiment. Pure."""

import json
from dataclasses import asdict
from typing import Any

from sqlalchemy import RowMapping

from ci_bot.records import Experiment, Held, HeldNode, Wish
from launcher.experiment import NodeState, Specification
from launcher.state import Cause, Progress, State

PROGRESS = tuple(asdict(Progress()))
"""The columns that are its progress."""


def progress_of(row: RowMapping) -> Progress:
    """Where a row's experiment stands."""
    progress: dict[str, Any] = {name: row[name] for name in PROGRESS}
    progress["state"] = State(progress["state"])
    progress["cause"] = None if progress["cause"] is None else Cause(progress["cause"])
    progress["intended"] = None if progress["intended"] is None else State(progress["intended"])
    return Progress(**progress)


def experiment_of(row: RowMapping) -> Experiment:
    """The experiment of a whole row."""
    columns = {name: value for name, value in row.items() if name != "reported_version" and name not in PROGRESS}
    wished = {name: columns.pop(f"wish_{name}") for name in ("by", "why", "at")}
    columns |= {
        "specification": Specification.model_validate_json(columns["specification"]),
        "progress": progress_of(row),
        "detail": json.loads(columns["detail"]),
        "wish": None if wished["at"] is None else Wish(**wished),
        "held": _held(json.loads(columns["held"])),
        "notes": tuple(json.loads(columns["notes"])),
    }
    return Experiment(**columns)


def _held(value: dict[str, Any]) -> Held:
    nodes = tuple(_held_node(node) for node in value.get("nodes", ()))
    hosts = {name: tuple(value.get(name, ())) for name in ("before", "lost")}
    return Held(**value | {"nodes": nodes, **hosts})


def _held_node(value: dict[str, Any]) -> HeldNode:
    state = NodeState(value.get("state", NodeState.HELD))
    return HeldNode(**value | {"gpu_ids": tuple(value["gpu_ids"]), "state": state})
