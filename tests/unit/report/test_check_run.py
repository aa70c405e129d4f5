"""The check run of an experiment: true in every state, within GitHub's limits, the same for the same view."""

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from markdown_it.token import Token

from ci_bot.records import DESCENT, CheckRun, Held, HeldNode, Transition, Wish
from ci_bot.report.check_run import LIMIT_BYTES, View, experiment_check_run
from launcher.state import TERMINAL, Cause, Progress, State
from tests.unit.report import parsed
from tests.unit.report.test_markdown import NASTY
from tests.unit.report.views import BEGAN_AT, NODE, URL, VIEWS, experiment, failed, pending, running, stopped, walk


def check_limits(run: CheckRun) -> None:
    """What GitHub refuses, or shows badly."""
    assert 0 < len(run.title) <= 255
    assert "\n" not in run.title
    assert 0 < len(run.summary.encode()) <= LIMIT_BYTES
    assert len(run.text.encode()) <= LIMIT_BYTES
    assert len(run.buttons) <= 3
    for button in run.buttons:
        assert len(button.label) <= 20
        assert len(button.description) <= 40
        assert len(button.identifier) <= 20
    assert (run.status == "completed") == (run.conclusion is not None)
    assert run.details_url == "" or run.details_url.startswith("https://")
    run.model_dump_json()


TEXT = st.one_of(NASTY, NASTY.map(lambda text: text * 40))


@st.composite
def views(draw: st.DrawFn) -> View:
    """Any view, with text from outside that is long and nasty."""
    state, cause = draw(st.sampled_from(State)), draw(st.sampled_from([None, *Cause]))
    fields = ("why", "node", "exit_code", "signal", "used", "limit", "waited", "state", "hint")
    known = experiment(
        state,
        progress=Progress(
            state,
            attempt=draw(st.integers(0, 9)),
            cause=cause,
            intended=draw(st.sampled_from([None, State.PENDING, State.FAILED])),
            user_retries=2,
            user_retries_used=draw(st.integers(0, 2)),
        ),
        detail=draw(st.dictionaries(st.sampled_from(fields), st.one_of(TEXT, st.integers(), st.none()))),
        name=draw(TEXT),
        title=draw(TEXT),
        configuration_path=draw(TEXT),
        notes=tuple(draw(st.lists(TEXT, max_size=14))),
        pending_reason=draw(TEXT),
        wish=draw(st.one_of(st.none(), st.builds(Wish, TEXT, TEXT, st.just(BEGAN_AT)))),
        held=Held(nodes=(HeldNode("k", "id", draw(TEXT), "a", (draw(TEXT),), draw(TEXT)),)),
        trusted=draw(st.booleans()),
    )
    reason = draw(TEXT)
    states = draw(st.lists(st.sampled_from(State), max_size=60))
    log = draw(TEXT).encode("utf-8", "replace")
    return View(
        known,
        tuple(Transition(n, n, state, BEGAN_AT + n, reason) for n, state in enumerate(states)),
        log_tail=log,
        log_size=len(log) + draw(st.integers(0, 1)),
        log_final=draw(st.booleans()),
        artifacts=tuple((draw(TEXT), n) for n in range(draw(st.integers(0, 25)))),
        details_url=draw(st.sampled_from(["", URL, "javascript:alert(1)"])),
        now=BEGAN_AT + draw(st.integers(0, 10**6)),
        machine=draw(TEXT),
        configuration=draw(TEXT),
    )


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(views())
def test_no_view_exceeds_the_limits_or_lets_anything_out(view: View) -> None:
    run = experiment_check_run(view)
    check_limits(run)
    for markdown in (run.summary, run.text):
        assert not parsed.LIVE.search(parsed.visible(markdown))
        folded = "<details><summary>The configuration it ran with</summary>"
        assert parsed.html(markdown) in ([], [folded, "</details>"])
        links = {token.attrs["href"] for token in parsed.tokens(markdown) if token.type == "link_open"}
        assert links <= {URL, f"{URL}/log"}
        assert not any(token.type == "image" for token in parsed.tokens(markdown))
        headings = [after.content for token, after in _pairs(markdown) if token.type == "heading_open"]
        assert all(heading.startswith(("Timeline", "Last lines of the log", "Artifacts")) for heading in headings)


