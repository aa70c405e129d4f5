"""What a terminal shows: aligned, true, and nothing that steers the terminal."""

from ci_bot.config.problems import Kind, Problem, Severity
from ci_bot.records import Transition
from ci_bot.report import terminal
from launcher.experiment import HeldNode, NodeState
from launcher.state import Cause, State
from tests.unit.report.views import BEGAN_AT, experiment, walk


def test_an_experiment_reads_from_heading_to_end() -> None:
    done = experiment(State.FAILED, Cause.COMMAND_EXITED, detail={"exit_code": 2}, title="Train \x1b[31mlonger\x07")
    lines = [
        terminal.heading(done),
        *(terminal.state_line(transition, BEGAN_AT) for transition in walk(State.PROVISIONING, reason="host-a")),
        terminal.state_line(Transition(9, 2, State.NETWORK_TEARDOWN, BEGAN_AT + 3605, "lost\nit"), BEGAN_AT),
        terminal.ending(done, 3.21),
        terminal.artifact_line("model.pt", 2048),
    ]
    assert lines == [
        "digits at a1b2c3d of octo/digits: Train longer",
        "    +0.0 s  CREATED",
        "    +0.2 s  PENDING",
        "    +1.0 s  PROVISIONING      host-a",
        " +3605.0 s  NETWORK_TEARDOWN  attempt 2, lost it",
        "FAILED after 3.2 s. The command exited with code 2"
        " (for many programs: wrong usage, or a file that is not there).",
        "  model.pt  2 KiB",
    ]


def test_log_lines_are_marked_and_harmless() -> None:
    text = "a\x1b[2J\n 1%\r 2%\n\nAuthorization: Bearer abcdefghijklmnopqrst\nhunter22\n"
    assert terminal.log_lines(text, ("hunter22",)) == [
        "  │ a",
        "  │  2%",
        "  │",
        "  │ Authorization: Bearer ***",
        "  │ ***",
    ]
    assert terminal.log_lines("") == []


def test_a_problem_reads_as_compilers_write_it() -> None:
    problem = Problem(
        path="config.yaml", line=3, column=5, severity=Severity.ERROR, kind=Kind.VALUE, message="got\x1b[0m `x`"
    )
    assert terminal.problem_line(problem) == "config.yaml:3:5: error: got `x`"


def test_a_transition_as_a_record_has_the_contract_s_keys() -> None:
    row = Transition(1, 1, State.RUNNING, BEGAN_AT + 0.1234, "x")
    assert terminal.transition_record("digits", row) == {
        "experiment": "digits",
        "attempt": 1,
        "state": "RUNNING",
        "at": "2026-03-01T12:03:00.123Z",
        "reason": "x",
    }


def test_the_nodes_of_a_gang_are_shown_with_how_they_stand_and_a_single_one_is_not() -> None:
    gang = [
        HeldNode("exp-1-a1-n0", "id", "host-a", "10.0.0.1", role="worker", state=NodeState.ENDED, exit_code=0),
        HeldNode(
            "exp-1-a1-n1",
            "id",
            "host\x1b[2J",
            "10.0.0.2",
            role="worker",
            index=1,
            signal="SIGKILL",
            state=NodeState.ENDED,
        ),
        HeldNode("exp-1-a1-n2", "id", "host-c", "10.0.0.3", role="parameter-server", state=NodeState.RUNNING),
    ]
    assert [line.strip() for line in terminal.node_lines(gang)] == [
        "worker 0            rank 0 on host-a, ended with exit code 0",
        "worker 1            rank 1 on host, ended by SIGKILL",
        "parameter-server 0  rank 2 on host-c, running",
    ]
    assert terminal.node_lines([HeldNode("exp-1-a1-n0", "id", "host-a", "10.0.0.1")]) == []
