"""What a node's disk says of a command that was ended: by its fenced agent, or by who put the whole node down."""

from launcher import node
from tests.integration.node.conftest import Runner, command_of, order_of, until

KEY = "exp-1-a1-n0"


def begun(runner: Runner) -> None:
    runner.node.prepare(KEY, order_of("none"))
    runner.node.start(KEY, command_of("echo ready; sleep 600", "none"))


def test_what_a_fenced_agent_ends_was_not_put_down(runner: Runner) -> None:
    begun(runner)
    runner.node.stop_all(grace_s=0)
    ended = until(runner.node, KEY, "ended").exit
    assert ended is not None
    assert (ended.detail["stopped"], ended.detail["put_down"]) == (True, False)


def test_what_is_ended_with_its_node_was_put_down_and_the_next_agent_reads_so(runner: Runner) -> None:
    begun(runner)
    runner.node.close()
    node.leave(runner.root, grace_s=1)
    ended = runner.node.status([KEY])[KEY].exit
    assert ended is not None
    assert (ended.detail["stopped"], ended.detail["put_down"]) == (True, True)
