"""Experiments as a reader may meet them, for the tests of the reports."""

from dataclasses import replace
from typing import Any

from ci_bot.records import Experiment, Held, HeldNode, Transition, Wish
from ci_bot.report.check_run import View
from launcher.experiment import NodeGroup, NodeState, Role, Specification
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
        specification=Specification(name="digits", topology="single", groups=(group,)),
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


def gang(count: int = 4, servers: int = 1, **first: Any) -> tuple[HeldNode, ...]:
    """Workers and parameter servers that were stopped; `first` is what became of worker 2."""
    nodes = []
    for rank in range(count):
        server = rank >= count - servers
        node = HeldNode(
            f"exp-42-a1-n{rank}",
            f"{rank:056x}",
            f"host-{'abcdefghijklmnopqrstuvwxyz'[rank % 26]}{rank // 26 or ''}",
            f"10.0.0.{rank + 1}",
            () if server else ("0", "1"),
            "bubblewrap",
            role=Role.PARAMETER_SERVER if server else Role.WORKER,
            index=rank - (count - servers) if server else rank,
            machine_type="C5" if server else "P4000",
            state=NodeState.STOPPED,
        )
        nodes.append(replace(node, **first) if rank == 2 else node)
    return tuple(nodes)


def of_gang(state: State, cause: Cause | None, nodes: tuple[HeldNode, ...], **more: Any) -> Experiment:
    """A multi-grpc experiment on these nodes."""
    servers = sum(node.role == Role.PARAMETER_SERVER for node in nodes)
    groups = (
        NodeGroup(role=Role.WORKER, count=len(nodes) - servers, command="python train.py", machine_type="P4000"),
        NodeGroup(role=Role.PARAMETER_SERVER, count=servers, command="python serve.py", machine_type="C5"),
    )
    specification = Specification(name="digits", topology="multi-grpc", groups=groups)
    held = Held("exp-42-a1", "c1", nodes)
    return experiment(state, cause, specification=specification, held=held, **more)


MACHINES = "worker: P4000 (8 CPU, 1 GPU); parameter-server: C5 (4 CPU)"


def gang_running() -> View:
    """Four nodes, of which one has ended well already."""
    nodes = tuple(replace(node, state=NodeState.RUNNING) for node in gang())
    nodes = (*nodes[:1], replace(nodes[1], state=NodeState.ENDED, exit_code=0), *nodes[2:])
    return View(of_gang(State.RUNNING, None, nodes), walk(State.RUNNING), details_url=URL, machine=MACHINES)


def gang_failed() -> View:
    """Worker 2 of 64 nodes was the first to end."""
    nodes = gang(64, 16, state=NodeState.ENDED, exit_code=137)
    nodes = (*nodes[:40], replace(nodes[40], state=NodeState.ENDED, signal="SIGABRT"), *nodes[41:])
    detail = {"exit_code": 137, "who": "worker 2 on host-c", "rank": 2, "at": BEGAN_AT + 4, "others": 62}
    ended = of_gang(State.FAILED, Cause.COMMAND_EXITED, nodes, detail=detail, ended_at=BEGAN_AT + 729.9)
    log = b"epoch 1\nKilled\n"
    return View(
        ended,
        walk(State.FAILED),
        log_tail=log,
        log_size=len(log),
        log_rank=2,
        log_final=True,
        artifacts=(("worker-0/model.pt", 1_048_576), ("worker-2/model.pt", 5)),
        details_url=URL,
        machine=MACHINES,
    )


def gang_lost() -> View:
    """The host of worker 2 went away, and no attempt is left."""
    nodes = gang(state=NodeState.LOST)
    detail = {"node": "host-c", "why": "it left the cluster", "others": 3}
    ended = of_gang(State.ERROR, Cause.NODE_LOST, nodes, detail=detail, ended_at=BEGAN_AT + 729.9)
    return View(ended, walk(State.ERROR), log_tail=b"epoch 7\n", log_size=8, log_rank=2, details_url=URL)


VIEWS = {
    "pending": pending,
    "pending-again": pending_again,
    "running": running,
    "stopped": stopped,
    "failed": failed,
    "cancelled": cancelled,
    "lost": lost,
    "gang-running": gang_running,
    "gang-failed": gang_failed,
    "gang-lost": gang_lost,
}
