"""Check runs that belong to no experiment: a broken file, a fork that waits, what was skipped or missed. Pure.

A required check that nobody reports blocks a merge for ever, so whatever starts nothing says so and why.
"""

import re
from collections.abc import Sequence

from ci_bot.config.problems import Problem, Severity
from ci_bot.records import Annotation, Button, CheckRun
from ci_bot.report import amounts
from ci_bot.report.check_run import LIMIT_BYTES, NAME_PREFIX, TITLE_CHARS, check_run_name
from ci_bot.report.durations import clock
from ci_bot.report.markdown import Ink, code, details, is_url, join_blocks, table
from ci_bot.report.plain import clean, cut
from ci_bot.report.redact import redact

CONFIGURATION_NAME = f"{NAME_PREFIX}config"
APPROVE = Button(label="Approve", description="Run this exact commit", identifier="approve")
REFUSED_RERUN = "A re-run was refused to"
"""How the note begins: the last one takes the place of the one before."""
_TITLE_CHARS = 120
"""Of a title that quotes a problem: the table below says all of it."""
_CLAUSE_END = re.compile(r"`[^`]*`|(; |\. (?=[A-Z]))")
_MESSAGE_CHARS = 4000
_ROW_CHARS = 300
_MOST_ROWS = 200
_SOURCE_CHARS = 15_000


def configuration_check(
    path: str, problems: Sequence[Problem], head_sha: str, *, commit: str = "", details_url: str = ""
) -> CheckRun:
    """The verdict on a configuration file that has errors; nothing runs.

    Args:
        path: the file.
        problems: errors and warnings.
        head_sha: the commit that gets the check run.
        commit: where the file was read; when that is another commit, no line of this one is annotated.
        details_url: the dashboard, for what GitHub has no room for.
    """
    ink = Ink()
    errors = [problem for problem in problems if problem.severity is Severity.ERROR]
    elsewhere = bool(commit) and commit != head_sha
    found = _found(problems)
    blocks = [
        f"**{found}** in {ink.code(path)}{_read_at(commit) if elsewhere else ''}. No experiment was started.",
        _problem_table(problems, ink),
        f"Correct the file and push. To check it before: {code(f'descent check {path}')}.",
    ]
    title = f"{found}; line {errors[0].line}: {_first_clause(errors[0].message)}" if errors else found
    return CheckRun(
        name=CONFIGURATION_NAME,
        head_sha=head_sha,
        status="completed",
        conclusion="failure",
        title=ink.title(title, _TITLE_CHARS),
        summary=join_blocks(blocks, LIMIT_BYTES, "*Shortened: GitHub takes no more.*"),
        annotations=() if elsewhere else tuple(_annotation(problem) for problem in problems),
        details_url=details_url if is_url(details_url) else "",
    )


def configuration_fine(path: str, problems: Sequence[Problem], head_sha: str) -> CheckRun:
    """That a file with an older verdict has no errors now."""
    ink = Ink()
    blocks = [f"{ink.code(path)} has no errors.", _problem_table(problems, ink)]
    return CheckRun(
        name=CONFIGURATION_NAME,
        head_sha=head_sha,
        status="completed",
        conclusion="success",
        title=_found(problems) if problems else "No problems",
        summary=join_blocks(blocks, LIMIT_BYTES, "*Shortened: GitHub takes no more.*"),
    )


def configuration_notes(problems: Sequence[Problem]) -> tuple[str, ...]:
    """A file's warnings as notes of its experiments, in plain text."""
    return tuple(
        f"{problem.path}:{problem.line}: {problem.message}"
        for problem in problems
        if problem.severity is Severity.WARNING
    )


def refused_rerun(by: str, at: float) -> str:
    """That a re-run of an experiment was refused since it has not ended, as a note of it, in plain text."""
    return f"{REFUSED_RERUN} {by} at {clock(at)}: it has not ended yet. Cancel it first, or wait for its end."


