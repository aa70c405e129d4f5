"""The matrix of faults, and the configuration files of every row; needs no hosts."""

import pytest

from ci_bot.config import Severity, parse
from launcher.experiment import HeldNode
from launcher.state import TERMINAL, VERDICTS, State
from tests.cluster import cells, topologies
from tests.cluster.cells import Fault
from tests.cluster.topologies import ROWS, SAMPLES
from tests.cluster.victims import names


def test_a_seed_draws_the_same_cells_again_and_another_draws_others() -> None:
    names = list(ROWS)
    assert cells.drawn(names, 7, 12) == cells.drawn(names, 7, 12)
    assert cells.drawn(names, 7, 12) != cells.drawn(names, 8, 12)


@pytest.mark.parametrize("seed", range(20))
def test_a_sample_has_every_fault_once_before_any_twice(seed: int) -> None:
    assert {cell.fault for cell in cells.drawn(list(ROWS), seed, len(Fault))} == set(Fault)


def test_the_whole_matrix_is_drawn_when_as_much_is_asked_for() -> None:
    every = cells.every(["single"])
    assert sorted(cells.drawn(["single"], 1, 1000), key=lambda cell: cell.words) == sorted(
        every, key=lambda cell: cell.words
    )
    assert not {cell.fault for cell in every} & cells.MPI_ONLY


@pytest.mark.parametrize("fault", Fault)
@pytest.mark.parametrize("state", State)
def test_every_expected_end_is_one_that_its_cause_leads_to(fault: Fault, state: State) -> None:
    expected = cells.expected(fault, state)
    assert expected.ends <= TERMINAL
    assert {VERDICTS[cause].end for cause in expected.final} == expected.ends


def test_the_table_says_what_was_drawn_and_where_it_was_struck() -> None:
    cell = cells.Cell(Fault.AGENT, "single", State.PROVISIONED)
    lines = cells.table([(cell, State.RUNNING, "ray::NodeAgent 7 of host-b")])
    assert [line.split() for line in lines] == [
        ["topology", "fault", "drawn", "struck", "in", "what"],
        ["single", "agent", "PROVISIONED", "RUNNING", "ray::NodeAgent", "7", "of", "host-b"],
    ]
    assert lines[0].index("struck in") == lines[1].index("RUNNING")


def test_an_end_names_the_node_that_was_struck_and_no_other_on_its_host() -> None:
    one, other = (
        HeldNode(f"exp-1-a1-n{rank}", "id", "host-b", "10.78.0.2", role="worker", index=rank) for rank in (0, 1)
    )
    alone = HeldNode("exp-1-a1-n0", "id", "host-b", "10.78.0.2")
    detail = {"node": "host-b", "who": "worker 1 on host-b", "rank": 1, "exit_code": 137}
    assert names(detail, other)
    assert not names(detail, one)
    assert not names(detail, alone)
    assert names({"node": "host-b", "signal": "SIGKILL"}, alone)
    assert not names({"node": "host-c"}, alone)
    assert not names({**detail, "node": "host-c"}, other)


@pytest.mark.parametrize(
    "text",
    [row.file("token", 1.0, timeout=3) for row in ROWS.values()]
    + [row.waiting("token") for row in ROWS.values()]
    + [topologies.written(training.keys) for training in topologies.trainings()],
)
def test_every_row_is_a_configuration_without_errors(text: str) -> None:
    found = parse(text.encode(), path="config.yaml", repository_name="r", read_params=None)
    assert [problem for problem in found.problems if problem.severity is Severity.ERROR] == []
    assert len(found.experiments) == 1


def test_every_training_has_its_program() -> None:
    assert all((SAMPLES / name).exists() for training in topologies.trainings() for name in training.files)
