"""Check runs with what is kept of experiments: whose log, and what the machines are."""

from pathlib import Path

import pytest

from ci_bot.worker.render import Renderer, loses_log, machine_text
from launcher.experiment import NodeState
from launcher.keep import Keep
from launcher.machines import GIB, Machine, Machines
from launcher.state import Cause, State
from tests.unit.report.views import BEGAN_AT, experiment, gang, of_gang

TABLE = Machines({"P4000": Machine("P4000", gpus=1, cpus=8, memory_bytes=30 * GIB), "C5": Machine("C5", cpus=4)})


def renderer(root: Path) -> Renderer:
    return Renderer(Keep(root), "https://descent.example.org", 1 << 20, lambda: TABLE)


def write_log(root: Path, rank: int, text: bytes) -> None:
    log = Keep(root).log(42, 1, rank, 1 << 20)
    log.append(text)
    log.close()


def test_a_single_group_s_machine_is_told_alone_and_of_several_each() -> None:
    alone = machine_text(TABLE, experiment(State.RUNNING))
    assert alone == "P4000 (8 CPU, 1 GPU, 30 GiB of memory)"
    both = machine_text(TABLE, of_gang(State.RUNNING, None, gang()))
    assert both == f"worker: {alone}; parameter-server: C5 (4 CPU)"


@pytest.mark.parametrize(("printed", "whose"), [(b"Killed\n", "worker 2 on host-c"), (b"", "worker 0 on host-a")])
def test_the_tail_is_the_first_cause_s_log_unless_that_is_empty(tmp_path: Path, printed: bytes, whose: str) -> None:
    write_log(tmp_path, 0, b"epoch 1\n")
    write_log(tmp_path, 2, printed)
    detail = {"rank": 2, "exit_code": 1, "who": "worker 2 on host-c"}
    ended = of_gang(State.FAILED, Cause.COMMAND_EXITED, gang(), detail=detail, ended_at=BEGAN_AT + 9)
    text = renderer(tmp_path)(ended, ()).text
    assert f"### Last lines of {whose}\n" in text
    assert (printed or b"epoch 1\n").decode() in text


def test_a_node_that_was_not_lost_has_its_whole_log() -> None:
    ended = of_gang(State.ERROR, Cause.NODE_LOST, gang(state=NodeState.LOST))
    assert not loses_log(ended, 0)
    assert loses_log(ended, 2)
    assert loses_log(of_gang(State.ERROR, Cause.HEAD_LOST, gang()), 0)
    assert loses_log(experiment(State.ERROR, Cause.NODE_LOST), 0)
