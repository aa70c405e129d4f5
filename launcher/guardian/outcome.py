"""How a command ended: raw facts to the record that says so. Pure."""

from __future__ import annotations

import os
import signal
from typing import Any, NamedTuple

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
_HINTS = {126: " (the command can't be executed)", 127: " (command not found)"}
_NEVER_STARTED = "preparation failed"


class Breach(NamedTuple):
    """The first thing that made the guardian end the tree itself, in the words of `launcher.state.Cause`."""

    cause: str
    detail: dict[str, Any]


class Facts(NamedTuple):
    """What is known once nothing of the attempt lives; `status` is waitpid's, None when nobody saw it.

    `error` is set when the command never ran; `memory_limit_bytes` when the kernel enforced one.
    """

    status: int | None
    error: str | None = None
    breach: Breach | None = None
    stopped: bool = False
    put_down: bool = False
    killed: bool = False
    left: int = 0
    memory_kills: int = 0
    memory_limit_bytes: int = 0
    memory_peak_bytes: int = 0
    fork_refusals: int = 0
    pids_limit: int = 0


def amounts(used: int, limit: int) -> dict[str, Any]:
    """Two sizes in the unit of the second, for "15.9 of 16 GiB"."""
    unit = 0
    while limit >= 1024 ** (unit + 1) and unit < len(_UNITS) - 1:
        unit += 1
    return {
        "used": f"{used / 1024**unit:.1f}".removesuffix(".0"),
        "limit": f"{limit / 1024**unit:.1f}".removesuffix(".0") + f" {_UNITS[unit]}",
        "used_bytes": used,
        "limit_bytes": limit,
    }


def signal_name(number: int) -> str:
    """ "SIGKILL", or "signal 40" for those without a name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _hint(code: int, facts: Facts) -> str:
    if facts.fork_refusals:
        return f" (it reached its limit of {facts.pids_limit} processes)"
    # 128 + n is how shells tell that signal n ended their last command.
    if 128 < code <= 192:
        return f" (a process of it was ended by {signal_name(code - 128)})"
    return _HINTS.get(code, "")


def record(facts: Facts, at: float) -> dict[str, Any]:
    """The exit record of an attempt, ready for JSON.

    Args:
        facts: what happened.
        at: seconds since the epoch.

    Returns:
        `cause` (a value of `launcher.state.Cause`), `exit_code` or `signal`, `at`, and `detail`, which always holds
        `hint` (for the sentence), `left` (processes that outlived the command and were ended), `stopped` (asked to),
        `put_down` (asked to while no agent held the lease: by who ended the node on purpose, for agents hold it when
        they ask).
    """
    # Who killed a sandbox took its PID 1 too, and with it the only one that could tell the status.
    status = signal.SIGKILL if facts.status is None and facts.killed else facts.status
    code = None if status is None or not os.WIFEXITED(status) else os.WEXITSTATUS(status)
    name = None if status is None or code is not None else signal_name(os.WTERMSIG(status))
    cause, more = _cause(facts, code, name)
    hint = "" if code is None else _hint(code, facts)
    detail = {"hint": hint, "left": facts.left, "stopped": facts.stopped, "put_down": facts.put_down, **more}
    return {"cause": cause, "exit_code": code, "signal": name, "at": at, "detail": detail}


def _cause(facts: Facts, code: int | None, name: str | None) -> tuple[str, dict[str, Any]]:
    if facts.error is not None:
        return _NEVER_STARTED, {"why": facts.error}
    if facts.breach is not None:
        return facts.breach
    if facts.memory_kills and code != 0:
        return "out of memory", amounts(facts.memory_peak_bytes, facts.memory_limit_bytes)
    if code is not None:
        return ("succeeded" if code == 0 else "command exited"), {}
    if name is not None:
        return "command killed", {}
    return "guardian lost", {"why": "the sandbox was ended from outside, nobody saw how the command ended"}
