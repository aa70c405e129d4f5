"""Version 2: workflows, steps, parameters inline or in a file."""

import pytest

from ci_bot.config import Filters, Kind, Severity, parse
from launcher.experiment import NodeGroup, Role
from tests.unit.config.example import FILE, STEP, kinds, only, problem, read

PARAMS_FILE = """\
version: 2
workflows:
  train:
    steps:
      - name: mnist
        command: experiment.run_single_node
        paramsFile: params/train.yaml
        timeout: 60
"""


def step(params: str, command: str = "experiment.run_single_node") -> str:
    """A file with one step that has these parameters, in one line."""
    return (
        f"version: 2\nworkflows:\n  train:\n    steps:\n      - name: mnist\n        command: {command}\n"
        f"        params: {{{params}}}\n"
    )


def test_every_parameter_that_means_something_reaches_the_experiment() -> None:
    experiment = only(
        STEP
        + """\
          container: tensorflow/tensorflow:2
          machineType: P4000
          ports: 5000:6000
          workingDirectory: /home/me
          artifactDirectory: /artifacts
          experimentEnv: {EPOCHS: 5, FLAG: on, RATE: 0.10, AT: 1:30}
          modelType: Custom
          modelPath: /artifacts
          projectId: pr123
          timeout: 30m
          retries: 1
"""
    )
    specification = experiment.specification
    assert (experiment.name, experiment.project, experiment.line) == ("mnist", "pr123", 5)
    assert specification.groups == (
        NodeGroup(
            role=Role.WORKER, command="python train.py", container="tensorflow/tensorflow:2", machine_type="P4000"
        ),
    )
    assert specification.env == {"EPOCHS": "5", "FLAG": "on", "RATE": "0.10", "AT": "1:30"}
    assert specification.ports == (6000,)
    assert (specification.workdir, specification.artifacts) == ("/home/me", "/artifacts")
    assert (specification.model_type, specification.model_path) == ("Custom", "/artifacts")
    assert (specification.timeout_s, specification.retries) == (1800, 1)


@pytest.mark.parametrize(
    ("command", "params", "topology", "roles"),
    [
        ("experiment.run_multi_node", "workerCommand: a, workerCount: 2, parameterServerCommand: b, "
         "parameterServerCount: 1", "multi-grpc", (Role.WORKER, Role.PARAMETER_SERVER)),
        ("experiment.run_multi_node", "experimentType: MPI, workerCommand: a, workerCount: 2, masterCommand: b, "
         "masterCount: 1", "multi-mpi", (Role.MASTER, Role.WORKER)),
        ("experiment.run_multi_node", "workerCommand: a, workerCount: 2, masterCommand: b, masterCount: 1",
         "multi-mpi", (Role.MASTER, Role.WORKER)),
        ("experiment.run_mpi_multi_node", "workerCommand: a, workerCount: 2, masterCommand: b, masterCount: 1",
         "multi-mpi", (Role.MASTER, Role.WORKER)),
        ("experiment.run_torch_multi_node", "workerCommand: a, workerCount: 2", "multi-torch", (Role.WORKER,)),
    ],
)  # fmt: skip
def test_each_command_has_its_groups(command: str, params: str, topology: str, roles: tuple[Role, ...]) -> None:
    specification = only(step(params, command)).specification
    assert specification.topology == topology
    assert tuple(group.role for group in specification.groups) == roles


@pytest.mark.parametrize(
    ("command", "params"),
    [
        ("experiment.run_multi_node", "workerCommand: a, workerCount: 2"),
        ("experiment.run_torch_multi_node", "workerCommand: a, workerCount: 2, experimentType: MPI"),
        (
            "experiment.run_multi_node",
            "workerCommand: a, workerCount: 2, masterCommand: b, masterCount: 1, experimentType: [MPI]",
        ),
        ("experiment.run_mpi_multi_node", "workerCommand: a, workerCount: 2"),
        ("experiment.run_single_node", "container: x"),
        ("experiment.run_single_node", "workerCommand: x"),
        ("experiment.run_single_node", "command: x, experimentType: GRPC"),
        ("experiment.run_everything", "command: x"),
        ("python train.py", "command: x"),
    ],
)
def test_a_command_without_what_it_needs_is_an_error(command: str, params: str) -> None:
    assert read(step(params, command)).errors


