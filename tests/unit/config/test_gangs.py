"""What is wrong with a gang and can be seen before anything is reserved."""

import pytest

from ci_bot.config import Severity
from ci_bot.config.gangs import background
from tests.unit.config.example import problem, read

MPI = """\
version: 1
type: multi-mpi
master:
  container: mpi:1
  command: mpirun python train.py
  count: 1
worker:
  container: mpi:1
  command: sleep infinity
  count: 2
"""
MPI_2 = """\
version: 2
workflows:
  train:
    steps:
      - name: all
        command: experiment.run_mpi_multi_node
        params:
          masterContainer: mpi:1
          masterCommand: mpirun python train.py
          masterCount: 1
          workerContainer: mpi:1
          workerCommand: sleep infinity
          workerCount: 2
"""


@pytest.mark.parametrize("text", [MPI, MPI_2])
def test_a_sound_gang_has_no_problem(text: str) -> None:
    assert read(text).problems == ()


@pytest.mark.parametrize(
    ("text", "old", "new", "line"),
    [
        (MPI, "container: mpi:1\n  command: sleep", "container: mpi:2\n  command: sleep", 8),
        (MPI, "container: mpi:1\n  command: sleep", "dockerfile: {use: true}\n  command: sleep", 8),
        (MPI_2, "workerContainer: mpi:1", "workerContainer: mpi:2", 11),
    ],
)
def test_under_mpi_two_images_are_an_error_on_the_line_of_the_second(text: str, old: str, new: str, line: int) -> None:
    found = problem(text.replace(old, new))
    assert (found.line, found.severity) == (line, Severity.ERROR)
    assert found.message.endswith("under MPI all nodes need the same, since mpirun starts its own programs on each. "
                                  "Write `mpi:1` for both.")  # fmt: skip


def test_elsewhere_groups_may_have_images_of_their_own() -> None:
    text = MPI.replace("multi-mpi", "multi-grpc").replace("master", "parameter-server")
    assert read(text.replace("mpi:1", "mpi:2", 1)).ok


@pytest.mark.parametrize(
    ("text", "old", "new", "line"),
    [(MPI, "count: 1", "count: 2", 6), (MPI_2, "masterCount: 1", "masterCount: 2", 10)],
)
def test_there_is_one_master(text: str, old: str, new: str, line: int) -> None:
    found = problem(text.replace(old, new))
    assert (found.line, found.severity) == (line, Severity.ERROR)
    assert "must be 1, for one node runs mpirun; found `2`" in found.message


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        (MPI, ("count: 2", "count: 0")),
        (MPI, ("count: 1", "count: 2")),
        (MPI_2, ("workerCount: 2", "workerCount: 0")),
        (MPI_2, ("          workerCommand: sleep infinity\n", "")),
    ],
)
def test_two_images_are_seen_beside_what_else_is_wrong_with_a_group(text: str, wrong: tuple[str, str]) -> None:
    found = read(text.replace("ontainer: mpi:1", "ontainer: mpi:2", 1).replace(*wrong)).errors
    assert len(found) == 2
    assert sum("under MPI all nodes need the same" in each.message for each in found) == 1


@pytest.mark.parametrize("text", [MPI, MPI_2])
def test_a_count_of_0_says_what_it_must_be(text: str) -> None:
    found = problem(text.replace("ount: 2", "ount: 0"))
    assert found.severity is Severity.ERROR
    assert "must be a whole number from 1 to 10000; found `0`" in found.message


@pytest.mark.parametrize(
    ("command", "mark"),
    [
        ("python serve.py &", "&"),
        ("nohup python serve.py > log 2>&1 &", "&"),
        ("pip install x\npython serve.py &\n\n# that is all\n", "&"),
        ("setsid python serve.py", "setsid"),
        ("cd a && setsid python serve.py", "setsid"),
        ("orted --daemonize", "--daemonize"),
        ("setsid --wait python serve.py", None),
        ("python a.py & python b.py", None),
        ("python a.py &\npython b.py &\nwait", None),
        ("python a.py &&", None),
        ("python a.py 2>&1", None),
        ("echo 'a &'", None),
        ("python a.py # one & two &", None),
        ("echo --daemonize; python a.py", None),
        ("python setsid.py", None),
        ("", None),
    ],
)
def test_a_command_that_goes_into_the_background_is_seen_where_that_is_certain(command: str, mark: str | None) -> None:
    assert background(command) == mark


def test_a_command_in_the_background_brings_a_warning_on_its_line() -> None:
    found = problem(MPI.replace("sleep infinity", "sleep infinity &"))
    assert (found.line, found.severity) == (9, Severity.WARNING)
    assert found.message.startswith("`worker.command` goes into the background (`&`)")
