"""Experiments as a reader may meet them, for the tests of the reports."""

from dataclasses import replace
from typing import Any

from ci_bot.records import Experiment, Held, HeldNode, Transition, Wish
from ci_bot.report.check_run import View
from launcher.experiment import NodeGroup, Role, Specification, Topology
from launcher.state import Cause, Progress, State

BEGAN_AT = 1_772_366_580.0  # 2026-03-01 12:03:00 UTC
HEAD_SHA = "a1b2c3d4e5f60718293a4b5c6d7e8f9012345678"
URL = "https://descent.example.org/experiments/42"
NODE = HeldNode("exp-42-a1-n0", "ab" * 28, "host-a", "10.0.0.5", ("0", "1"), "bubblewrap")

_WALK = (
    (State.CREATED, 0.0),
    (State.PENDING, 0.25),
    (State.PROVISIONING, 1.0),
    (State.PROVISIONED, 3.5),
    (State.NETWORK_SETUP, 3.6),
    (State.RUNNING, 3.7),
    (State.NETWORK_TEARDOWN, 728.7),
)


def experiment(state: State, cause: Cause | None = None, **more: Any) -> Experiment:
    """An experiment of octo/digits in a state; `progress` overrides what the state and the cause say."""
    group = NodeGroup(role=Role.WORKER, command="python train.py", machine_type="P4000")
    known = Experiment(
        id=42,
        repository_id=1,
        installation_id=2,
        full_name="octo/digits",
        head_sha=HEAD_SHA,
        ref="refs/heads/main",
        name="digits",
        rerun=0,
        title="Train longer",
        specification=Specification(name="digits", topology=Topology.SINGLE, groups=(group,)),
        configuration_path=".descent/config.yaml",
        configuration_source="version: 1\n",
        progress=Progress(state=state, attempt=1, cause=cause),
        detail={},
        created_at=BEGAN_AT,
        state_at=BEGAN_AT + 4,
        queued_at=BEGAN_AT + 0.25,
        held=Held("exp-42-a1", "c1", (NODE,)),
    )
    return replace(known, **more)


def walk(last: State, *, attempt: int = 1, reason: str = "") -> tuple[Transition, ...]:
    """The transitions up to a state, with a reason at the last."""
    rows: list[Transition] = []
    for sequence, (state, after_s) in enumerate(_WALK):
        rows.append(Transition(sequence, 0 if after_s < 1 else attempt, state, BEGAN_AT + after_s))
        if state is last:
            break
    else:
        rows.append(Transition(len(rows), attempt, last, BEGAN_AT + 729.9))
    rows[-1] = replace(rows[-1], reason=reason)
    return tuple(rows)


def pending() -> View:
    """In the queue for the first time."""
    why = "Waits for 1 × P4000 (1 GPU, 8 CPUs): the closest node, host-a, has 0 GPUs, 8 CPUs free and lacks 1 GPU; "
    waits = experiment(
        State.PENDING,
        progress=Progress(State.PENDING),
        pending_reason=f"{why}3 experiments are ahead.",
        held=Held(),
        state_at=BEGAN_AT + 0.25,
    )
    return View(waits, walk(State.PENDING), details_url=URL, now=BEGAN_AT + 2000, machine="P4000: 1 GPU, 8 CPUs")


def pending_again() -> View:
    """Its node was lost, and the next attempt waits."""
    progress = Progress(State.PENDING, attempt=1, cause=Cause.NODE_LOST, infrastructure_retries_used=1)
    detail = {"node": "host-c", "why": "its agent did not answer for 120 s"}
    again = experiment(State.PENDING, progress=progress, detail=detail, held=Held(), state_at=BEGAN_AT + 729.9)
    because = "Node host-c was lost: its agent did not answer for 120 s."
    log = b"epoch 1\nepoch 2\n"
    history = walk(State.PENDING)[:1] + walk(State.NETWORK_TEARDOWN, reason=because)[1:]
    history += (Transition(7, 1, State.PENDING, BEGAN_AT + 729.9),)
    return View(again, history, log_tail=log, log_size=len(log), log_final=True, details_url=URL, now=BEGAN_AT + 740)


