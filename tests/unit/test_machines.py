"""What machine types mean, and what a machines.yaml may say."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.backend import Capacity, NodeCapacity
from launcher.machine_table import Problem, read
from launcher.machines import GIB, Machine, Machines, known_gpus


def with_gpus(count: float) -> Capacity:
    return Capacity((NodeCapacity("n", "h", "a", True, {"CPU": 2, "GPU": count}),), "c")


@pytest.mark.parametrize(
    ("name", "gpus"),
    [
        ("P4000", 1),
        ("K80", 1),
        ("V100", 1),
        ("P100", 1),
        ("GPU+", 1),
        ("M4000", 1),
        ("P5000", 1),
        ("A100-80Gx8", 8),
        ("P6000x2", 2),
        ("Free-P5000", 1),
        ("p2.xlarge", 1),
        ("p3.8xlarge", 4),
        ("C3", 0),
        ("Air", 0),
        ("ml.m5.large", 0),
        ("p2.xlarge ", 0),
    ],
)
def test_a_name_says_how_many_gpus_such_machines_had(name, gpus):
    assert known_gpus(name) == gpus


def test_without_a_table_every_name_is_one_cpu_and_its_gpus_where_the_cluster_ever_had_any():
    assert Machines().resolve("P4000") == Machine("P4000")
    assert Machines().seeing(with_gpus(4)).resolve("P4000") == Machine("P4000", gpus=1)
    assert Machines().seeing(with_gpus(4)).resolve("C3") == Machine("C3")
    assert Machines().seeing(with_gpus(0)).resolve("P4000") == Machine("P4000")
    assert Machines().seeing(with_gpus(4)).resolve(None) == Machine("default")


def test_without_a_table_the_reader_is_told_what_a_name_was_taken_for():
    assert Machines().note("C3") == "C3 was taken as one CPU on any node: there is no machines.yaml here."
    assert "one CPU and no GPU: this cluster has no GPU" in Machines().note("P4000")
    assert "one CPU and 1 GPU on any node" in Machines(gpus=True).note("P4000")
    assert "one CPU and 4 GPUs on any node" in Machines(gpus=True).note("p3.8xlarge")
    assert Machines().note(None) == ""


def test_with_a_table_a_name_is_what_it_says_and_an_unknown_one_is_undeclared():
    machines = Machines({"P4000": Machine("P4000", gpus=1, cpus=8)})
    assert machines.resolve("P4000") == Machine("P4000", gpus=1, cpus=8)
    assert machines.resolve("V100") == Machine("V100", declared=False)
    assert machines.resolve(None) == Machine("default")
    assert machines.note("P4000") == machines.note("V100") == ""
    assert machines.unknown("V100") == "machine type V100 is not in machines.yaml; it has P4000"


def test_the_table_s_default_is_for_groups_that_name_no_machine_type():
    table = {"default": Machine("default", cpus=2), "b": Machine("b"), "a": Machine("a")}
    assert Machines(table).resolve(None) == Machine("default", cpus=2)
    assert Machines(table).unknown("x").endswith("it has a, b")


TABLE = """
P4000: {gpus: 1, cpus: 8, memory: 30, disk: 100.5, labels: {accelerator: P4000, zone: "in(a, b)"}}
C3:
  cpus: 0.5
"p2.xlarge": {gpus: 1, cpus: 0}
"""


def test_a_table_is_read_with_its_units():
    assert read(TABLE) == {
        "P4000": Machine(
            "P4000",
            gpus=1,
            cpus=8,
            memory_bytes=30 * GIB,
            disk_bytes=int(100.5 * GIB),
            labels={"accelerator": "P4000", "zone": "in(a, b)"},
        ),
        "C3": Machine("C3", cpus=0.5),
        "p2.xlarge": Machine("p2.xlarge", gpus=1, cpus=0),
    }


@pytest.mark.parametrize(
    ("text", "line", "column", "message"),
    [
        ("", 1, 1, "the file must map names of machine types"),
        ("[a]", 1, 1, "the file must map names of machine types"),
        ("{}", 1, 1, "the file must map names of machine types"),
        ("a: {", 1, 5, "not YAML"),
        ("a: \x00", 1, 1, "not YAML"),
        ("a: 4", 1, 4, "a must be a mapping of gpus, cpus, memory, disk, labels, got '4'"),
        ("a: [gpus]", 1, 4, "got a list"),
        ("a: {gpu: 1}", 1, 5, "a has an unknown key 'gpu'; did you mean gpus?"),
        ("a: {shape: 1}", 1, 5, "a has an unknown key 'shape'; known are gpus, cpus"),
        ("a:\n  gpus: one", 2, 9, "a.gpus must be a whole number, got 'one'"),
        ("a:\n  gpus: '1'", 2, 9, "a.gpus must be a whole number, got '1'"),
        ("a:\n  gpus: 0.5", 2, 9, "a.gpus must be a whole number, got '0.5'"),
        ("a:\n  gpus: -1", 2, 9, "a.gpus must be at least 0, got '-1'"),
        ("a:\n  gpus:", 2, 8, "a.gpus must be a whole number, got nothing"),
        ("a:\n  cpus: .nan", 2, 9, "a.cpus must be a number, got '.nan'"),
        ("a:\n  cpus: 0x10", 2, 9, "a.cpus must be a number, got '0x10'"),
        ("a:\n  cpus: {b: 1}", 2, 9, "a.cpus must be a number, got a mapping"),
        ("a:\n  memory: 30GiB", 2, 11, "a.memory must be a number of GiB, without the unit, got '30GiB'"),
        ("a:\n  disk: 0", 2, 9, "a.disk must be more than 0, got '0'"),
        ("a: {cpus: 0}", 1, 4, "a has neither a CPU nor a GPU"),
        ("a: {labels: x}", 1, 13, "a.labels must be a mapping of Ray node labels to values, got 'x'"),
        ("a: {labels: {-x: y}}", 1, 14, "a.labels: '-x' is not a label's name"),
        ("a: {labels: {x: 'y y'}}", 1, 17, "a.labels.x must be a value"),
        ("a: {labels: {x: [y]}}", 1, 17, "a.labels.x must be a value, `in(a, b)` or `!value`, got a list"),
        ("a: {cpus: 1}\na: {cpus: 2}", 2, 1, "a was already given on line 1"),
        ("a: {cpus: 1, cpus: 2}", 1, 14, "cpus was already given on line 1"),
        ("? [a]\n: {cpus: 1}", 1, 3, "a name must be text, got a list"),
    ],
)
def test_a_mistake_is_told_with_its_place(text, line, column, message):
    (problem,) = read(text)
    assert isinstance(problem, Problem)
    assert (problem.line, problem.column) == (line, column)
    assert message in problem.message
    assert problem.at("machines.yaml").startswith(f"machines.yaml:{line}:{column}: ")


def test_all_mistakes_are_told_at_once_in_the_order_of_the_lines():
    problems = read("a: {gpus: x, cpus: y}\nb: 1\nc: {memory: 0, wrong: 1}\n")
    assert [problem.line for problem in problems] == [1, 1, 2, 3, 3]


@given(st.text(max_size=200))
def test_any_text_is_a_table_or_problems(text):
    found = read(text)
    assert found
    assert isinstance(found, dict) or all(isinstance(each, Problem) for each in found)