def fork_waiting(
    name: str, head_sha: str, number: int, *, path: str, source: str = "", commit: str = "", details_url: str = ""
) -> CheckRun:
    """A fork's commit waits for a person's approval of exactly this commit.

    Args:
        name: the experiment's name.
        head_sha: the fork's commit.
        number: of the pull request.
        path: the configuration file, as the base branch has it.
        source: its text, credentials masked.
        commit: the base branch's commit where it was read.
        details_url: the dashboard.
    """
    ink = Ink()
    blocks = [
        f"**Waits for approval.** Pull request #{number} comes from a fork, so its code runs only when somebody with "
        f"write permission to this repository says so.",
        "Press **Approve** above.",
        f"- It approves the commit {code(head_sha)} and no other: the next push has to be approved again.\n"
        f"- The commit's code then runs as {ink.code(path)} of the base branch{_read_at(commit)} says.\n"
        "- It gets no secrets, an empty /storage and a cache that is thrown away, and is never without isolation.\n"
        "- Look at the whole change first: what runs is everything in that commit.",
        details("The configuration it would run with", ink.block(source, _SOURCE_CHARS, "yaml")) if source else "",
    ]
    return CheckRun(
        name=check_run_name(name),
        head_sha=head_sha,
        status="completed",
        conclusion="action_required",
        title=f"Waits for approval of {head_sha[:7]}",
        summary=join_blocks(blocks, LIMIT_BYTES, "*Shortened: GitHub takes no more.*"),
        buttons=(APPROVE,),
        details_url=details_url if is_url(details_url) else "",
    )


def skipped(name: str, head_sha: str, why: str) -> CheckRun:
    """The commit's author asked for no experiment."""
    return _neutral(name, head_sha, f"Skipped: {why}", "Press Re-run to run it all the same.")


def not_matching(name: str, head_sha: str, tested: str) -> CheckRun:
    """The filters of the configuration leave this branch out.

    Args:
        name: the experiment's name.
        head_sha: the commit.
        tested: the branch or tag that the filters were tested against.
    """
    what = f"Not run: the configuration leaves out {tested}"
    return _neutral(name, head_sha, what, "Its filters `only` and `ignore` decide that.")


def missed(name: str, head_sha: str) -> CheckRun:
    """The event came too long ago to act on it without being asked."""
    return _neutral(name, head_sha, "Missed while Descent was down; press Re-run", "Nothing was started.")


def _neutral(name: str, head_sha: str, title: str, more: str) -> CheckRun:
    return _concluded(name, head_sha, "neutral", title, more)


def _concluded(name: str, head_sha: str, conclusion: str, title: str, more: str) -> CheckRun:
    words, _, reason = title.partition(": ")
    ink = Ink()
    what = f"**{words}**: {ink.text(reason.rstrip('.'))}" if reason else f"**{words}**"
    return CheckRun(
        name=check_run_name(name),
        head_sha=head_sha,
        status="completed",
        conclusion=conclusion,
        title=ink.title(title, TITLE_CHARS),
        summary=f"{what}. {more}",
    )


def _read_at(commit: str) -> str:
    return f" at {code(commit[:7])}" if commit else ""


def _first_clause(message: str) -> str:
    """A problem's message up to where it says what was found, or what to write."""
    ends = (found.start() for found in _CLAUSE_END.finditer(message) if found[1])
    return message[: next(ends, len(message))].rstrip(".")


def _found(problems: Sequence[Problem]) -> str:
    errors = sum(problem.severity is Severity.ERROR for problem in problems)
    warnings = len(problems) - errors
    counts = [amounts.plural(number, noun) for number, noun in ((errors, "error"), (warnings, "warning")) if number]
    return " and ".join(counts) or "No problems"


def _problem_table(problems: Sequence[Problem], ink: Ink) -> str:
    if not problems:
        return ""
    ordered = sorted(problems, key=lambda problem: (problem.severity is not Severity.ERROR, problem.path, problem.line))
    rows = [
        [
            ink.code(problem.path),
            str(problem.line),
            str(problem.column),
            problem.severity.value,
            ink.text(problem.message, _ROW_CHARS),
        ]
        for problem in ordered[: _rows_that_fit(ordered, ink)]
    ]
    if len(rows) < len(ordered):
        rows.append(["", "", "", "", f"… {amounts.count(len(ordered) - len(rows))} more"])
    return table(("File", "Line", "Column", "Severity", "What"), rows)


def _rows_that_fit(problems: Sequence[Problem], ink: Ink) -> int:
    """How many rows leave room for the rest of the summary."""
    room = LIMIT_BYTES - 8000
    for number, problem in enumerate(problems[:_MOST_ROWS]):
        room -= len((ink.code(problem.path) + ink.text(problem.message, _ROW_CHARS)).encode()) + 60
        if room < 0:
            return number
    return min(len(problems), _MOST_ROWS)


def _annotation(problem: Problem) -> Annotation:
    """A remark on one line; GitHub takes columns only where it is one."""
    line, column = max(problem.line, 1), max(problem.column, 1)
    return Annotation(
        path=clean(problem.path),
        start_line=line,
        end_line=line,
        start_column=column,
        end_column=column,
        level="failure" if problem.severity is Severity.ERROR else "warning",
        title=f"Configuration {problem.severity.value}",
        message=cut(redact(clean(problem.message)).strip() or "Wrong here.", _MESSAGE_CHARS),
    )
