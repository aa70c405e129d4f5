"""Raw facts of an end become a record that says so."""

import json
import signal
from typing import Any

import pytest

from launcher.guardian.outcome import Breach, Facts, amounts, record
from launcher.state import VERDICTS, Cause


def exited(code: int) -> int:
    return code << 8


@pytest.mark.parametrize(
    ("facts", "cause", "exit_code", "name", "hint"),
    [
        (Facts(exited(0)), Cause.SUCCEEDED, 0, None, ""),
        (Facts(exited(3)), Cause.COMMAND_EXITED, 3, None, ""),
        (Facts(exited(127)), Cause.COMMAND_EXITED, 127, None, " (command not found)"),
        (Facts(exited(126)), Cause.COMMAND_EXITED, 126, None, " (the command can't be executed)"),
        (Facts(exited(137)), Cause.COMMAND_EXITED, 137, None, " (a process of it was ended by SIGKILL)"),
        (Facts(exited(255)), Cause.COMMAND_EXITED, 255, None, ""),
        (Facts(signal.SIGSEGV), Cause.COMMAND_KILLED, None, "SIGSEGV", ""),
        (Facts(40), Cause.COMMAND_KILLED, None, "signal 40", ""),
        (Facts(None), Cause.GUARDIAN_LOST, None, None, ""),
        (Facts(None, killed=True, stopped=True), Cause.COMMAND_KILLED, None, "SIGKILL", ""),
        (Facts(None, error="bwrap: no"), Cause.PREPARATION_FAILED, None, None, ""),
        (Facts(None, killed=True, breach=Breach("disk full", {})), Cause.DISK_FULL, None, "SIGKILL", ""),
        (Facts(9, memory_kills=1, memory_limit_bytes=1 << 30), Cause.OUT_OF_MEMORY, None, "SIGKILL", ""),
        (Facts(exited(0), memory_kills=1, memory_limit_bytes=1 << 30), Cause.SUCCEEDED, 0, None, ""),
        (
            Facts(exited(1), fork_refusals=2, pids_limit=9),
            Cause.COMMAND_EXITED,
            1,
            None,
            " (it reached its limit of 9 processes)",
        ),
    ],
)
def test_every_end_has_its_cause(
    facts: Facts, cause: Cause, exit_code: int | None, name: str | None, hint: str
) -> None:
    ended = record(facts, 1.5)
    assert (Cause(ended["cause"]), ended["exit_code"], ended["signal"], ended["at"]) == (cause, exit_code, name, 1.5)
    assert ended["detail"]["hint"] == hint
    assert json.loads(json.dumps(ended)) == ended


@pytest.mark.parametrize(
    "facts",
    [
        Facts(exited(3)),
        Facts(9),
        Facts(9, memory_kills=1, memory_limit_bytes=16 << 30, memory_peak_bytes=15 << 30),
        Facts(None, error="bwrap: no"),
        Facts(None, killed=True, breach=Breach("disk limit", amounts(11 << 30, 10 << 30))),
        Facts(None, killed=True, breach=Breach("node lost", {"why": "no agent held the lease for 15 s"})),
    ],
)
def test_the_record_fills_the_sentence_a_person_reads(facts: Facts) -> None:
    ended = record(facts, 0.0)
    fields: dict[str, Any] = {"node": "host-a", **ended, **ended["detail"]}
    assert "{" not in VERDICTS[Cause(ended["cause"])].sentence.format(**fields)


@pytest.mark.parametrize(
    ("used", "limit", "words"),
    [
        (15_900_000_000, 16 << 30, ("14.8", "16 GiB")),
        (100, 512, ("100", "512 B")),
        (int(1.5 * (1 << 20)), 1 << 20, ("1.5", "1 MiB")),
        (3 << 50, 2 << 50, ("3072", "2048 TiB")),
    ],
)
def test_amounts_share_the_limits_unit(used: int, limit: int, words: tuple[str, str]) -> None:
    found = amounts(used, limit)
    assert (found["used"], found["limit"]) == words