def test_the_workflow_stands_before_a_step_whose_name_is_not_unique() -> None:
    other = STEP.partition("workflows:\n")[2]
    more = STEP + other.replace("train:", "test:") + other.replace("train:", "eval:").replace("mnist", "own")
    assert [each.name for each in read(more).experiments] == ["train/mnist", "test/mnist", "own"]


def test_two_experiments_never_share_a_name() -> None:
    other = STEP.partition("workflows:\n")[2]
    text = STEP + other.replace("train:", "test:") + other.replace("train:", "eval:").replace("mnist", "test/mnist")
    assert [each.kind for each in read(text).errors] == [Kind.NAME]


@pytest.mark.parametrize("name", ["a  b", '"a b "', "'a\u00a0b'"])
def test_two_experiments_never_share_a_check_run(name: str) -> None:
    other = STEP.partition("workflows:\n")[2]
    text = STEP.replace("mnist", "a b") + other.replace("train:", "test:").replace("mnist", name)
    assert [(each.line, each.kind) for each in read(text).errors] == [(11, Kind.NAME)]


def test_no_list_with_nothing_in_it_is_called_a_list() -> None:
    text = "version: 2\nworkflows: {a: {steps: []}}\n"
    assert "must be a list with one step; found an empty list" in problem(text).message


def test_a_second_step_is_an_error_and_not_a_guess() -> None:
    text = STEP + "      - name: two\n        command: experiment.run_single_node\n        params: {command: x}\n"
    assert kinds(read(text)) == [(9, Severity.ERROR, Kind.STEPS)]


def test_steps_that_are_a_mapping_are_read_as_one_step() -> None:
    text = STEP.replace("      - name", "      name").replace("        command: e", "      command: e")
    text = text.replace("        params", "      params")
    assert only(text).name == "mnist"
    assert kinds(read(text)) == [(5, Severity.WARNING, Kind.STEPS)]


@pytest.mark.parametrize(
    "text",
    [
        STEP + "    checks: {tensorflow:loss: {target: 1.., aggregate: max}}\n",
        STEP + "checks: {tensorflow:loss: {target: 1.., aggregate: max}}\n",
    ],
)
def test_checks_above_their_step_are_read_as_the_steps(text: str) -> None:
    assert [check.identifier for check in only(text).checks] == ["tensorflow:loss"]
    assert kinds(read(text)) == [(9, Severity.WARNING, Kind.MISPLACED)]


@pytest.mark.parametrize(
    "line",
    [
        "        triggers: {branches: {only: dev}}\n",
        "    branches: {only: dev}\n",
        "triggers: {branches: {only: dev}}\n",
    ],
)
def test_misplaced_triggers_are_read_as_the_workflows(line: str) -> None:
    assert only(STEP + line).triggers.branches == Filters(only=("dev",))
    assert kinds(read(STEP + line)) == [(9, Severity.WARNING, Kind.MISPLACED)]


def test_triggers_in_two_places_are_an_error() -> None:
    text = STEP + "        triggers: {branches: {only: a}}\n    triggers: {branches: {only: b}}\n"
    assert [each.kind for each in read(text).errors] == [Kind.DUPLICATE_KEY]


def test_parameters_beside_the_step_are_read_as_its_parameters() -> None:
    text = STEP + "        container: ubuntu\n"
    assert only(text).specification.groups[0].container == "ubuntu"
    assert kinds(read(text)) == [(9, Severity.WARNING, Kind.MISPLACED)]


