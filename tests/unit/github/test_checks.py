"""Check runs are written whole, counted exactly, and found again."""

from typing import Any

from ci_bot.github import GitHub, PostedCheckRun
from ci_bot.records import Annotation, Button, CheckRun
from tests.unit.github.fake import REPO, A, FakeGitHub, call, ok, run_answer

PATH = "/repos/octo/digits"
BUTTON = Button(label="Cancel", description="Stop this experiment", identifier="cancel")


def remarks(count: int) -> tuple[Annotation, ...]:
    return tuple(
        Annotation(
            path="config.yaml", start_line=i, end_line=i, level="failure", title="t", message="m", start_column=1
        )
        for i in range(1, count + 1)
    )


def wanted(**fields: Any) -> CheckRun:
    base: dict[str, Any] = {"name": "descent/digits", "head_sha": A, "status": "completed", "conclusion": "failure"}
    base |= {"title": "Failed", "summary": "why", "external_id": "exp-1", "completed_at": 1_800_000_000.0}
    return CheckRun(
        **(base | {"buttons": (BUTTON,), "started_at": 1_800_000_000.0, "details_url": "http://x/1"} | fields)
    )


def test_a_created_run_gives_its_number(fake: FakeGitHub) -> None:
    fake.on("POST", f"{PATH}/check-runs", ok(run_answer(5, status="completed", conclusion="failure"), 201))
    posted = call(fake, lambda github: github.create_check_run(REPO, wanted()))
    assert posted == PostedCheckRun(5, "descent/digits", A, "exp-1", "completed", "failure", 0, 42)
    assert fake.body()["head_sha"] == A


def test_each_annotation_is_sent_once_however_many_there_are(fake: FakeGitHub) -> None:
    fake.on("POST", f"{PATH}/check-runs", ok(run_answer(5), 201))
    fake.on("PATCH", f"{PATH}/check-runs/5", ok(run_answer(5)))
    run = wanted(annotations=remarks(120))

    async def write(github: GitHub) -> list[int]:
        posted = await github.create_check_run(REPO, run)
        counts = [posted.annotations]
        while posted.annotations < len(run.annotations):
            posted = await github.update_check_run(REPO, posted.id, run, posted.annotations)
            counts.append(posted.annotations)
        return counts

    assert call(fake, write) == [50, 100, 120]
    lines = [a["start_line"] for i in (-3, -2, -1) for a in fake.body(i)["output"]["annotations"]]
    assert lines == list(range(1, 121))


def test_a_later_state_takes_the_buttons_away(fake: FakeGitHub) -> None:
    fake.on("PATCH", f"{PATH}/check-runs/5", ok(run_answer(5)))
    call(fake, lambda github: github.update_check_run(REPO, 5, wanted(buttons=()), 0))
    assert fake.body()["actions"] == []
    assert "head_sha" not in fake.body()


def test_the_run_of_a_lost_acknowledgement_is_found_with_its_annotations(fake: FakeGitHub) -> None:
    runs = [
        run_answer(9, external_id="exp-2"),
        run_answer(5, output={"annotations_count": 50}),
        run_answer(3),
        run_answer(8, app={"id": 1}),
        run_answer(7, name="other"),
    ]
    fake.on("GET", f"{PATH}/commits/{A}/check-runs", ok({"total_count": 5, "check_runs": runs}))
    found = call(fake, lambda github: github.find_check_run(REPO, A, "descent/digits", "exp-1"))
    assert found is not None
    assert (found.id, found.annotations) == (5, 50)
    query = fake.requests[-1].url.params
    assert (query["check_name"], query["filter"], query["app_id"]) == ("descent/digits", "all", "42")


def test_a_run_that_was_never_posted_is_not_found(fake: FakeGitHub) -> None:
    fake.on("GET", f"{PATH}/commits/{A}/check-runs", ok({"total_count": 0, "check_runs": []}))
    assert call(fake, lambda github: github.find_check_run(REPO, A, "descent/digits", "exp-1")) is None


def test_a_suite_lists_its_runs(fake: FakeGitHub) -> None:
    fake.on("GET", f"{PATH}/check-suites/6/check-runs", ok({"total_count": 1, "check_runs": [run_answer(5)]}))
    (run,) = call(fake, lambda github: github.suite_check_runs(REPO, 6))
    assert run.id == 5
