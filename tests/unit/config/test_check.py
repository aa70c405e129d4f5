"""What `descent check` answers."""

import json
from pathlib import PurePosixPath

from ci_bot.config import parse
from ci_bot.config.check import check_file, json_line, lines, result
from tests.unit.config.example import FILE, ONE_NODE, STEP, read


def test_the_answer_has_the_form_that_programs_rely_on() -> None:
    text = STEP + "          container: ubuntu\n          machineType: P4000\n          clusterId: c\n"
    assert result(read(text), "my/config.yaml") == {
        "file": "my/config.yaml",
        "ok": True,
        "version": 2,
        "experiments": [
            {
                "name": "mnist",
                "type": "single",
                "groups": {
                    "worker": {
                        "count": 1,
                        "machine_type": "P4000",
                        "container": "ubuntu",
                        "command": "python train.py",
                    }
                },
            }
        ],
        "problems": [
            {
                "line": 11,
                "column": 11,
                "severity": "warning",
                "message": "`workflows.train.steps.params.clusterId` has no effect: experiments run on the Ray cluster "
                "that this installation is connected to. You may remove it.",
            }
        ],
    }


def test_an_error_leaves_no_experiment() -> None:
    answer = result(read(ONE_NODE + "retries: many"), "f")
    assert (answer["ok"], answer["version"], answer["experiments"]) == (False, 1, [])


def test_a_line_of_json_is_one_line() -> None:
    assert json.loads(json_line(read(ONE_NODE), "f"))["ok"]
    assert "\n" not in json_line(read(ONE_NODE.replace("python", '"a\\nb"') + "x: 1"), "f")


def test_a_command_is_shown_without_its_credentials() -> None:
    assert "hunter2" not in json_line(read(ONE_NODE.replace("python", "API_KEY=hunter2 python")), "f")


def test_people_get_the_lines_that_compilers_write() -> None:
    (error,) = lines(read(ONE_NODE + "retries: many"), "f.yaml")
    assert error.startswith("f.yaml:5:10: error: `retries` must be a whole number from 0 to 100; found `many`.")
    assert lines(read(ONE_NODE), "f.yaml") == ["f.yaml: ok, 1 experiment", "f.yaml: repo: single (worker × 1)"]


def test_a_file_with_warnings_is_ok_and_says_how_many() -> None:
    warning, verdict, experiment = lines(read(ONE_NODE + "cluster: c\n"), "f.yaml")
    assert warning.startswith("f.yaml:5:1: warning: ")
    assert verdict == "f.yaml: ok, 1 experiment, 1 warning"
    assert experiment == "f.yaml: repo: single (worker × 1)"


def test_a_problem_of_a_parameters_file_is_shown_under_its_path() -> None:
    text = STEP.partition("        params:")[0] + "        paramsFile: p.yaml\n"
    found = read(text, {"p.yaml": b"command: x\nports: a\n"})
    assert result(found, "f")["problems"][0]["path"] == "p.yaml"
    assert lines(found, "f")[0].startswith("p.yaml:2:8: error:")


def test_a_file_on_its_own_is_named_after_its_repositorys_folder() -> None:
    for path in ("/home/me/mine/.ps_project/config.yaml", "mine/config.yaml", "mine/.descent/config.yaml"):
        assert check_file(PurePosixPath(path), ONE_NODE.encode()).experiments[0].name == "mine"
    assert check_file(PurePosixPath("config.yaml"), ONE_NODE.encode()).experiments[0].name == "repository"


def test_a_lone_files_unread_parameters_leave_the_groups_open() -> None:
    text = STEP.partition("        params:")[0] + "        paramsFile: p.yaml\n"
    found = parse(text.encode(), path=FILE, repository_name="r", read_params=None)
    assert result(found, "f")["experiments"] == [{"name": "mnist", "type": "single", "groups": {}}]
    assert lines(found, "f")[-1] == "f: mnist: single"
