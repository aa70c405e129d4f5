"""Check runs and suites: GitHub's rules, its events and the buttons."""

from typing import Any

import pytest

from tests.integration.local_github.conftest import Place

OUTPUT = {"title": "Running", "summary": "fine"}


def note(line: int = 1, **more: Any) -> dict[str, Any]:
    return {"path": "a", "start_line": line, "end_line": line, "annotation_level": "warning", "message": "m", **more}


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"name": None}, "not a string"),
        ({"status": "running"}, "not a member"),
        ({"status": "waiting"}, "not a member"),
        ({"status": "completed"}, "conclusion is required"),
        ({"conclusion": "stale"}, "not a member"),
        ({"output": {"summary": "s"}}, 'title" wasn'),
        ({"output": {"title": "t"}}, 'summary" wasn'),
        ({"output": {**OUTPUT, "summary": "x" * 65536}}, "65535"),
        ({"output": {**OUTPUT, "text": "x" * 65536}}, "65535"),
        ({"output": {**OUTPUT, "text": "é" * 32768}}, "65535"),
        ({"output": {**OUTPUT, "annotations": [note()] * 51}}, "No more than 50"),
        ({"output": {**OUTPUT, "annotations": [note(annotation_level="error")]}}, "not a member"),
        ({"output": {**OUTPUT, "annotations": [note(title="x" * 256)]}}, "too_long"),
        ({"output": {**OUTPUT, "annotations": [note(message="x" * 65537)]}}, "too_long"),
        ({"output": {**OUTPUT, "annotations": [note(end_line=2, start_column=1)]}}, "columns"),
        ({"output": {**OUTPUT, "annotations": [note(path="/a")]}}, "relative"),
        ({"actions": [{"label": "a", "description": "b", "identifier": "c"}] * 4}, "No more than 3"),
        ({"actions": [{"label": "a" * 21, "description": "b", "identifier": "c"}]}, "20 characters"),
        ({"actions": [{"label": "a", "description": "b" * 41, "identifier": "c"}]}, "40 characters"),
        ({"actions": [{"label": "a", "description": "b", "identifier": "c" * 21}]}, "20 characters"),
        ({"actions": [{"label": "a", "description": "b"}]}, 'identifier" wasn'),
        ({"details_url": "javascript:alert(1)"}, "http"),
        ({"started_at": "yesterday"}, "date-time"),
        ({"state": "queued"}, "not a permitted key"),
        ({"head_sha": "f" * 40}, "No commit found for SHA"),
        ({"head_sha": "main"}, "No commit found for SHA"),
    ],
)
def test_github_refuses(shared: Place, wrong: dict[str, Any], words: str) -> None:
    answer = shared.repo("POST", "/check-runs", json={"name": "n", "head_sha": shared.head, **wrong})
    assert answer.status_code == 422
    assert words in str(answer.json())
    assert answer.json()["documentation_url"]


def test_the_limits_themselves_are_allowed(shared: Place) -> None:
    action = {"label": "l" * 20, "description": "d" * 40, "identifier": "i" * 20}
    output = {"title": "t", "summary": "x" * 65535, "text": "é" * 32767, "annotations": [note()] * 50}
    run = shared.check_run(shared.head, "brim", output=output, actions=[action] * 3)
    assert run["output"]["annotations_count"] == 50


def test_a_run_lives_from_queued_to_completed_and_stays_completed(shared: Place) -> None:
    run = shared.check_run(shared.head, "life", status="queued", external_id="7", details_url="http://x/7")
    path = f"/check-runs/{run['id']}"
    assert (run["status"], run["conclusion"], run["external_id"], run["started_at"]) == ("queued", None, "7", None)
    assert shared.repo("PATCH", path, json={"output": {"title": "t"}}).status_code == 422
    begun = shared.repo("PATCH", path, json={"status": "in_progress", "output": OUTPUT}).json()
    assert (begun["status"], begun["output"]["title"], begun["started_at"] is None) == ("in_progress", "Running", False)
    ended = shared.repo("PATCH", path, json={"conclusion": "success"}).json()
    assert (ended["status"], ended["conclusion"], ended["output"]["title"]) == ("completed", "success", "Running")
    back = shared.repo("PATCH", path, json={"status": "in_progress"}).json()
    assert (back["status"], back["conclusion"]) == ("completed", "success")
    changed = shared.repo("PATCH", path, json={"status": "completed", "conclusion": "failure"}).json()
    assert changed["conclusion"] == "failure"
    assert shared.repo("GET", path).json() == changed


def test_annotations_are_appended_by_each_update(shared: Place) -> None:
    run = shared.check_run(shared.head, "notes", output={**OUTPUT, "annotations": [note(1), note(2)]})
    more = {**OUTPUT, "annotations": [note(3, title="third", start_column=1, end_column=2)]}
    after = shared.repo("PATCH", f"/check-runs/{run['id']}", json={"output": more}).json()
    assert after["output"]["annotations_count"] == 3
    listed = shared.repo("GET", f"/check-runs/{run['id']}/annotations?per_page=2&page=2")
    assert [each["start_line"] for each in listed.json()] == [3]
    assert 'rel="prev"' in listed.headers["link"]


