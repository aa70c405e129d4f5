"""Versions 0 and 1: one experiment at the top level of the file."""

import pytest

from ci_bot.config import Filters, Kind, Severity
from launcher.experiment import Dockerfile, NodeGroup, Role
from tests.unit.config.example import ONE_NODE, kinds, only, problem, read

EVERY_KEY = """\
version: 1
project: pr123
experiment: momo/perfect-run
type: multi-grpc
ports: "5000, 6000:7000"
paths:
  workdir: /home/me
  artifacts: /artifacts
model:
  type: ONNX
  path: /artifacts/model
worker:
  container: tensorflow/tensorflow:2
  command: python train.py
  machine-type: K80
  count: 2
  dockerfile:
    use: true
    path: docker/Dockerfile
parameter-server:
  container: tensorflow/tensorflow:2
  command: python serve.py
  machine-type: C3
  count: 1
filters:
  branches:
    only: [main, "release/.*"]
  tags:
    ignore: nightly.*
checks:
  tensorflow:loss:
    target: 0.0..0.5
    aggregate: mean
timeout: 2h
retries: 3
vpc: false
"""


def test_every_key_reaches_the_experiment() -> None:
    experiment = only(EVERY_KEY)
    assert not read(EVERY_KEY).problems
    specification = experiment.specification
    assert (experiment.name, experiment.project, experiment.line) == ("momo/perfect-run", "pr123", 12)
    assert specification.topology == "multi-grpc"
    assert specification.groups == (
        NodeGroup(
            role=Role.WORKER,
            count=2,
            command="python train.py",
            machine_type="K80",
            container="tensorflow/tensorflow:2",
            dockerfile=Dockerfile(path="docker/Dockerfile"),
        ),
        NodeGroup(
            role=Role.PARAMETER_SERVER,
            count=1,
            command="python serve.py",
            machine_type="C3",
            container="tensorflow/tensorflow:2",
        ),
    )
    assert (specification.workdir, specification.artifacts) == ("/home/me", "/artifacts")
    assert (specification.model_type, specification.model_path) == ("ONNX", "/artifacts/model")
    assert specification.ports == (5000, 7000)
    assert (specification.timeout_s, specification.retries) == (7200, 3)
    assert experiment.triggers.branches == Filters(only=("main", "release/.*"))
    assert experiment.triggers.tags == Filters(ignore=("nightly.*",))
    assert [check.identifier for check in experiment.checks] == ["tensorflow:loss"]


def test_the_experiment_is_named_after_the_repository_where_it_has_no_name() -> None:
    assert only(ONE_NODE).name == "repo"


@pytest.mark.parametrize("version", ["0", "1", '"1"'])
def test_both_versions_and_a_quoted_one_are_accepted(version: str) -> None:
    assert not read(ONE_NODE.replace("version: 1", f"version: {version}")).problems


@pytest.mark.parametrize(("written", "as_written"), [("0.1", 0.1), ("1.0", 1.0), ("v1", "v1"), ("2", 2)])
def test_a_version_near_ours_is_read_with_a_warning_and_kept_as_written(written: str, as_written: object) -> None:
    found = read(ONE_NODE.replace("version: 1", f"version: {written}"))
    assert kinds(found) == [(1, Severity.WARNING, Kind.VERSION)]
    assert found.version == as_written


@pytest.mark.parametrize("text", [ONE_NODE.replace("version: 1\n", ""), ONE_NODE.replace("version: 1", "version: 3")])
def test_a_missing_or_unknown_version_is_an_error(text: str) -> None:
    assert kinds(read(text)) == [(1, Severity.ERROR, Kind.VERSION)]


@pytest.mark.parametrize(
    ("written", "topology"),
    [
        ("singleNode", "single"),
        ("singlenode", "single"),
        ("mpi", "multi-mpi"),
        ("MPI", "multi-mpi"),
        ("multi_torch", "multi-torch"),
    ],
)
def test_spellings_of_a_type_are_read_with_a_warning(written: str, topology: str) -> None:
    text = ONE_NODE.replace("type: single", f"type: {written}") + "  count: 1\n"
    assert only(text).specification.topology == topology
    assert kinds(read(text)) == [(2, Severity.WARNING, Kind.SPELLING)]


@pytest.mark.parametrize(("group", "topology"), [("parameter-server", "multi-grpc"), ("master", "multi-mpi")])
def test_a_bare_multinode_is_what_its_second_group_says(group: str, topology: str) -> None:
    text = f"version: 1\ntype: multinode\nworker: {{command: a, count: 2}}\n{group}: {{command: b, count: 1}}\n"
    assert only(text).specification.topology == topology
    assert kinds(read(text)) == [(2, Severity.WARNING, Kind.SPELLING)]


