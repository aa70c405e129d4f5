"""What the pages, the JSON, the log and the artifacts say."""

import json
from collections.abc import Callable

import pytest

from ci_bot.github.answers import User, UserToken
from ci_bot.store import begin, check_runs, experiments
from launcher.experiment import HeldNode
from launcher.state import Cause, Progress, Signal
from tests.integration.store.values import check_run
from tests.integration.web.conftest import APP, BORN, RUNNING, Site


def test_the_list_shows_the_newest_first_by_state_and_repository(site: Site) -> None:
    site.repository(8, "octo/other")
    ended = site.experiment(*RUNNING, title="The first")
    site.end(ended)
    site.experiment(Signal.COMMIT_RESOLVED, repository_id=8, full_name="octo/other", title="The second")
    with site.opened() as client:
        everything = client.get("/").text
        assert everything.index("The second") < everything.index("The first")
        assert "The first" not in client.get("/?state=unfinished").text
        assert "The second" not in client.get("/?state=STOPPED").text
        assert "The second" not in client.get("/?repository=7").text
        assert "Nothing matches" in client.get("/?state=ERROR").text
        assert client.get("/?state=odd&repository=x&before=²").status_code == 200
        rows = client.get("/?part=rows&state=STOPPED").text
        assert "<html" not in rows
        assert "state=STOPPED&amp;part=rows" in rows


def test_the_list_has_pages(site: Site) -> None:
    for number in range(60):
        site.experiment(head_sha=f"{number:040x}", title=f"Commit {number}.")
    with site.opened() as client:
        first = client.get("/").text
        assert "Commit 59." in first
        assert "Commit 10." in first
        assert "Commit 9." not in first
        assert "/?before=11" in first
        assert "Commit 9." in client.get("/?before=11").text
        listed = client.get("/experiments.json?before=11").json()
        assert [each["id"] for each in listed["experiments"]] == list(range(10, 0, -1))
        assert listed["older"] is None
        assert client.get("/experiments.json").json()["older"] == 11


def test_the_page_tells_all_about_an_experiment_and_no_credential(site: Site) -> None:
    number = site.experiment(*RUNNING, trusted=False, progress=Progress(user_retries=1))
    site.hold(number, HeldNode("k", "n", "gpu-host-a", "10.0.0.1", ("0", "1"), "none"))
    site.write_log(number, b"\x1b[32mok\x1b[0m <script>alert(1)</script> hunter2hunter2\n")
    site.write_artifact(number, "out/model.pkl", b"x" * 2048)
    site.end(number, Cause.COMMAND_EXITED, exit_code=3)
    site.advance(number, Signal.ADMITTED, at=BORN + 70)
    site.advance(number, Signal.ENDED, Cause.HEAD_LOST, at=BORN + 80, detail={"why": "it died"})
    with begin(site.engine) as connection:
        row = check_runs.want(connection, check_run(), repository_id=7, experiment_id=number)
        check_runs.acknowledged(connection, row.id, digest="x", github_id=77, annotations_sent=0, at=BORN)
    with site.opened() as client:
        page = client.get(f"/experiments/{number}").text
    for words in (
        "Train &lt;b&gt;longer&lt;/b&gt;", "attempt 3 of", "Network teardown", "python train.py --epochs 3", "P4000",
        "API_TOKEN", "•••", "gpu-host-a", "GPU 0, 1", "An approved commit of a fork", "Not isolated", "1 h 00 min",
        "https://github.com/octo/digits/runs/77", "https://github.com/octo/digits/commit/aaaa",
    ):  # fmt: skip
        assert words in page, words
    assert "hunter2" not in page
    assert "<script>alert" not in page


def test_why_it_waits_stands_on_the_page(site: Site) -> None:
    number = site.experiment(Signal.COMMIT_RESOLVED)
    with begin(site.engine) as connection:
        experiments.note(connection, number, pending_reason="Waits for 8 GPUs: it is next in line.")
    with site.opened() as client:
        assert "Waits for 8 GPUs: it is next in line." in client.get(f"/experiments/{number}").text


@pytest.mark.parametrize("page", ["/experiments/99", "/experiments/99.json", "/experiments/99/log", "/nowhere",
                                  "/experiments/99/events", "/experiments/" + "9" * 30, "/experiments/-1"])  # fmt: skip
def test_what_is_not_there_is_said_kindly(site: Site, page: str) -> None:
    with site.opened() as client:
        answer = client.get(page)
        assert answer.status_code == 404
        assert "There is no" in answer.text
        assert "Traceback" not in answer.text


def test_the_json_has_the_timeline_and_the_artifacts(site: Site) -> None:
    number = site.experiment(*RUNNING)
    site.write_artifact(number, "a.txt", b"12")
    site.end(number)
    with site.opened() as client:
        said = client.get(f"/experiments/{number}.json").json()
    assert (said["state"], said["reason"]) == ("STOPPED", "The command ended with exit code 0.")
    assert [each["state"] for each in said["transitions"]][-2:] == ["NETWORK_TEARDOWN", "STOPPED"]
    assert said["transitions"][0]["at"] == "2026-09-21T14:13:20.000Z"
    assert said["artifacts"] == [{"path": "a.txt", "size": 2}]
    assert "hunter2" not in json.dumps(said)


