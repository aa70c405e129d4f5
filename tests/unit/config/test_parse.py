"""Which version a file is written in, and the order of what is said."""

import pytest

from ci_bot.config import Kind, Severity
from tests.unit.config.example import FILE, ONE_NODE, STEP, kinds, problem, read


@pytest.mark.parametrize(
    "text", ["command: python train.py\nmachineType: K80\n", "workerCommand: x\n", "clusterId: c\n"]
)
def test_command_line_options_are_told_where_they_belong(text: str) -> None:
    found = problem(text)
    assert (found.line, found.severity, found.kind) == (1, Severity.ERROR, Kind.OPTIONS_FILE)
    assert "paramsFile" in found.message


@pytest.mark.parametrize("text", ["name: x\n", "project: x\n", "a: 1\n", "version: 1\ncommand: x\n"])
def test_a_file_of_something_else_is_not_taken_for_options(text: str) -> None:
    assert Kind.OPTIONS_FILE not in {each.kind for each in read(text).problems}
    assert read(text).errors


@pytest.mark.parametrize(
    ("text", "written", "right"), [(ONE_NODE, "version: 1", "version: 2"), (STEP, "version: 2", "version: 1")]
)
def test_the_shape_of_a_file_counts_before_its_version(text: str, written: str, right: str) -> None:
    found = read(text.replace(written, right))
    assert found.ok
    assert kinds(found) == [(1, Severity.WARNING, Kind.VERSION)]


def test_with_both_shapes_the_version_decides() -> None:
    both = ONE_NODE + STEP.partition("\n")[2]
    assert [each.name for each in read(both).experiments] == ["repo"]
    assert [each.name for each in read(both.replace("version: 1", "version: 2")).experiments] == ["mnist"]


def test_problems_come_in_the_files_order_and_the_files_own_come_first() -> None:
    text = STEP.partition("        params:")[0] + "        paramsFile: a.yaml\nretries: x\n"
    found = read(text, {"a.yaml": b"container: x\nports: y\n"})
    assert [(each.path, each.line) for each in found.problems] == [(FILE, 8), ("a.yaml", 1), ("a.yaml", 2)]


def test_errors_and_warnings_are_told_apart() -> None:
    found = read(ONE_NODE + "retries: x\nvpc: true\n")
    assert [each.line for each in found.errors] == [5]
    assert [each.line for each in found.warnings] == [6]


def test_an_alias_that_is_read_twice_brings_its_problem_once() -> None:
    text = "version: 1\ntype: multi-grpc\nworker: &w {command: a, count: 0}\nparameter-server: *w\n"
    assert [each.message.partition(" ")[0] for each in read(text).problems] == [
        "`worker.count`",
        "`parameter-server.count`",
    ]


@pytest.mark.parametrize("text", ["version: 7\n", "version: next\njobs: {a: 1}\n"])
def test_of_an_unknown_version_in_no_known_shape_only_the_version_is_said(text: str) -> None:
    assert [each.kind for each in read(text).problems] == [Kind.VERSION]


def test_an_unknown_version_in_a_known_shape_is_read_by_the_shape() -> None:
    found = read(ONE_NODE.replace("version: 1", "version: 7") + "retries: many\n").problems
    assert [each.kind for each in found] == [Kind.VERSION, Kind.VALUE]
