"""The journal and the exit record, written and read as JSON."""

from __future__ import annotations

import contextlib
import json
import os
from typing import Any

from . import durable


def write_started(directory: str, facts: dict[str, Any]) -> None:
    """Write the journal's first line."""
    _append(directory, {"event": "started", **facts})


def write_ended(directory: str, ended: dict[str, Any]) -> None:
    """Write the exit record, then the journal's last line, which is for people."""
    durable.write_exit(directory, json.dumps(ended).encode())
    with contextlib.suppress(OSError):  # the exit record is the truth
        _append(directory, {"event": "ended", **ended})


def _append(directory: str, fact: dict[str, Any]) -> None:
    line = json.dumps(fact, separators=(",", ":")).encode() + b"\n"
    durable.append(os.path.join(directory, durable.JOURNAL), line)


def read_journal(directory: str) -> list[dict[str, Any]]:
    """The facts, oldest first; a torn last line is none."""
    try:
        with open(os.path.join(directory, durable.JOURNAL), "rb") as file:
            lines = file.read().split(b"\n")[:-1]
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in lines]


def read_exit(directory: str) -> dict[str, Any] | None:
    """The exit record, None while there is none."""
    try:
        with open(os.path.join(directory, durable.EXIT), "rb") as file:
            found: dict[str, Any] = json.loads(file.read())
    except FileNotFoundError:
        return None
    return found
