"""However much is wrong with a file: no error is hidden, and reading it takes little time."""

import time
from collections import Counter

import pytest

from ci_bot.config import Kind, Severity, parse
from ci_bot.config.parse import MAX_PROBLEMS
from ci_bot.config.problems import MAX_NOTED
from ci_bot.config.version2 import MAX_EXPERIMENTS
from tests.unit.config.example import FILE, ONE_NODE, STEP, read

WORKFLOWS = "version: 2\nworkflows:\n"
BIG = 50_000
LITTLE_S = 2
"""Of processor time; each of these once took from 3 to 40."""


def unknown(count: int) -> str:
    """Keys that bring a warning each."""
    return "".join(f"unknown{i}: 1\n" for i in range(count))


def workflow(name: str, rest: str) -> str:
    """A workflow whose step has this as its parameters."""
    return f"  {name}: {{steps: [{{name: {name}, command: experiment.run_single_node, {rest}}}]}}\n"


def big(line: str, head: str = "") -> str:
    """A file of 50 KB with such a line over and over, each time with another number."""
    lines, size = [head], len(head)
    for number in range(BIG):
        lines.append(line.replace("#", str(number)))
        size += len(lines[-1])
        if size >= BIG:
            break
    return "".join(lines)


def test_no_number_of_warnings_hides_an_error() -> None:
    found = read(ONE_NODE + unknown(MAX_PROBLEMS + 10) + "retries: many\n")
    assert (found.ok, found.experiments) == (False, ())
    assert [each.line for each in found.errors] == [5 + MAX_PROBLEMS + 10]


def test_what_is_not_shown_is_counted_at_the_end() -> None:
    found = read(ONE_NODE + unknown(MAX_PROBLEMS + 10))
    assert found.ok
    assert len(found.problems) == MAX_PROBLEMS + 1
    last = found.problems[-1]
    assert (last.line, last.severity, last.kind) == (5 + MAX_PROBLEMS, Severity.WARNING, Kind.LIMIT)
    assert last.message.startswith("… 10 more problems")


def test_a_problem_more_than_is_shown_is_one_problem() -> None:
    assert len(read(ONE_NODE + unknown(MAX_PROBLEMS)).problems) == MAX_PROBLEMS
    assert read(ONE_NODE + unknown(MAX_PROBLEMS + 1)).problems[-1].message.startswith("… 1 more problem from here on")


@pytest.mark.parametrize(
    "text", [ONE_NODE + unknown(MAX_NOTED + 1), "a: 1\n" * (MAX_NOTED + 2), "a: !x\n" + "- !x a\n" * MAX_NOTED]
)
def test_a_file_with_no_end_of_problems_is_an_error(text: str) -> None:
    found = read(text)
    assert (found.ok, found.experiments) == (False, ())
    assert len(found.problems) <= MAX_PROBLEMS + 1
    (first, *_) = found.problems
    assert (first.line, first.kind) == (1, Kind.LIMIT)
    assert f"more than {MAX_NOTED} problems" in first.message


@pytest.mark.parametrize(
    "text",
    [
        big("a: 1\n", ONE_NODE),
        big("key#: 1\n", ONE_NODE),
        big("a-rather-long-key-that-nobody-knows-#: 1\n", ONE_NODE),
        big("            A#: secret:x\n", STEP + "          experimentEnv:\n"),
        big("            A#: x\n", STEP + "          experimentEnv:\n"),
        big("          workerComand#: x\n", STEP),
        big("          command-#: x\n", STEP),
        big("a#: !x y\n", ONE_NODE),
        big("  x#: {round: x}\n", ONE_NODE + "checks:\n"),
        big(
            "  onnx:#: {target: 1, aggregate: max}\n",
            ONE_NODE + "checks:\n  defaults: {round: x, precision: x, only-pulls: x}\n",
        ),
        big("    only#: x\n", ONE_NODE + "filters:\n  branches:\n"),
        big("      - '(#'\n", ONE_NODE + "filters:\n  branches:\n    only:\n"),
        big("  a#: 1\n", WORKFLOWS),
        big("  a#: *a\n", f"x: &a {{{', '.join(f'y{i}: 1' for i in range(90))}}}\n{WORKFLOWS}"),
        big("      - name: a#\n", STEP),
        big("? [a, #]\n: 1\n", ONE_NODE),
        big("a#: 'b' c\n", ONE_NODE),
        big("a#: b\n", ONE_NODE) + "a: 'b' c\nb: 'b' c\nc: 'b' c\nd: 'b' c\ne: 'b' c\nf: 'b' c\n",
        big("  <<: x\n", ONE_NODE),
        big("- [", ""),
    ],
    ids=lambda text: text[-24:],
)
def test_a_large_file_full_of_mistakes_is_read_in_little_time(text: str) -> None:
    began_s = time.process_time()
    read(text)
    assert time.process_time() - began_s < LITTLE_S