@pytest.mark.parametrize("groups", ["", "parameter-server: {command: b}\nmaster: {command: b}\n"])
def test_a_bare_multinode_that_the_groups_do_not_tell_is_an_error(groups: str) -> None:
    text = f"version: 1\ntype: multinode\nworker: {{command: a}}\n{groups}"
    assert [(each.line, each.kind) for each in read(text).errors] == [(2, Kind.TYPE)]


def test_mpi_without_a_master_keeps_its_workers_as_written() -> None:
    text = "version: 1\ntype: multi-mpi\nworker:\n  command: mpirun x\n  count: 4\n"
    assert only(text).specification.groups == (NodeGroup(role=Role.WORKER, count=4, command="mpirun x"),)


def test_grpc_needs_its_parameter_servers() -> None:
    text = "version: 1\ntype: multi-grpc\nworker: {command: a, count: 2}\n"
    assert kinds(read(text)) == [(1, Severity.ERROR, Kind.MISSING)]


@pytest.mark.parametrize("count", ["0", "-1", "many", "1.5", "[1]", "99999999999999999999"])
def test_a_count_is_a_whole_number_of_at_least_one(count: str) -> None:
    text = f"version: 1\ntype: multi-torch\nworker:\n  command: a\n  count: {count}\n"
    assert kinds(read(text)) == [(5, Severity.ERROR, Kind.VALUE)]


def test_a_group_that_the_type_has_not_and_a_count_of_one_node_are_not_used() -> None:
    text = ONE_NODE + "  count: 2\nmaster:\n  command: x\n"
    assert kinds(read(text)) == [(5, Severity.WARNING, Kind.UNUSED), (6, Severity.WARNING, Kind.UNUSED)]
    assert [group.count for group in only(text).specification.groups] == [1]


def test_what_is_required_is_said_to_be_missing_all_at_once() -> None:
    assert [(each.kind, each.message.split(" is ")[0]) for each in read("version: 1\n").problems] == [
        (Kind.MISSING, "`type`"),
        (Kind.MISSING, "`worker`"),
    ]


def test_an_error_says_what_was_found_what_was_expected_and_what_to_write() -> None:
    found = problem(ONE_NODE.replace("single", "other"))
    assert (found.line, found.column, found.found) == (2, 7, "`other`")
    assert found.expected == "one of single, multi-grpc, multi-mpi, multi-torch"
    assert "Write, for example, `type: single`." in found.message


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("multi-gprc", "Write `type: multi-grpc`."),
        ("singel", "Write `type: single`."),
        ("multi-gpu", "Write, for example, `type: single`."),
        ("multi-node", "Write, for example, `type: single`."),
    ],
)
def test_a_mistyped_type_is_answered_with_the_one_that_was_meant_and_no_other(written: str, said: str) -> None:
    assert problem(ONE_NODE.replace("single", written)).message.endswith(said)


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("parameter_server: {command: x}", Kind.SPELLING),
        ("projectHandle: p", Kind.SPELLING),
        ("triggers: {branches: {only: x}}", Kind.SPELLING),
        ("branches: {only: x}", Kind.MISPLACED),
        ("experimentEnv: {A: 1}", Kind.MISPLACED),
        ("vpc: true", Kind.IGNORED),
        ("tiemout: 3", Kind.UNKNOWN_KEY),
        ("model: {type: Sklearn, path: /m}", Kind.MODEL_TYPE),
        ("model: {type: TensorFlow, path: /m}", Kind.SPELLING),
    ],
)
def test_what_is_seen_in_the_wild_is_accepted_with_a_warning(line: str, kind: Kind) -> None:
    found = read(ONE_NODE + line)
    assert found.ok
    assert (5, Severity.WARNING, kind) in kinds(found)


def test_a_group_has_at_most_ten_thousand_nodes() -> None:
    text = "version: 1\ntype: multi-torch\nworker: {command: a, count: 10000}\n"
    assert read(text).ok
    assert read(text.replace("10000", "10001")).errors


@pytest.mark.parametrize("ports", ["[5000, [6000]]", "[5000, abc]", "[5000, 5001 0]"])
def test_a_port_that_is_none_is_pointed_at_in_its_list(ports: str) -> None:
    found = problem(f"{ONE_NODE}ports: {ports}")
    assert (found.line, found.column) == (5, 15)
    assert found.message.startswith("`ports` must be ")
    assert " in it. Write" in found.message


