"""The nodes of a gang in a check run: whose log is shown, and which of many have a line."""

from dataclasses import replace
from typing import Any

import pytest

from ci_bot.records import Held
from ci_bot.report.check_run import LIMIT_BYTES, experiment_check_run
from ci_bot.report.markdown import Ink
from ci_bot.report.nodes import MOST_NODES, nodes_table, told_by
from launcher.experiment import NodeState
from launcher.state import Cause, State
from tests.unit.report.views import URL, experiment, gang, gang_failed, gang_lost, of_gang, stopped


@pytest.mark.parametrize(
    ("cause", "detail", "rank"),
    [
        (Cause.COMMAND_EXITED, {"rank": 3}, 3),
        (Cause.COMMAND_EXITED, {"rank": 4}, 0),
        (Cause.COMMAND_EXITED, {"rank": "3"}, 0),
        (Cause.NODE_LOST, {"node": "host-c"}, 2),
        (Cause.NODE_LOST, {"node": "host-z"}, 0),
        (Cause.SUCCEEDED, {"rank": 3}, 0),
        (Cause.WISHED, {"why": "cancelled"}, 0),
        (None, {"rank": 3}, 0),
    ],
)
def test_the_log_of_the_node_that_ended_first_tells_most_else_the_first_node_s(
    cause: Cause | None, detail: dict[str, Any], rank: int
) -> None:
    assert told_by(of_gang(State.NETWORK_TEARDOWN, cause, gang(), detail=detail)) == rank


def test_of_the_nodes_on_a_lost_host_the_lost_one_is_meant() -> None:
    first, second, *others = gang()
    nodes = (first, replace(second, host="host-a", state=NodeState.LOST), *others)
    lost = of_gang(State.ERROR, Cause.NODE_LOST, nodes, detail={"node": "host-a"})
    assert told_by(lost) == 1


def test_a_gang_that_is_not_held_any_more_still_knows_whose_log_it_was() -> None:
    waits = of_gang(State.PENDING, Cause.COMMAND_EXITED, gang(), detail={"rank": 2})
    assert told_by(replace(waits, held=Held(before=("host-a",)))) == 2


def test_a_single_node_has_no_table() -> None:
    assert nodes_table(experiment(State.RUNNING), URL, Ink()) == ""
    assert "### Nodes" not in experiment_check_run(stopped()).summary


def test_of_many_nodes_the_first_and_the_failed_have_a_line() -> None:
    lines = nodes_table(gang_failed().experiment, URL, Ink()).splitlines()
    assert sum(line.startswith("| [") for line in lines) == MOST_NODES + 1
    assert any(line.startswith("| [worker 40]") and line.endswith("| SIGABRT |") for line in lines)
    assert lines[-1] == "47 more nodes on the dashboard."


def test_the_first_cause_has_a_line_though_all_have_failed() -> None:
    nodes = tuple(replace(node, state=NodeState.ENDED, exit_code=1) for node in gang(64, 16))
    ended = of_gang(State.FAILED, Cause.COMMAND_EXITED, nodes, detail={"rank": 63, "exit_code": 1})
    table = nodes_table(ended, URL, Ink())
    assert "| [parameter-server 15](" in table
    assert table.count("\n| [") == 2 * MOST_NODES


def test_names_of_hosts_and_machines_can_do_nothing() -> None:
    nasty = "a|b`](https://evil.example) @octo"
    nodes = tuple(replace(node, host=nasty, machine_type=nasty, signal=nasty) for node in gang())
    table = nodes_table(of_gang(State.RUNNING, None, nodes), URL, Ink())
    assert all(line.count(" | ") == 6 for line in table.splitlines() if line.startswith("| ["))
    assert "](https://evil" not in table
    assert "@octo" not in table


def test_a_gang_of_64_with_long_names_stays_within_github_s_limit() -> None:
    nodes = tuple(replace(node, host="h" * 250, machine_type="m" * 250, state=NodeState.LOST) for node in gang(64, 16))
    view = replace(gang_failed(), experiment=of_gang(State.FAILED, Cause.COMMAND_EXITED, nodes))
    run = experiment_check_run(view)
    assert len(run.summary.encode()) <= LIMIT_BYTES
    assert "### Timeline" in run.summary


def test_the_tail_says_whose_log_it_is_and_leads_there() -> None:
    run = experiment_check_run(gang_failed())
    assert "### Last lines of worker 2 on host-c" in run.text
    assert f"[Log of worker 2]({URL}/log?node=2)" in run.summary
    assert "### Last lines of the log" in experiment_check_run(stopped()).text


def test_the_sentence_of_a_lost_node_is_in_the_headline() -> None:
    summary = experiment_check_run(gang_lost()).summary
    assert "Node host-c was lost: it left the cluster; 3 other nodes were stopped." in summary