@pytest.mark.parametrize(
    ("block", "line"),
    [
        ("      triggers:\n        branches:\n          only: dev\n", 9),
        ("      checks:\n        tensorflow:loss:\n          target: 1..\n          aggregate: max\n", 9),
        ("      checks:\n        tensorflow:loss:\n          target: 1..\n          aggregate: max\n"
         "      triggers:\n        # a remark\n\n        branches:\n          only: dev\n", 13),
    ],
)  # fmt: skip
def test_the_templates_indentation_is_read_as_meant(block: str, line: int) -> None:
    found = read(STEP + block)
    assert found.ok
    assert found.problems[-1].line == line
    assert {each.kind for each in found.problems} == {Kind.INDENTATION}
    experiment = only(STEP + block)
    assert bool(experiment.checks) == ("checks" in block)
    assert (experiment.triggers.branches == Filters(only=("dev",))) == ("triggers" in block)


def test_a_problem_in_a_repaired_block_keeps_its_place() -> None:
    found = read(STEP + "      triggers:\n        branches:\n          only: (\n")
    assert [(each.line, each.column) for each in found.errors] == [(11, 17)]


def test_a_parameters_file_of_the_same_commit_is_read() -> None:
    files = {"params/train.yaml": b"command: python train.py\nmachineType: K80\ntimeout: 5m\nretries: 2\n"}
    specification = only(PARAMS_FILE, files).specification
    assert specification.groups[0].machine_type == "K80"
    assert (specification.timeout_s, specification.retries) == (60, 2)


def test_a_problem_in_a_parameters_file_carries_that_files_path() -> None:
    found = problem(PARAMS_FILE, {"params/train.yaml": b"command: x\nports: none-of-them\n"})
    assert (found.path, found.line, found.column) == ("params/train.yaml", 2, 8)


@pytest.mark.parametrize("content", [b"[1]", b"", b"\xff", b"a: [", b"container: x"])
def test_a_parameters_file_that_cannot_be_read_is_an_error_in_it(content: bytes) -> None:
    assert {each.path for each in read(PARAMS_FILE, {"params/train.yaml": content}).errors} == {"params/train.yaml"}


def test_a_parameters_file_that_the_commit_has_not_is_an_error() -> None:
    assert kinds(read(PARAMS_FILE)) == [(7, Severity.ERROR, Kind.PARAMS_FILE)]


@pytest.mark.parametrize("path", ["/etc/passwd", "../x.yaml", "a/../../x", ".", "a\\b", '"a\\0b"'])
def test_a_parameters_file_stays_within_the_repository(path: str) -> None:
    assert read(PARAMS_FILE.replace("params/train.yaml", path)).errors


def test_parameters_inline_and_in_a_file_are_an_error() -> None:
    text = PARAMS_FILE + "        params: {command: x}\n"
    found = read(text, {"params/train.yaml": b"command: x"})
    assert kinds(found) == [(7, Severity.ERROR, Kind.PARAMS_FILE)]


@pytest.mark.parametrize("extra", ["        params: {ports: abc}\n", "        ports: abc\n"])
def test_what_else_is_wrong_with_either_of_two_sources_of_parameters_is_said_too(extra: str) -> None:
    text = PARAMS_FILE.replace("params/train.yaml", "../x") + extra
    assert [each.line for each in read(text).errors] == [7, 7, 9]
    found = read(PARAMS_FILE + extra, {"params/train.yaml": b"command: x\nretries: y\n"})
    assert [(each.path, each.line) for each in found.errors] == [(FILE, 7), (FILE, 9), ("params/train.yaml", 2)]


def test_a_lone_file_takes_its_parameters_file_on_trust_and_says_so() -> None:
    found = parse(PARAMS_FILE.encode(), path=FILE, repository_name="repo", read_params=None)
    assert kinds(found) == [(7, Severity.WARNING, Kind.PARAMS_FILE)]
    (experiment,) = found.experiments
    assert experiment.unread_params_file == "params/train.yaml"
    assert experiment.specification.groups == ()
    assert experiment.specification.timeout_s == 60


def test_a_secret_is_never_passed_on_as_text() -> None:
    found = problem(step("command: x, experimentEnv: {TOKEN: 'secret:token'}"))
    assert (found.severity, found.kind) == (Severity.ERROR, Kind.SECRET)
    assert "`secret:token`" in found.message


@pytest.mark.parametrize(
    "written", ["datasetUri: [s3://x]", "datasets: [{uri: s3://x}]", "datasetId: abc", "dataset_uri: s3://x"]
)
def test_data_sets_are_an_error_until_they_exist(written: str) -> None:
    assert Kind.DATASETS in {each.kind for each in read(step(f"command: x, {written}")).errors}


