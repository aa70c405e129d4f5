"""The journal and the exit record, written and read as JSON."""

from __future__ import annotations

import contextlib
import json
import os

from . import durable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def write_ended(directory: str, ended: dict[str, Any]) -> None:
    """Write the exit record, then the journal's last line, which is for people."""
    durable.write_exit(directory, json.dumps(ended).encode())
    line = json.dumps({"event": "ended", **ended}, separators=(",", ":")).encode() + b"\n"
    with contextlib.suppress(OSError):  # the exit record is the truth
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
