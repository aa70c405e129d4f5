"""What an experiment's commands are told of their commit."""

import pytest

from ci_bot.records import Experiment
from ci_bot.worker.launch import environment
from launcher.experiment import NodeGroup, Role, Specification
from launcher.state import Progress

SHA = "a" * 40


def experiment(**fields: object) -> Experiment:
    group = NodeGroup(role=Role.WORKER, command="true")
    specification = Specification(name="x", topology="single", groups=(group,), **fields)  # type: ignore[arg-type]
    return Experiment(
        id=1, repository_id=2, installation_id=3, full_name="octo/x", head_sha=SHA, ref="refs/pull/5/head", name="x",
        rerun=0, title="", specification=specification, configuration_path="", configuration_source="",
        progress=Progress(), detail={}, created_at=0.0, state_at=0.0,
    )  # fmt: skip


def test_the_commit_is_told_by_ref_sha_and_the_target_repositorys_address() -> None:
    assert environment(experiment(), "https://github.com/octo/x") == {
        "PS_GRADIENT_CI_GIT_REF": "refs/pull/5/head",
        "PS_GRADIENT_CI_GIT_SHA": SHA,
        "PS_GRADIENT_CI_GIT_REPO_URL": "https://github.com/octo/x",
    }


@pytest.mark.parametrize(
    ("env", "expected"), [({}, "/storage/models"), ({"PS_MODEL_PATH": "/storage/mine"}, "/storage/mine")]
)
def test_the_models_path_is_the_configurations_and_its_own_variables_win(env: dict[str, str], expected: str) -> None:
    told = environment(experiment(model_path="/storage/models", env=env), "https://github.com/octo/x")
    assert told["PS_MODEL_PATH"] == expected