@pytest.mark.parametrize("text", ["@" * 12_000, "|" * 12_000, "中`" * 6_000, "😀" * 12_000, "`" * 12_000])
def test_the_longest_texts_fit(text: str) -> None:
    known = experiment(
        State.FAILED, Cause.WISHED, detail={"why": text}, title=text, notes=(text,) * 12, configuration_path=text
    )
    view = View(
        replace(known, pending_reason=text, notes=tuple(f"{n}{text}" for n in range(12))),
        tuple(Transition(n, n, State.PENDING, BEGAN_AT + n, text) for n in range(60)),
        log_tail=(text[:3000] + "\n").encode() * 30,
        log_final=True,
        artifacts=((text, 1),) * 30,
        details_url=URL,
        machine=text,
        configuration=text,
    )
    run = experiment_check_run(view)
    check_limits(run)
    assert "### Last lines of the log" in run.text


def _pairs(markdown: str) -> list[tuple[Token, Token]]:
    stream = parsed.PARSER.parse(markdown)
    return list(pairwise(stream))


@pytest.mark.parametrize("name", VIEWS)
def test_the_same_view_gives_the_same_bytes_at_any_time(name: str) -> None:
    view = VIEWS[name]()
    later = replace(view, now=view.now + 1, log_tail=view.log_tail if view.log_final else view.log_tail + b"more\n")
    if view.experiment.state in TERMINAL:
        later = replace(later, log_tail=view.log_tail)
    assert experiment_check_run(later) == experiment_check_run(view)
    check_limits(experiment_check_run(view))


def test_a_pending_experiment_is_rewritten_by_the_clock_only_a_few_times() -> None:
    view = pending()
    seen = {
        experiment_check_run(replace(view, now=BEGAN_AT + s)).summary
        for s in [*range(0, 7200, 300), *range(0, 15 * 86_400, 7200)]
    }
    assert len(seen) == 10


@pytest.mark.parametrize(
    ("state", "attempt", "status"),
    [
        (State.CREATED, 0, "queued"),
        (State.PENDING, 0, "queued"),
        (State.PROVISIONING, 1, "in_progress"),
        (State.PENDING, 1, "in_progress"),
        (State.PROVISIONED, 1, "in_progress"),
        (State.NETWORK_SETUP, 1, "in_progress"),
        (State.RUNNING, 2, "in_progress"),
        (State.NETWORK_TEARDOWN, 1, "in_progress"),
    ],
)
def test_it_is_queued_until_the_first_attempt_and_then_in_progress(state: State, attempt: int, status: str) -> None:
    run = experiment_check_run(View(experiment(state, progress=Progress(state, attempt)), ()))
    assert (run.status, run.conclusion, run.completed_at) == (status, None, None)
    assert [button.identifier for button in run.buttons] == ["cancel"]


@pytest.mark.parametrize(
    ("state", "cause", "conclusion"),
    [
        (State.STOPPED, Cause.SUCCEEDED, "success"),
        (State.FAILED, Cause.COMMAND_EXITED, "failure"),
        (State.FAILED, Cause.TIME_LIMIT, "timed_out"),
        (State.CANCELLED, Cause.WISHED, "cancelled"),
        (State.ERROR, Cause.HEAD_LOST, "failure"),
    ],
)
def test_each_end_has_its_conclusion(state: State, cause: Cause, conclusion: str) -> None:
    run = experiment_check_run(View(experiment(state, cause, ended_at=BEGAN_AT + 9), walk(state)))
    assert (run.status, run.conclusion, run.completed_at) == ("completed", conclusion, BEGAN_AT + 9)
    assert run.started_at == BEGAN_AT + 1
    assert run.buttons == ()


def test_an_end_before_any_attempt_has_no_start() -> None:
    progress = Progress(State.FAILED, cause=Cause.UNSATISFIABLE)
    run = experiment_check_run(View(experiment(State.FAILED, progress=progress), walk(State.PENDING)))
    assert run.started_at is None
    assert run.completed_at == BEGAN_AT + 4


def test_the_log_is_shown_when_it_is_complete_and_not_before() -> None:
    assert experiment_check_run(running()).text == ""
    assert "epoch 1" in experiment_check_run(replace(running(), log_final=True)).text


def test_a_log_whose_end_is_missing_says_so() -> None:
    assert "did not arrive" in experiment_check_run(replace(stopped(), log_final=False)).text


def test_notes_stand_directly_below_what_happened() -> None:
    lines = experiment_check_run(stopped()).summary.split("\n")
    assert lines[0].startswith("**Stopped (success)**")
    assert lines[1].startswith("**Note:** The container nvidia/cuda:12 was not used")


def test_a_run_without_isolation_or_from_a_fork_says_so_once() -> None:
    held = Held(nodes=(replace(NODE, isolation="none"), replace(NODE, host="host-b", isolation="none")))
    summary = experiment_check_run(View(experiment(State.RUNNING, held=held, trusted=False), ())).summary
    assert summary.count("Not isolated") == 1
    assert summary.count("commit of a fork") == 1
    assert "`host-a` (GPU 0, 1), `host-b`" in summary