def test_a_listing_shows_the_newest_of_each_name_or_all(shared: Place) -> None:
    first, second = shared.check_run(shared.head, "twice"), shared.check_run(shared.head, "twice", conclusion="neutral")

    def listed(query: str) -> list[int]:
        body = shared.repo("GET", f"/commits/main/check-runs?check_name=twice{query}").json()
        assert body["total_count"] == len(body["check_runs"])
        return [run["id"] for run in body["check_runs"]]

    assert listed("") == [second["id"]]
    assert listed("&filter=all") == [second["id"], first["id"]]
    assert listed("&filter=all&status=queued") == [first["id"]]
    assert listed(f"&app_id={shared.app['id']}") == [second["id"]]
    assert listed("&app_id=1") == []
    suite = first["check_suite"]["id"]
    runs = shared.repo("GET", f"/check-suites/{suite}/check-runs?check_name=twice").json()["check_runs"]
    assert [run["id"] for run in runs] == [second["id"]]
    assert shared.repo("GET", f"/commits/{'e' * 40}/check-runs").status_code == 422


def test_over_a_thousand_of_one_name_the_oldest_go(shared: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ci_bot.local_github.checks.MOST_SAME_NAME", 2)
    runs = [shared.check_run(shared.head, "many") for _ in range(3)]
    kept = shared.repo("GET", "/commits/main/check-runs?check_name=many&filter=all").json()["check_runs"]
    assert [run["id"] for run in kept] == [runs[2]["id"], runs[1]["id"]]
    assert shared.repo("GET", f"/check-runs/{runs[0]['id']}").status_code == 404


def test_another_app_may_read_a_run_and_not_change_it(shared: Place) -> None:
    run = shared.check_run(shared.head, "mine")
    other = shared.control.create_app(f"Other {shared.owner}", None)
    installed = shared.control.install(other["id"], shared.owner)
    mine = shared.app, shared.installation
    shared.app, shared.installation = other, installed
    try:
        token = shared.new_token()
    finally:
        shared.app, shared.installation = mine
    assert shared.repo("GET", f"/check-runs/{run['id']}", token=token).status_code == 200
    assert shared.repo("PATCH", f"/check-runs/{run['id']}", token=token, json={"name": "x"}).status_code == 403


def test_created_and_completed_are_told_and_the_suite_follows_its_runs(place: Place) -> None:
    sha = place.push({"a": "1"})
    one = place.check_run(sha, "one")
    two = place.check_run(sha, "two", status="in_progress")
    assert place.receiver.wait("check_run.created", 2)[0].payload["check_run"]["check_suite"]["head_sha"] == sha
    suite = f"/check-suites/{one['check_suite']['id']}"
    assert place.repo("GET", suite).json()["status"] == "in_progress"
    place.repo("PATCH", f"/check-runs/{one['id']}", json={"conclusion": "success"})
    place.receiver.wait("check_run.completed")
    place.repo("PATCH", f"/check-runs/{two['id']}", json={"conclusion": "timed_out"})
    place.receiver.wait("check_run.completed", 2)
    told = place.receiver.wait("check_suite.completed")[0].payload["check_suite"]
    assert (told["status"], told["conclusion"]) == ("completed", "timed_out")
    place.repo("PATCH", f"/check-runs/{two['id']}", json={"conclusion": "success"})
    assert place.repo("GET", suite).json()["conclusion"] == "success"


def test_buttons_and_reruns_send_their_events_with_who_pressed(place: Place) -> None:
    sha = place.push({"a": "1"})
    button = {"label": "Cancel", "description": "Stop it", "identifier": "cancel"}
    run = place.check_run(sha, actions=[button])
    place.control.click(run["id"], "cancel", user="someone")
    pressed = place.receiver.wait("check_run.requested_action")[0].payload
    assert pressed["requested_action"] == {"identifier": "cancel"}
    assert (pressed["check_run"]["id"], pressed["sender"]["login"]) == (run["id"], "someone")
    place.control.rerun(check_run_id=run["id"])
    assert place.receiver.wait("check_run.rerequested")[0].payload["sender"]["login"] == place.owner
    place.control.rerun(check_suite_id=run["check_suite"]["id"])
    again = place.receiver.wait("check_suite.rerequested")[0].payload
    assert again["check_suite"]["head_sha"] == sha
    assert again["check_suite"]["id"] == run["check_suite"]["id"]


def test_a_person_cannot_write_checks_and_neither_can_an_app_without_the_permission(place: Place) -> None:
    sha = place.push({"a": "1"})
    body = {"name": "n", "head_sha": sha}
    reader = place.new_token(permissions={"checks": "read"})
    refused = place.repo("POST", "/check-runs", token=reader, json=body)
    assert (refused.status_code, refused.headers["X-Accepted-GitHub-Permissions"]) == (403, "checks=write")
    assert refused.json()["message"] == "Resource not accessible by integration"
    assert place.repo("POST", "/check-runs", token=place.jwt(), json=body).status_code == 401
    assert place.repo("POST", "/check-runs", token="", json=body).status_code == 404