def running() -> View:
    """Its command runs; some of the log is there already."""
    return View(
        experiment(State.RUNNING),
        walk(State.RUNNING),
        log_tail=b"epoch 1\n",
        log_size=8,
        details_url=URL,
        now=BEGAN_AT + 60,
        machine="P4000: 1 GPU, 8 CPUs",
    )


def stopped() -> View:
    """A success with artifacts and things to know about it."""
    notes = (
        "The container nvidia/cuda:12 was not used: no container engine is enabled.",
        ".descent/config.yaml:4: `machinetype` was read as `machine-type`; write `machine-type: P4000`",
    )
    ended = experiment(State.STOPPED, Cause.SUCCEEDED, notes=notes, ended_at=BEGAN_AT + 729.9)
    log = b"".join(b"epoch %d\n" % n for n in range(1, 1301)) + b"  0%|   | 0/9\r 50%|## | 5/9\r100%|###| 9/9\ndone\n"
    return View(
        ended,
        walk(State.STOPPED),
        log_tail=log,
        log_size=len(log),
        log_final=True,
        artifacts=tuple((f"checkpoints/epoch-{n}.pt", 1_048_576 + n) for n in range(23)),
        details_url=URL,
        now=BEGAN_AT + 800,
        machine="P4000: 1 GPU, 8 CPUs",
    )


def failed() -> View:
    """A failure whose log tries everything."""
    detail = {"exit_code": 137, "hint": " (a process of it was ended by SIGKILL)", "left": 2}
    log = b"""Traceback (most recent call last):
```
</details><!-- descent:mark --> @octo/team fixes #1, see https://evil.example/x
\x1b[31mRuntimeError\x1b[0m: token ghp_0123456789abcdefghijABCDEFGHIJ012345
~~~ \xff \xe2\x80\xae reversed
"""
    ended = experiment(
        State.FAILED,
        Cause.COMMAND_EXITED,
        detail=detail,
        ended_at=BEGAN_AT + 729.9,
        title="Fix @octo's #7 | <b>bold</b>",
    )
    because = "The command exited with code 137."
    return View(
        ended,
        walk(State.FAILED, reason=because),
        log_tail=log,
        log_size=len(log),
        log_final=True,
        details_url=URL,
        now=BEGAN_AT + 800,
    )


def cancelled() -> View:
    """Superseded by a newer commit while it ran, from a fork that somebody approved."""
    ended = experiment(
        State.CANCELLED,
        Cause.WISHED,
        detail={"why": "superseded by b2c3d4e"},
        wish=Wish("octo-dev", "superseded by b2c3d4e", BEGAN_AT + 20),
        ended_at=BEGAN_AT + 729.9,
        trusted=False,
    )
    source = "version: 1\nenv:\n  WANDB_API_KEY: •••\n```\n"
    return View(
        ended,
        walk(State.CANCELLED, reason="Superseded by b2c3d4e."),
        details_url=URL,
        configuration=source,
        log_final=True,
    )


def lost() -> View:
    """Given up after three attempts; the end of the log never arrived."""
    progress = Progress(State.ERROR, attempt=3, cause=Cause.NODE_LOST, infrastructure_retries_used=2)
    detail = {"node": "host-c", "why": "it left the cluster"}
    ended = experiment(State.ERROR, progress=progress, detail=detail, ended_at=BEGAN_AT + 729.9)
    log = b"x" * 300 + b"\nepoch 7\n"
    return View(ended, walk(State.ERROR, attempt=3), log_tail=log[-200:], log_size=5_000_000, details_url=URL)


VIEWS = {
    "pending": pending,
    "pending-again": pending_again,
    "running": running,
    "stopped": stopped,
    "failed": failed,
    "cancelled": cancelled,
    "lost": lost,
}
