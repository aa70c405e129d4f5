"""Plain values that the tests of the store change where it matters."""

from dataclasses import replace
from typing import Any

from ci_bot.records import CheckRun, Claim, ClaimKind
from ci_bot.store.experiments import Draft
from launcher.experiment import NodeGroup, Role, Specification
from launcher.state import Progress, Signal, advance

SPECIFICATION = Specification(
    name="digits",
    topology="single",
    groups=(NodeGroup(role=Role.WORKER, command="python train.py", machine_type="P4000"),),
    env={"EPOCHS": "3"},
    ports=(5000,),
    timeout_s=60,
)
MAIN = Claim(ClaimKind.BRANCH, "refs/heads/main", lasting=True)
TOPIC = Claim(ClaimKind.BRANCH, "refs/heads/topic")
PULL = Claim(ClaimKind.PULL_REQUEST, "7")


def draft(**changes: Any) -> Draft:
    plain = Draft(
        repository_id=2**40,
        installation_id=1,
        full_name="octo/digits",
        head_sha="a" * 40,
        ref="refs/heads/topic",
        name="digits",
        specification=SPECIFICATION,
        configuration_path=".descent/config.yaml",
        configuration_source="version: 1\n",
    )
    return replace(plain, **changes)


def check_run(**changes: Any) -> CheckRun:
    plain = CheckRun(
        name="descent/digits", head_sha="a" * 40, status="in_progress", title="Running", summary="It runs."
    )
    return plain.model_copy(update=changes)


def after(*signals: Signal) -> Progress:
    progress = Progress()
    for signal in signals:
        progress = advance(progress, signal)
    return progress
