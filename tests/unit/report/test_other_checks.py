"""What starts nothing says so, on the right lines, within GitHub's limits."""

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ci_bot.config.problems import Kind, Problem, Severity
from ci_bot.records import CheckRun
from ci_bot.report import other_checks
from tests.unit.report import parsed
from tests.unit.report.test_check_run import TEXT, check_limits
from tests.unit.report.views import HEAD_SHA, URL


def problem(
    line: int = 3, severity: Severity = Severity.ERROR, message: str = "wrong", path: str = "c.yaml"
) -> Problem:
    """A problem at column 5."""
    return Problem(path=path, line=line, column=5, severity=severity, kind=Kind.VALUE, message=message)


def test_every_problem_is_an_annotation_on_its_line() -> None:
    problems = [problem(n) for n in range(1, 301)] + [problem(7, Severity.WARNING)]
    run = other_checks.configuration_check("c.yaml", problems, HEAD_SHA)
    assert (run.name, run.conclusion) == ("descent/config", "failure")
    assert [a.start_line for a in run.annotations] == [*range(1, 301), 7]
    assert {a.level for a in run.annotations} == {"failure", "warning"}
    assert all(a.end_line == a.start_line and a.end_column == a.start_column == 5 for a in run.annotations)
    assert run.title == "300 errors and 1 warning; line 1: wrong"
    assert "… 101 more" in run.summary
    check_limits(run)


@pytest.mark.parametrize(
    ("message", "title"),
    [
        (
            "`type` must be one of single, multi-grpc; found `a; b`. Write, for example, `type: single`.",
            "1 error; line 3: type must be one of single, multi-grpc",
        ),
        ("`target` has `0.0..0.5; 1`. Write another.", "1 error; line 3: target has 0.0..0.5; 1"),
        ("the file is empty. Write `version: 1` and so on.", "1 error; line 3: the file is empty"),
        ("wrong " * 100, "1 error; line 3: " + "wrong " * 100),
    ],
)
def test_a_title_is_short_and_plain_since_github_shows_no_markdown_there(message: str, title: str) -> None:
    run = other_checks.configuration_check("c.yaml", [problem(message=message)], HEAD_SHA)
    assert run.title == title if len(title) <= 120 else len(run.title) <= 120
    assert "`" not in run.title
    assert run.annotations[0].message.startswith(message[:40])


def test_a_file_of_another_commit_gets_no_annotations_here() -> None:
    run = other_checks.configuration_check("c.yaml", [problem()], HEAD_SHA, commit="f" * 40)
    assert run.annotations == ()
    assert "in `c.yaml` at `fffffff`" in run.summary
    assert len(other_checks.configuration_check("c.yaml", [problem()], HEAD_SHA, commit=HEAD_SHA).annotations) == 1


def test_warnings_are_notes_of_the_experiments() -> None:
    problems = [problem(), problem(9, Severity.WARNING, "odd")]
    assert other_checks.configuration_notes(problems) == ("c.yaml:9: odd",)


def test_a_fork_waits_for_its_exact_commit() -> None:
    run = other_checks.fork_waiting("digits", HEAD_SHA, 7, path="c.yaml", source="token: •••", commit="f" * 40)
    assert (run.name, run.conclusion) == ("descent/digits", "action_required")
    assert [button.identifier for button in run.buttons] == ["approve"]
    assert HEAD_SHA in run.summary
    assert parsed.fenced(run.summary) == ["token: •••\n"]
    check_limits(run)


CONCLUDED: list[tuple[Callable[[str, str], CheckRun], str]] = [
    (lambda name, why: other_checks.skipped(name, HEAD_SHA, why), "neutral"),
    (lambda name, why: other_checks.not_matching(name, HEAD_SHA, why), "neutral"),
    (lambda name, why: other_checks.missed(name, HEAD_SHA), "neutral"),
]


@pytest.mark.parametrize(("make", "conclusion"), CONCLUDED)
def test_what_is_not_run_is_concluded_with_the_reason(make: Callable[[str, str], CheckRun], conclusion: str) -> None:
    run = make("digits", "because")
    assert (run.name, run.status, run.conclusion) == ("descent/digits", "completed", conclusion)
    assert run.buttons == ()
    check_limits(run)


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(TEXT, TEXT, st.lists(st.builds(problem, st.integers(0, 9), st.sampled_from(Severity), TEXT, TEXT), max_size=12))
def test_no_text_from_outside_gets_out_or_exceeds_the_limits(name: str, why: str, problems: list[Problem]) -> None:
    runs = [make(name, why) for make, _ in CONCLUDED]
    runs.append(other_checks.configuration_check(why, problems, HEAD_SHA))
    runs.append(other_checks.configuration_fine(why, problems, HEAD_SHA))
    waiting = other_checks.fork_waiting(name, HEAD_SHA, 7, path=why, source=why, details_url=URL)
    runs.append(waiting.model_copy(update={"summary": waiting.summary.replace("Pull request #7", "")}))
    for run in runs:
        check_limits(run)
        assert not parsed.LIVE.search(parsed.visible(run.summary))
        folded = "<details><summary>The configuration it would run with</summary>"
        assert parsed.html(run.summary) in ([], [folded, "</details>"])
        assert not any(token.type in ("link_open", "image", "heading_open") for token in parsed.tokens(run.summary))
        for annotation in run.annotations:
            assert annotation.start_line >= 1
            assert 0 < len(annotation.message.encode()) < 64 * 1024
            assert len(annotation.title) <= 255


def test_a_configuration_check_masks_tokens_in_messages() -> None:
    token = "ghp_" + "a1B2" * 9
    run = other_checks.configuration_check("c.yaml", [problem(message=f"found {token}")], HEAD_SHA)
    assert token not in run.model_dump_json()
