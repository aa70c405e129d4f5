"""What a person reads, whole, beside what somebody once read and found right (golden/*.md).

To look at a change: UPDATE_GOLDEN=1 pytest tests/unit/report/test_golden.py, then read the difference.
"""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from ci_bot.config.problems import Kind, Problem, Severity
from ci_bot.records import CheckRun
from ci_bot.report import other_checks
from ci_bot.report.check_run import experiment_check_run
from tests.unit.report.views import HEAD_SHA, URL, VIEWS

GOLDEN = Path(__file__).parent / "golden"

PROBLEMS = (
    Problem(
        path="config.yaml",
        line=3,
        column=5,
        severity=Severity.WARNING,
        kind=Kind.SPELLING,
        message="`machinetype` was read as `machine-type`",
    ),
    Problem(
        path="config.yaml",
        line=7,
        column=3,
        severity=Severity.ERROR,
        kind=Kind.VALUE,
        message="worker.count must be at least 1, got `0 | @octo`",
    ),
)

OTHERS: dict[str, Callable[[], CheckRun]] = {
    "configuration": lambda: other_checks.configuration_check("config.yaml", PROBLEMS, HEAD_SHA),
    "configuration-fine": lambda: other_checks.configuration_fine("config.yaml", PROBLEMS[:1], HEAD_SHA),
    "fork-waiting": lambda: other_checks.fork_waiting(
        "digits", HEAD_SHA, 7, path="config.yaml", source="version: 1\n", commit="f" * 40, details_url=URL
    ),
    "skipped": lambda: other_checks.skipped("digits", HEAD_SHA, "the message says [skip ci]"),
    "not-matching": lambda: other_checks.not_matching("digits", HEAD_SHA, "feature/#1"),
    "missed": lambda: other_checks.missed("digits", HEAD_SHA),
}


def page(run: CheckRun) -> str:
    """A check run as one text."""
    head = [
        f"name: {run.name}",
        f"status: {run.status}",
        f"conclusion: {run.conclusion}",
        f"title: {run.title}",
        f"buttons: {[button.identifier for button in run.buttons]}",
        f"started: {run.started_at} completed: {run.completed_at}",
        *(f"annotation: {annotation.model_dump(exclude_none=True)}" for annotation in run.annotations),
    ]
    return "\n".join([*head, "", "--- summary", run.summary, "", "--- text", run.text, ""])


def check_against_golden(name: str, text: str) -> None:
    """Equal to the text that was approved, or approve it when asked to."""
    path = GOLDEN / f"{name}.md"
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(text)
    assert text == path.read_text()


@pytest.mark.parametrize("name", VIEWS)
def test_the_check_run_of_an_experiment_reads_as_approved(name: str) -> None:
    check_against_golden(name, page(experiment_check_run(VIEWS[name]())))


@pytest.mark.parametrize("name", OTHERS)
def test_a_check_run_without_an_experiment_reads_as_approved(name: str) -> None:
    check_against_golden(name, page(OTHERS[name]()))