def test_every_port_that_is_none_is_named() -> None:
    assert [each.column for each in read(f"{ONE_NODE}ports: [a, 5000, b]").errors] == [9, 18]
    assert read(f"{ONE_NODE}ports: {list(range(1, 101))}").ok
    assert [each.message.partition(";")[0] for each in read(f"{ONE_NODE}ports: {list(range(1, 102))}").errors] == [
        "`ports` must be at most 100 port numbers"
    ]


@pytest.mark.parametrize("count", ["9999999999", "10001", "0"])
def test_a_count_out_of_range_is_told_its_bounds(count: str) -> None:
    text = f"version: 1\ntype: multi-torch\nworker:\n  command: a\n  count: {count}\n"
    assert "`worker.count` must be a whole number from 1 to 10000; found" in problem(text).message


def test_a_number_between_quotes_may_have_spaces_at_its_ends() -> None:
    assert only(ONE_NODE + "retries: ' 2 '").specification.retries == 2


@pytest.mark.parametrize("retries", ["9999999999", "101", "-1", "2.0"])
def test_a_number_out_of_range_is_told_its_bounds(retries: str) -> None:
    assert "must be a whole number from 0 to 100; found" in problem(f"{ONE_NODE}retries: {retries}").message


def test_an_unknown_key_brings_the_nearest_spelling() -> None:
    assert "Did you mean `timeout`?" in problem(ONE_NODE + "tiemout: 3").message


@pytest.mark.parametrize("key", ["use-dockerfile", "useDockerfile"])
def test_the_flat_spelling_of_a_dockerfile_is_understood(key: str) -> None:
    assert only(f"{ONE_NODE}  {key}: true").specification.groups[0].dockerfile == Dockerfile()


@pytest.mark.parametrize("key", ["use-dockerfile", "useDockerfile"])
def test_the_flat_spelling_of_a_dockerfile_is_true_or_false(key: str) -> None:
    found = read(f"{ONE_NODE}  {key}: maybe")
    assert kinds(found) == [(5, Severity.WARNING, Kind.SPELLING), (5, Severity.ERROR, Kind.VALUE)]
    assert "`worker.use-dockerfile` must be true or false; found `maybe`" in found.errors[0].message
    assert read(f"{ONE_NODE}  dockerfile: {{use: true}}\n  {key}: maybe").errors


@pytest.mark.parametrize("path", ["/etc/passwd", "../../../etc/passwd", "a/../../x", ".", "a\\b"])
def test_a_dockerfile_stays_within_the_repository(path: str) -> None:
    text = f"{ONE_NODE}  dockerfile: {{use: true, path: x}}\n"
    assert only(text).specification.groups[0].dockerfile == Dockerfile(path="x")
    assert kinds(read(text.replace("path: x", f"path: {path}"))) == [(5, Severity.ERROR, Kind.VALUE)]


def test_a_dockerfile_that_is_not_used_is_none() -> None:
    assert only(ONE_NODE + "  dockerfile: {use: false, path: x}").specification.groups[0].dockerfile is None


@pytest.mark.parametrize(
    ("line", "seconds"), [("90", 90), ("30m", 1800), ("2h", 7200), ("1h30m", 5400), ("1d", 86400), ("'45 s'", None)]
)
def test_a_timeout_is_seconds_or_has_units(line: str, seconds: int | None) -> None:
    text = f"{ONE_NODE}timeout: {line}"
    assert read(text).ok == (seconds is not None)
    if seconds is not None:
        assert only(text).specification.timeout_s == seconds


@pytest.mark.parametrize(
    "line",
    [
        "timeout: 1:30",
        "timeout: 0",
        "timeout: 999d",
        "retries: -1",
        "retries: 101",
        "ports: 0",
        "ports: a",
        "ports: 70000",
        "paths: {workdir: src}",
        "paths: {workdir: /a/../b}",
        "paths: {workdir: /}",
        "paths: {artifacts: /etc/x}",
        "worker2:\n  - x\nmodel: [1]",
        'experiment: "a\\nb"',
        "experiment: config",
        "experiment: ' '",
        "experiment: a · b",
        "experiment: a  b",
        f"experiment: ghp_{'x' * 36}",
        f"experiment: {'x' * 101}",
        'project: "a\\0b"',
        "paths: 3",
    ],
)
def test_a_value_that_cannot_be_is_an_error_on_its_line(line: str) -> None:
    found = read(ONE_NODE + line)
    assert found.errors
    assert all(each.line >= 5 for each in found.errors)
    assert not found.experiments