def test_a_parameters_file_that_many_steps_name_is_read_once() -> None:
    text = WORKFLOWS + "".join(workflow(f"a{i}", "paramsFile: ./p.yaml") for i in range(MAX_EXPERIMENTS))
    reads: Counter[str] = Counter()

    def read_params(path: str) -> bytes:
        reads[path] += 1
        return b"command: python train.py\nports: x\n"

    found = parse(text.encode(), path=FILE, repository_name="repo", read_params=read_params)
    assert reads == {"p.yaml": 1}
    assert [(each.path, each.line) for each in found.problems] == [("p.yaml", 2)]


def test_a_parameters_file_that_is_no_yaml_is_said_once_to_be_none() -> None:
    text = WORKFLOWS + "".join(workflow(f"a{i}", "paramsFile: p.yaml") for i in range(3))
    assert [each.path for each in read(text, {"p.yaml": b"a: ["}).problems] == ["p.yaml"]


def test_a_large_parameters_file_of_many_steps_is_read_in_little_time() -> None:
    text = WORKFLOWS + "".join(workflow(f"a{i}", "paramsFile: p.yaml") for i in range(MAX_EXPERIMENTS))
    content = big("  A#: x\n", "command: x\nname: y\nexperimentEnv:\n").encode()
    began_s = time.process_time()
    assert read(text, {"p.yaml": content}).ok
    assert time.process_time() - began_s < LITTLE_S


def test_a_file_has_at_most_fifty_experiments_and_no_parameters_are_fetched_for_more() -> None:
    def text(count: int) -> str:
        return WORKFLOWS + "".join(workflow(f"a{i}", f"paramsFile: p{i}.yaml") for i in range(count))

    asked = []

    def read_params(path: str) -> bytes:
        asked.append(path)
        return b"command: x\n"

    def parsed(count: int) -> list[tuple[int, Severity, Kind]]:
        found = parse(text(count).encode(), path=FILE, repository_name="repo", read_params=read_params)
        return [(each.line, each.severity, each.kind) for each in found.problems]

    assert parsed(MAX_EXPERIMENTS) == []
    asked.clear()
    assert parsed(1500) == [(3 + MAX_EXPERIMENTS, Severity.ERROR, Kind.LIMIT)]
    assert len(asked) == MAX_EXPERIMENTS


def test_steps_that_are_too_many_fetch_no_parameters_either() -> None:
    steps = "".join(
        f"      - {{name: a{i}, command: experiment.run_single_node, paramsFile: p{i}}}\n" for i in range(500)
    )
    asked: list[str] = []
    text = f"{WORKFLOWS}  a:\n    steps:\n{steps}"
    parse(text.encode(), path=FILE, repository_name="repo", read_params=asked.append)
    assert len(asked) == MAX_EXPERIMENTS


def test_a_long_name_is_not_repeated_in_every_problem_below_it() -> None:
    steps = "".join(f"      - {{name: {i}}}\n" for i in range(100))
    found = read(f"{WORKFLOWS}  ? {'x' * 100_000}\n  :\n    steps:\n{steps}")
    assert sum(len(each.message) for each in found.problems) < 100_000
