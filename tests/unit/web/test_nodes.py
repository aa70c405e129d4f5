"""The lines of a gang on its page."""

from dataclasses import replace

from ci_bot.report.markdown import Ink
from ci_bot.web.nodes import lines, names, summary
from launcher.experiment import NodeState
from launcher.state import Cause, State
from tests.unit.report.views import experiment, gang, of_gang


def test_few_nodes_stand_by_rank_and_of_many_the_failed_come_first() -> None:
    few = of_gang(State.ERROR, Cause.NODE_LOST, gang(state=NodeState.LOST), detail={"node": "host-c"})
    assert [line.rank for line in lines(few, Ink())] == [0, 1, 2, 3]
    nodes = gang(64, 16, state=NodeState.LOST)
    nodes = (*nodes[:63], replace(nodes[63], state=NodeState.ENDED, exit_code=1))
    many = of_gang(State.FAILED, Cause.COMMAND_EXITED, nodes, detail={"rank": 63})
    assert [line.rank for line in lines(many, Ink())][:4] == [63, 2, 0, 1]
    assert [line.blamed for line in lines(many, Ink())] == [True] + [False] * 63


def test_a_bad_end_and_a_lost_node_look_unlike_a_good_end() -> None:
    ended = [replace(node, state=NodeState.ENDED, exit_code=0) for node in gang()]
    nodes = (
        ended[0],
        replace(ended[1], exit_code=1),
        replace(ended[2], exit_code=None, signal="SIGKILL"),
        replace(ended[3], state=NodeState.LOST),
    )
    assert [line.tone for line in lines(of_gang(State.RUNNING, None, nodes), Ink())] == ["good", "bad", "bad", "odd"]


def test_the_summary_counts_states() -> None:
    running = of_gang(State.RUNNING, None, gang(state=NodeState.LOST))
    assert summary(running, Ink()) == "4 nodes: 3 stopped, 1 lost; isolation: bubblewrap"


def test_nodes_have_names_before_any_is_held_and_a_single_one_needs_none() -> None:
    assert names(of_gang(State.PENDING, None, gang()).specification) == [
        "worker 0",
        "worker 1",
        "worker 2",
        "parameter-server 0",
    ]
    assert names(experiment(State.PENDING).specification) == []