def test_a_wish_shows_before_it_is_granted_and_takes_the_button_away() -> None:
    wish = Wish("octo-dev", "not needed", BEGAN_AT)
    run = experiment_check_run(replace(running(), experiment=experiment(State.RUNNING, wish=wish)))
    assert run.title == "Running – to be cancelled: not needed"
    assert "asked by octo-dev: not needed" in run.summary
    assert run.buttons == ()


@pytest.mark.parametrize(("by", "how"), [("octo-dev", "by octo-dev"), ("the command line", "from the command line")])
def test_a_summary_says_only_once_that_somebody_cancels_and_how(by: str, how: str) -> None:
    wish = Wish(by, f"cancelled {how}", BEGAN_AT)
    waits = experiment_check_run(replace(running(), experiment=experiment(State.RUNNING, wish=wish))).summary
    assert waits.splitlines()[0].endswith(f"the command runs. To be cancelled {how}.")
    ends = Progress(State.NETWORK_TEARDOWN, 1, Cause.WISHED, State.CANCELLED)
    ending = experiment(State.NETWORK_TEARDOWN, wish=wish, progress=ends, detail={"why": wish.why})
    assert experiment_check_run(View(ending, ())).summary.lower().count("cancelled") == 1
    ended = replace(ending, progress=Progress(State.CANCELLED, 1, Cause.WISHED))
    assert experiment_check_run(View(ended, running().transitions)).summary.startswith(f"**Cancelled {how}**")
    assert experiment_check_run(View(ended, ())).summary.splitlines()[0] == f"**Cancelled {how}**."


def test_links_to_the_dashboard_do_not_promise_to_cancel_or_run_by_themselves() -> None:
    assert "[Cancel on the dashboard](" in experiment_check_run(running()).summary
    assert "[Re-run on the dashboard](" in experiment_check_run(stopped()).summary


@pytest.mark.parametrize(("by", "shown"), [(DESCENT, "sked by Descent"), ("descent", "sked by descent")])
def test_what_descent_itself_cancels_is_told_from_what_a_person_of_that_name_does(by: str, shown: str) -> None:
    wish = Wish(by, "superseded by b2c3d4e", BEGAN_AT)
    for state in (State.RUNNING, State.CANCELLED):
        told = experiment_check_run(replace(running(), experiment=experiment(state, wish=wish))).summary
        assert shown in told
        assert "descent[app]" not in told


def test_a_teardown_says_what_follows() -> None:
    progress = Progress(State.NETWORK_TEARDOWN, 1, Cause.COMMAND_EXITED, State.PENDING, 1, 1)
    view = View(experiment(State.NETWORK_TEARDOWN, progress=progress, detail={"exit_code": 3}), ())
    run = experiment_check_run(view)
    assert run.title == "Network teardown – exit code 3, then attempt 2 of 2"
    assert "The attempt ended: The command exited with code 3. Another attempt follows." in run.summary


def test_many_attempts_keep_the_first_and_the_last_of_the_timeline() -> None:
    history = tuple(Transition(n, n, State.PENDING, BEGAN_AT + n, f"reason {n}.") for n in range(5000))
    summary = experiment_check_run(View(experiment(State.PENDING), history)).summary
    assert summary.count("\n| 2026") == 32
    assert all(f"reason {n}." in summary for n in (0, 7, 4976, 4999))
    assert "4\u202f968 transitions more" in summary


def test_given_secrets_are_masked_wherever_text_comes_in() -> None:
    secret = "hunter2-hunter2"
    base = failed()
    known = replace(
        base.experiment, title=secret, notes=(secret,), detail={"why": secret}, configuration_path=secret, name=secret
    )
    known = replace(known, progress=replace(known.progress, cause=Cause.PEER_UNREACHABLE))
    view = replace(
        base,
        experiment=known,
        transitions=(Transition(0, 1, State.FAILED, BEGAN_AT, secret),),
        log_tail=f"it is {secret}\n".encode(),
        log_size=len(secret) + 7,
        artifacts=((secret, 1),),
        machine=secret,
        configuration=secret,
        secrets=(secret,),
    )
    run = experiment_check_run(view)
    # The name is what branch protection asks for; it is written in the repository for all to read.
    assert secret not in run.model_dump_json(exclude={"name"})


def test_a_name_stays_the_same_from_commit_to_commit() -> None:
    assert experiment_check_run(running()).name == "descent/digits"
    assert experiment_check_run(running()).external_id == "42"
