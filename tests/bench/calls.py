"""What an experiment costs of GitHub's API: the calls that a local GitHub answered, counted."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

from ci_bot.records import Experiment, Transition
from ci_bot.report.check_run import View, experiment_check_run
from launcher.state import State
from tests.bench.figures import Figure, Reach, Row
from tests.bench.ground import alone, ended, file, rounds
from tests.e2e.load import undelivered
from tests.e2e.stack import Repo, Stack, wait_for

ROUNDS = 5
SHORT_S = 1
LONG_S = 20
TEN_MINUTES_S = 600
WRITES, READS = 4, 2
AN_HOUR = 200
"""Experiments."""
CONTENT_PER_MINUTE, CONTENT_PER_HOUR = 80, 500
QUIET_S = 3.0
"""After the end nothing more may be called; so long it is listened for."""
CODE = frozenset({"repos/download-tarball-archive", "codeload"})
"""The archive, and where GitHub says that it lies."""


@dataclass(frozen=True)
class Calls:
    """What was asked for one experiment, its code apart."""

    creations: int
    writes: int
    reads: int
    code: int
    took_s: float
    names: tuple[str, ...]


def of_a_push(stack: Stack, repo: Repo, seconds: float) -> Calls:
    """Of a push to the default branch whose command runs so long."""
    before = _last(stack)
    sha = repo.push(file(f"sleep {seconds}"), message=f"{time.time_ns()}")
    return _counted(stack, repo, sha, before)


def of_a_pull_request(stack: Stack, repo: Repo, number: int) -> Calls:
    """Of a new pull request from a branch of the repository: the push to it and the request."""
    branch = f"topic-{number}"
    before = _last(stack)
    sha = repo.push(file(f"sleep {SHORT_S}"), branch=branch, message=f"{time.time_ns()}")
    stack.control.open_pull_request(repo.full_name, branch)
    repo.git("reset", "--quiet", "--hard", "HEAD~1")
    return _counted(stack, repo, sha, before)


def _last(stack: Stack) -> int:
    return max((int(each["id"]) for each in stack.control.requests()), default=0)


def _counted(stack: Stack, repo: Repo, sha: str, before: int) -> Calls:
    done = ended(repo, sha)
    wait_for(lambda: undelivered(stack) == 0, 30)
    time.sleep(QUIET_S)
    calls = [each for each in stack.control.requests(before) if repo.full_name in each["path"]]
    assert all(200 <= each["status"] < 400 for each in calls), calls
    reads = [each for each in calls if each["method"] == "GET"]
    writes = [each for each in calls if each["method"] != "GET"]
    code = [each for each in reads if each["operation"] in CODE]
    took_s = done.at(State.STOPPED) - done.at(State.CREATED)
    names = tuple(each["operation"] for each in calls)
    creations = sum(each["method"] == "POST" for each in writes)
    return Calls(creations, len(writes), len(reads) - len(code), len(code), took_s, names)


def _told_in_ten_minutes(experiment: Experiment, timeline: tuple[Transition, ...]) -> int:
    """How many different check runs are drawn of a command that runs on and on, looked at in each second."""
    running = next(each for each in timeline if each.state is State.RUNNING)
    until = timeline[: timeline.index(running) + 1]
    drawn = {
        experiment_check_run(View(experiment, until, now=running.at + second)).model_dump_json()
        for second in range(TEN_MINUTES_S)
    }
    return len(drawn)


def _still_running(stack: Stack, repo: Repo) -> int:
    sha = repo.push(file(f"sleep {LONG_S}"), message="runs")
    experiment = repo.wait(sha, lambda each: each.state is State.RUNNING)
    drawn = _told_in_ten_minutes(experiment, tuple(stack.timeline(experiment.id)))
    repo.checks(sha)
    return drawn


def measure() -> Iterator[Row]:
    """The row."""
    with alone() as stack:
        repo = stack.repository("calls")
        repo.push(file("true"), message="the first")
        ended(repo, repo.git("rev-parse", "HEAD"))
        short, long, pulls = [], [], []
        for number in range(rounds(ROUNDS)):
            short.append(of_a_push(stack, repo, SHORT_S))
            long.append(of_a_push(stack, repo, LONG_S))
            pulls.append(of_a_pull_request(stack, repo, number))
        drawn = _still_running(stack, repo)
    yield _row(short, long, pulls, drawn)


def _row(short: list[Calls], long: list[Calls], pulls: list[Calls], drawn: int) -> Row:
    def figure(what: str, of: list[Calls], name: str) -> Figure:
        return Figure(what, "", tuple(float(getattr(each, name)) for each in of))

    most = max(each.writes for each in (*short, *long))
    most_read = max(each.reads for each in (*short, *long))
    created = max(each.creations for each in (*short, *long))
    code = max(each.code for each in (*short, *long))
    figures = (
        figure("short: writes", short, "writes"),
        figure("short: reads besides the code", short, "reads"),
        Figure("short: CREATED to STOPPED", "s", tuple(each.took_s for each in short)),
        figure("long: writes", long, "writes"),
        figure("long: reads besides the code", long, "reads"),
        figure("pull request: writes", pulls, "writes"),
        figure("pull request: reads besides the code", pulls, "reads"),
    )
    transitions = Figure("one write per transition", "", (8.0,))
    return Row(
        "GitHub calls",
        figures,
        (transitions,),
        (
            Reach(f"writes ≤ {WRITES}", most, WRITES),
            Reach(f"reads besides the code ≤ {READS}", most_read, READS),
            Reach(f"{AN_HOUR} an hour: creations an hour ≤ {CONTENT_PER_HOUR}", AN_HOUR * created, CONTENT_PER_HOUR),
            Reach(
                f"{AN_HOUR} an hour: all writes a minute ≤ {CONTENT_PER_MINUTE}",
                AN_HOUR * most / 60,
                CONTENT_PER_MINUTE,
            ),
        ),
        _notes(short, long, pulls, drawn, hourly=AN_HOUR * most, code=code),
    )


def _notes(
    short: list[Calls], long: list[Calls], pulls: list[Calls], drawn: int, *, hourly: int, code: int
) -> tuple[str, ...]:
    def named(calls: Calls) -> str:
        return ", ".join(calls.names)

    return (
        f"Counted in the local GitHub's log of requests; the command sleeps {SHORT_S} s (short) or {LONG_S} s (long). "
        f"Besides: {code} requests for one download of the code, and one installation token an hour.",
        f"10 minutes are not waited for: a check run is written only when what is drawn differs, and of a command "
        f"that runs, drawn in each of {TEN_MINUTES_S} seconds, there {'is' if drawn == 1 else 'are'} {drawn}.",
        f"GitHub's limits of {CONTENT_PER_MINUTE} a minute and {CONTENT_PER_HOUR} an hour are for requests that create "
        f"content; of ours these are the POSTs. Were each write counted, {AN_HOUR} experiments would be {hourly} an "
        "hour; the report loop then waits as GitHub says, and the newest state is shown.",
        f"short: {named(short[-1])}",
        f"long: {named(long[-1])}",
        f"pull request: {named(pulls[-1])}",
    )