@pytest.mark.parametrize("written", ["datasetUri: none", "datasetName: [none, null]", "datasets: []"])
def test_a_data_set_that_is_none_asks_for_nothing(written: str) -> None:
    assert not read(step(f"command: x, {written}")).problems


@pytest.mark.parametrize(
    "written",
    [
        "clusterId: c", "apiKey: k", "workspace: w", "workspaceRef: r", "workspaceUsername: u", "workspacePassword: p",
        "ignoreFiles: f", "isPreemptible: true", "tag: t", "tags: 'a,b'", "tensorboard: true", "tensorboard_set: x",
        "containerUser: u", "registryUsername: u", "registryPassword: p", "registryUrl: r", "name: other",
    ],
)  # fmt: skip
def test_what_has_no_effect_is_a_warning_that_says_so(written: str) -> None:
    assert kinds(read(step(f"command: x, {written}"))) == [(7, Severity.WARNING, Kind.IGNORED)]


@pytest.mark.parametrize("written", ["isPreemptible: false", "tensorboard: no", "workspace: none", "name: mnist"])
def test_a_value_that_says_what_happens_anyway_is_no_problem(written: str) -> None:
    assert not read(step(f"command: x, {written}")).problems


def test_variables_may_be_one_json_text_as_on_the_command_line() -> None:
    text = step("""command: x, experimentEnv: '{"A": 1, "B": 0.10, "C": "x", "D": true}'""")
    assert only(text).specification.env == {"A": "1", "B": "0.10", "C": "x", "D": "true"}


@pytest.mark.parametrize(
    "written", ["{A: [1]}", "'[1]'", "x", "{'A B': 1}", "{'A=B': 1}", '{A: "\\0"}', "[A]", "'{\"a\": {}}'"]
)
def test_variables_that_cannot_be_are_an_error(written: str) -> None:
    assert read(step(f"command: x, experimentEnv: {written}")).errors


@pytest.mark.parametrize(
    "text",
    ["version: 2\n", "version: 2\nworkflows: {}\n", "version: 2\nworkflows: [a]\n", "version: 2\nworkflows: {a: 1}\n",
     "version: 2\nworkflows: {a: {}}\n", "version: 2\nworkflows: {a: {steps: []}}\n",
     "version: 2\nworkflows: {a: {steps: [1]}}\n", "version: 2\nworkflows: {a: {steps: x}}\n"],
)  # fmt: skip
def test_a_file_without_a_step_has_an_error(text: str) -> None:
    assert read(text).errors


def test_a_step_without_parameters_is_an_error() -> None:
    assert kinds(read(STEP.partition("        params:")[0])) == [(5, Severity.ERROR, Kind.MISSING)]
    assert read(STEP.partition("          command: python")[0]).errors


def test_a_step_without_a_name_has_its_workflows() -> None:
    text = STEP.replace("- name: mnist\n        command: e", "- command: e")
    assert only(text).name == "train"
    assert kinds(read(text)) == [(5, Severity.WARNING, Kind.MISSING)]


def test_of_a_second_step_nothing_is_said_but_that_it_is_one() -> None:
    step = "      - command: experiment.run_single_node\n        params: {command: python train.py}\n"
    found = read(f"version: 2\nworkflows:\n  train:\n    steps:\n{step}{step}").problems
    assert [each.kind for each in found] == [Kind.STEPS]


def test_who_wrote_workers_alone_is_told_of_mpi() -> None:
    text = STEP.replace("run_single_node", "run_multi_node").replace("command: python", "workerCommand: python")
    (found,) = [each for each in read(text).problems if "parameterServerCommand" in each.message]
    assert found.message.endswith(
        "Write, for example, `parameterServerCommand: python train.py`, or, for MPI, `experimentType: MPI` and "
        "`masterCommand`."
    )
    told = read(text.replace("workerCommand", "experimentType: GRPC\n          workerCommand")).problems
    assert not [each for each in told if "MPI" in each.message]
