"""Every cause has a sentence and a title, whatever is known of it."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ci_bot.records import Wish
from ci_bot.report.sentence import hint, sentence, short_cause, signal_name, title
from launcher.state import TERMINAL, VERDICTS, Cause, Progress, State
from tests.unit.report.views import BEGAN_AT, experiment

KEYS = [
    "exit_code", "signal", "hint", "used", "limit", "limit_s", "limit_bytes", "waited_s", "node", "state", "why",
    "who", "at", "others",
]  # fmt: skip


@pytest.mark.parametrize("cause", Cause)
@pytest.mark.parametrize("detail", [{}, dict.fromkeys(KEYS), dict.fromkeys(KEYS, ""), dict.fromkeys(KEYS, "{x} {0}")])
def test_missing_details_never_raise(cause: Cause, detail: dict[str, Any]) -> None:
    assert sentence(cause, detail)
    assert "\n" not in sentence(cause, detail)
    assert short_cause(cause, detail)


@given(st.sampled_from(Cause), st.dictionaries(st.sampled_from(KEYS), st.one_of(st.text(), st.integers(), st.floats())))
def test_any_details_never_raise(cause: Cause, detail: dict[str, Any]) -> None:
    assert len(sentence(cause, detail)) < 2500
    short_cause(cause, detail)


@pytest.mark.parametrize(
    ("cause", "detail", "words"),
    [
        (Cause.SUCCEEDED, {}, "The command ended with exit code 0."),
        (Cause.COMMAND_EXITED, {"exit_code": 1}, "The command exited with code 1."),
        (Cause.COMMAND_EXITED, {"exit_code": 127}, "The command exited with code 127 (command not found)."),
        (
            Cause.COMMAND_EXITED,
            {"exit_code": 139},
            "The command exited with code 139 (SIGSEGV: an invalid memory access in native code).",
        ),
        (
            Cause.COMMAND_EXITED,
            {"exit_code": 1, "hint": " (it reached its limit of 512 processes)"},
            "The command exited with code 1 (it reached its limit of 512 processes).",
        ),
        (
            Cause.COMMAND_KILLED,
            {"signal": 7, "exit_code": None},
            "The command was killed by SIGBUS (often /dev/shm or a disk is full).",
        ),
        (Cause.COMMAND_KILLED, {"signal": "signal 40"}, "The command was killed by signal 40."),
        (Cause.COMMAND_KILLED, {"signal": 40}, "The command was killed by signal 40."),
        (
            Cause.OUT_OF_MEMORY,
            {"used": "15.9", "limit": "16 GiB", "used_bytes": 17_072_000_000, "limit_bytes": 2**34},
            "Out of memory: 15.9 of 16 GiB.",
        ),
        (Cause.OUT_OF_MEMORY, {"used_bytes": 2**34, "limit_bytes": 2**33}, "Out of memory: 16 GiB of 8 GiB."),
        (Cause.TIME_LIMIT, {"limit_s": 3840}, "Stopped at its time limit of 1 h 04 min."),
        (Cause.WISHED, {"why": "superseded by a1b2c3d."}, "Superseded by a1b2c3d."),
        (Cause.WISHED, {}, "No reason was recorded."),
        (Cause.DEADLINE, {"state": "NETWORK_SETUP", "limit_s": 60}, "Network setup took longer than 1 min 00 s."),
        (Cause.NODE_LOST, {"node": "host-c", "why": "no answer\nfor 5 s"}, "Node host-c was lost: no answer for 5 s."),
        (
            Cause.QUEUE_DEADLINE,
            {"waited_s": 90_000, "limit_s": 86_400},
            "It waited 1 d 01 h for machines; the limit is 1 d 00 h.",
        ),
        (
            Cause.COMMAND_EXITED,
            {"exit_code": 137, "hint": " (SIGKILL)", "who": "worker 2 on host-c", "at": BEGAN_AT + 4, "others": 3},
            "Worker 2 on host-c: the command exited with code 137 (SIGKILL: not by Descent; often the kernel, when the "
            "host is out of memory) at 12:03:04 UTC; 3 others were stopped.",
        ),
        (
            Cause.OUT_OF_MEMORY,
            {"used": "15.9", "limit": "16 GiB", "who": "master 0 on host-a", "at": float("nan"), "others": 1},
            "Master 0 on host-a: out of memory: 15.9 of 16 GiB; 1 other was stopped.",
        ),
        (
            Cause.COMMAND_KILLED,
            {"signal": "SIGTERM", "who": "worker 0 on host-a", "at": "soon", "others": -3},
            "Worker 0 on host-a: the command was killed by SIGTERM (something in the experiment or on the host asked "
            "it to end).",
        ),
        (
            Cause.SUCCEEDED,
            {"exit_code": 0, "who": "worker 0 on host-a", "at": BEGAN_AT, "others": 3},
            "The command ended with exit code 0.",
        ),
        (
            Cause.NODE_LOST,
            {"node": "host-c", "why": "it left the cluster", "others": 3},
            "Node host-c was lost: it left the cluster; 3 other nodes were stopped.",
        ),
        (
            Cause.DISK_FULL,
            {"node": "host-c", "who": "worker 2 on host-c", "at": BEGAN_AT, "others": 1},
            "Node host-c: the disk is full; 1 other node was stopped.",
        ),
        (
            Cause.DAEMON_LOST,
            {"node": "host-b", "who": "worker 0 on host-b", "why": "was killed by SIGKILL", "others": 2},
            "A daemon of mpirun was lost: worker 0 on host-b, it was killed by SIGKILL; 2 other nodes were stopped.",
        ),
    ],
)
def test_a_cause_reads_as_a_sentence(cause: Cause, detail: dict[str, Any], words: str) -> None:
    assert sentence(cause, detail) == words


def test_a_title_says_whose_command_it_was() -> None:
    detail = {"exit_code": 1, "who": "worker 2 on host-c"}
    assert short_cause(Cause.COMMAND_EXITED, detail) == "exit code 1 (worker 2 on host-c)"
    assert short_cause(Cause.NODE_LOST, {"node": "host-c", "who": "worker 2 on host-c"}) == "node host-c lost"


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (0, ""),
        (1, ""),
        (126, " (the file was found and could not be executed; is it executable?)"),
        (129, " (SIGHUP)"),
        (137, " (SIGKILL: not by Descent; often the kernel, when the host is out of memory)"),
        (143, " (SIGTERM: something in the experiment or on the host asked it to end)"),
        (168, ""),
        (255, ""),
        (-9, ""),
        (None, ""),
    ],
)
def test_an_exit_code_is_explained_where_it_has_a_meaning(code: int | None, words: str) -> None:
    assert hint(exit_code=code) == words


def test_signals_are_named() -> None:
    assert [signal_name(s) for s in (9, "15", "SIGINT", 99, "odd", "-1")] == [
        "SIGKILL",
        "SIGTERM",
        "SIGINT",
        "",
        "odd",
        "",
    ]


def _title(state: State, cause: Cause | None = None, ran_s: float | None = None, **more: Any) -> str:
    detail = {"exit_code": 1, "node": "host-c", "why": "superseded by a1b2c3d", "limit": "1 h"}
    return title(experiment(state, **{"detail": detail, "progress": Progress(state, 1, cause), **more}), ran_s)


def test_titles_carry_the_state_and_what_one_wants_to_know() -> None:
    assert _title(State.CREATED) == "Created"
    assert _title(State.PENDING) == "Pending"
    assert _title(State.PENDING, pending_reason="Waits for 1 GPU: none is here.") == "Pending – waits for 1 GPU"
    assert _title(State.PENDING, pending_reason="GPUs are out.") == "Pending – GPUs are out"
    assert _title(State.RUNNING) == "Running"
    assert _title(State.NETWORK_TEARDOWN, Cause.COMMAND_EXITED) == "Network teardown – exit code 1"
    assert _title(State.STOPPED, Cause.SUCCEEDED, 725) == "Stopped (success) after 12 min 05 s"
    assert _title(State.STOPPED) == "Stopped (success)"
    assert _title(State.FAILED, Cause.COMMAND_EXITED) == "Failed: exit code 1"
    assert _title(State.FAILED, Cause.TIME_LIMIT) == "Failed: time limit of 1 h"
    assert _title(State.CANCELLED, Cause.WISHED) == "Cancelled: superseded by a1b2c3d"
    assert _title(State.ERROR, Cause.NODE_LOST) == "Error (infrastructure): node host-c lost"


def test_titles_number_the_tries_that_a_budget_allows() -> None:
    lost = Progress(State.PENDING, 1, Cause.NODE_LOST, infrastructure_retries_used=1)
    assert _title(State.PENDING, progress=lost) == "Pending – attempt 2 of 3, node host-c lost"
    both = Progress(State.PENDING, 4, Cause.COMMAND_EXITED, None, 2, 2, 2, 1)
    assert _title(State.PENDING, progress=both) == "Pending – attempt 4 of 4, exit code 1"
    shut = Progress(State.PENDING, 1, Cause.SHUTDOWN)
    assert _title(State.PENDING, progress=shut) == "Pending – queued again, Descent was shut down"
    assert _title(State.RUNNING, progress=Progress(State.RUNNING, 2, infrastructure_retries_used=1)) == (
        "Running – attempt 2"
    )
    given_up = Progress(State.ERROR, 3, Cause.NODE_LOST, infrastructure_retries_used=2)
    assert _title(State.ERROR, progress=given_up) == "Error (infrastructure): node host-c lost, after 3 attempts"


def test_a_wish_shows_in_the_title_until_the_teardown() -> None:
    wish = Wish("octo-dev", "branch deleted", BEGAN_AT)
    assert _title(State.PROVISIONING, wish=wish) == "Provisioning – to be cancelled: branch deleted"
    assert _title(State.NETWORK_TEARDOWN, Cause.WISHED, wish=wish) == "Network teardown – superseded by a1b2c3d"


@pytest.mark.parametrize("how", ["by octo-dev", "from the command line"])
def test_a_title_says_only_once_that_somebody_cancels(how: str) -> None:
    wish = Wish("octo-dev", f"cancelled {how}", BEGAN_AT)
    assert _title(State.RUNNING, wish=wish) == f"Running – to be cancelled {how}"
    assert _title(State.CANCELLED, Cause.WISHED, detail={"why": wish.why}) == f"Cancelled {how}"


@pytest.mark.parametrize("state", State)
def test_every_state_has_a_title_with_its_word(state: State) -> None:
    for cause in [
        None,
        *(cause for cause, verdict in VERDICTS.items() if state not in TERMINAL or verdict.end is state),
    ]:
        assert _title(state, cause).startswith(state.words)