def test_the_whole_log_is_text_from_any_offset(site: Site) -> None:
    number = site.experiment(*RUNNING)
    lines = [f"line {place} \x1b[31mred\x1b[0m" for place in range(30_000)]
    site.write_log(number, ("\n".join([*lines, "key hunter2hunter2"])).encode())
    with site.opened() as client:
        answer = client.get(f"/experiments/{number}/log")
        assert answer.headers["content-type"] == "text/plain; charset=utf-8"
        assert answer.text.startswith("line 0 red\nline 1 red\n")
        assert answer.text.endswith("line 29999 red\nkey ***")
        assert answer.text.count("\n") == 30_000
        part = client.get(f"/experiments/{number}/log?offset=100").text
        assert answer.text.endswith(part)
        assert client.get(f"/experiments/{number}/log?offset={10**12}").text == ""
        assert client.get(f"/experiments/{number}/log?offset=-1").status_code == 400
        assert client.get(f"/experiments/{number}/log?attempt=2").status_code == 404


def test_a_cut_is_marked_in_the_whole_log(serve: Callable[..., Site]) -> None:
    site = serve(log_max_bytes=65536)
    site.repository()
    number = site.experiment(*RUNNING)
    site.write_log(number, b"".join(b"line %06d\n" % place for place in range(20_000)))
    with site.opened() as client:
        text = client.get(f"/experiments/{number}/log").text
    assert text.startswith("line 000000\n")
    assert text.endswith("line 019999\n")
    assert text.count("bytes cut") == 1


def test_artifacts_are_saved_and_never_shown(site: Site) -> None:
    number = site.experiment(*RUNNING)
    site.write_artifact(number, "out/pägé.html", b"<script>alert(1)</script>")
    store = site.keep.artifacts(number, 1).directory
    (store / "link").symlink_to("/etc/passwd")
    (store / "up").symlink_to(store.parent, target_is_directory=True)
    site.write_artifact(number, "model.part", b"whole, whatever its name")
    store.with_name("1.part").write_text("half")
    with site.opened() as client:
        answer = client.get(f"/experiments/{number}/artifacts/out/p%C3%A4g%C3%A9.html")
        assert (answer.status_code, answer.content) == (200, b"<script>alert(1)</script>")
        assert answer.headers["content-disposition"].startswith("attachment")
        assert answer.headers["content-type"] == "application/octet-stream"
        assert "sandbox" in answer.headers["content-security-policy"]
        for path in ("link", "up/1/out/x", "out", "nothing", "..%2F..%2Fdescent.db", "%2Fetc%2Fpasswd", "a%00b", ""):
            assert client.get(f"/experiments/{number}/artifacts/{path}").status_code == 404, path
        text = client.get(f"/experiments/{number}").text
        assert "model.part" in text
        assert "1.part" not in text


def test_a_full_disk_and_a_broken_database_make_it_unready(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ci_bot.web.health.ASKED_S", 0.0)
    with site.client() as client:
        assert client.get("/readyz").text == "ready\n"
        monkeypatch.setattr("ci_bot.web.health.DISK_FLOOR_BYTES", 1 << 60)
        answer = client.get("/readyz")
        assert (answer.status_code, "MiB left" in answer.text) == (503, True)
        monkeypatch.undo()
        monkeypatch.setattr("ci_bot.web.health.ASKED_S", 0.0)
        with begin(site.engine) as connection:
            connection.exec_driver_sql("ALTER TABLE mark RENAME TO gone")
        answer = client.get("/readyz")
        assert (answer.status_code, "can't be written" in answer.text) == (503, True)
        assert client.get("/healthz").text == "alive\n"


def test_metrics_count_for_a_session_or_the_token(serve: Callable[..., Site]) -> None:
    site = serve(metrics_token="let-me-count")
    site.repository()
    site.end(site.experiment(*RUNNING))
    with site.client() as client:
        assert client.get("/metrics").status_code == 401
        assert client.get("/metrics", headers={"Authorization": "Bearer wrong"}).status_code == 401
        text = client.get("/metrics", headers={"Authorization": "Bearer let-me-count"}).text
    assert 'descent_experiments{state="STOPPED"} 1' in text
    assert 'descent_experiments{state="RUNNING"} 0' in text
    for name in ("deliveries_received_total", "deliveries_pending", "check_runs_undelivered", "worker_lease_seconds"):
        assert f"\ndescent_{name} " in text
    with site.opened() as client:
        assert client.get("/metrics").status_code == 200


def test_who_logged_in_with_github_needs_the_token_for_metrics(serve: Callable[..., Site]) -> None:
    site = serve(environment_credentials=APP, public_url="http://127.0.0.1:PORT", metrics_token="let-me-count")
    sessions = site.room.sessions
    cookie = sessions.log_in(User(1, "mona"), UserToken("token"), site.room.github())
    with site.client(cookies={sessions.cookie: cookie}) as client:
        assert client.get("/").status_code == 200
        assert client.get("/metrics").status_code == 401
        assert client.get("/metrics", headers={"Authorization": "Bearer let-me-count"}).status_code == 200


def test_the_list_and_the_page_tell_the_same_time_that_it_ran(site: Site) -> None:
    number = site.experiment(*RUNNING)  # RUNNING from second 5 on
    site.advance(number, Signal.ENDED, Cause.SUCCEEDED, BORN + 65, detail={})
    site.advance(number, Signal.RELEASED, None, BORN + 95)  # half a minute of teardown
    with site.opened() as client:
        listing, page = client.get("/").text, client.get(f"/experiments/{number}").text
    assert "1 min 00 s" in listing
    assert "1 min 30 s" not in listing
    assert "1 min 00 s" in page
