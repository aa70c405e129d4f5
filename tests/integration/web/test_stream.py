"""Server-sent events: every line once, in order, whoever comes when."""

import html
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx2 as httpx
import pytest

from ci_bot.github.answers import User, UserToken
from ci_bot.web import live, stream
from launcher.state import Cause, Signal
from tests.integration.web.conftest import APP, BORN, RUNNING, Site

Event = tuple[str, str, Any]


def events(answer: httpx.Response) -> Iterator[Event]:
    """Name, id and content of each event."""
    fields: dict[str, str] = {}
    for line in answer.iter_lines():
        if line and not line.startswith(":"):
            name, _, value = line.partition(": ")
            fields[name] = value
        elif not line and "event" in fields:
            yield fields["event"], fields.get("id", ""), json.loads(fields["data"])
            fields = {}


def text_of(content: Any) -> str:
    return html.unescape(re.sub("<[^>]*>", "", content.get("html", "")))


def follow(site: Site, number: int, until: Any, query: str = "", **headers: str) -> list[Event]:
    """Events until one that is as wanted, or the end of the stream."""
    found: list[Event] = []
    with (
        site.opened() as client,
        client.stream(
            "GET", f"/experiments/{number}/events{query}", headers={"Accept": "text/event-stream", **headers}
        ) as a,
    ):
        assert a.headers["content-type"].startswith("text/event-stream")
        for event in events(a):
            found.append(event)
            if until(event):
                break
    return found


def to_the_end(event: Event) -> bool:
    return event[0] == "end"


def test_an_ended_experiment_gives_its_state_its_log_and_the_end(site: Site) -> None:
    number = site.experiment(*RUNNING)
    site.write_log(number, b"one\ntwo\nno line end")
    site.end(number)
    found = follow(site, number, to_the_end)
    assert [name for name, _, _ in found] == ["state", "log", "end"]
    assert found[0][2]["state"] == "STOPPED"
    assert (text_of(found[1][2]), found[1][1]) == ("one\ntwo\nno line end", "1-19")


def test_states_and_lines_come_as_they_happen(site: Site) -> None:
    number = site.experiment(*RUNNING)

    def happen() -> None:
        for place in range(20):
            site.write_log(number, b"line %d\n" % place)
            time.sleep(0.05)
        site.write_log(number, b"10%\r90%")
        site.end(number)

    writer = threading.Thread(target=happen)
    writer.start()
    found = follow(site, number, to_the_end)
    writer.join()
    assert "".join(text_of(content) for name, _, content in found if name == "log") == (
        "".join(f"line {place}\n" for place in range(20)) + "90%"
    )
    states = [content["state"] for name, _, content in found if name == "state"]
    assert (states[0], states[-1]) == ("RUNNING", "STOPPED")


def test_who_reconnects_goes_on_where_they_were(site: Site) -> None:
    number = site.experiment(*RUNNING)
    site.write_log(number, b"one\ntwo\nthr")
    first = follow(site, number, lambda e: e[0] == "log" and "partial" in e[2])
    place = next(id for name, id, _ in first if id)
    assert place == "1-8"
    assert first[-1][2] == {"attempt": 1, "partial": "thr"}
    site.write_log(number, b"ee\nfour\n")
    site.end(number)
    second = follow(site, number, to_the_end, **{"Last-Event-ID": place})
    assert "".join(text_of(content) for name, _, content in second if name == "log") == "three\nfour\n"


@pytest.mark.parametrize("place", ["1-999999999", "9-3", "junk", "1--1"])
def test_a_made_up_place_breaks_nothing(site: Site, place: str) -> None:
    number = site.experiment(*RUNNING)
    site.write_log(number, b"one\n")
    site.end(number)
    assert follow(site, number, to_the_end, **{"Last-Event-ID": place})[-1][0] == "end"


def test_the_next_attempt_has_a_log_of_its_own(site: Site) -> None:
    number = site.experiment(*RUNNING)
    site.write_log(number, b"first try\n")
    followed = threading.Event()

    def until(event: Event) -> bool:
        if event[0] == "log":
            followed.set()
        return to_the_end(event)

    def happen() -> None:
        assert followed.wait(30)
        site.write_log(number, b"its last words\n")
        site.end(number, Cause.NODE_LOST, node="host-a", why="it is gone")
        for place, signal in enumerate(RUNNING[1:]):
            site.advance(number, signal, at=BORN + 70 + place)
        site.write_log(number, b"second try\n", attempt=2)
        site.end(number, at=BORN + 90)

    writer = threading.Thread(target=happen)
    writer.start()
    found = follow(site, number, until)
    writer.join()
    said = {1: "", 2: ""}
    for name, _, content in found:
        if name == "log":
            said[content["attempt"]] += text_of(content)
    assert said == {1: "first try\nits last words\n", 2: "second try\n"}


def test_many_viewers_share_one_watcher_and_all_see_everything(site: Site) -> None:
    number = site.experiment(*RUNNING)
    seen: list[str] = []

    def watch() -> None:
        found = follow(site, number, to_the_end)
        seen.append("".join(text_of(content) for name, _, content in found if name == "log"))

    viewers = [threading.Thread(target=watch) for _ in range(12)]
    for viewer in viewers:
        viewer.start()
    written = ""
    for place in range(30):
        line = f"{place} {'x' * 2000}\n"
        site.write_log(number, line.encode())
        written += line
        time.sleep(0.02)
    site.end(number)
    for viewer in viewers:
        viewer.join()
    assert seen == [written] * 12


def test_a_flood_is_skipped_with_a_mark_and_its_end_is_seen(site: Site) -> None:
    number = site.experiment(*RUNNING)
    site.write_log(number, b"".join(b"line %07d\n" % place for place in range(400_000)))
    site.end(number)
    found = follow(site, number, to_the_end)
    text = "".join(text_of(content) for name, _, content in found if name == "log")
    assert "not shown here" in text
    assert text.endswith("line 0399999\n")
    assert len(text) < live.KEPT_BYTES


def test_a_stream_ends_when_the_right_to_read_does(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "RIGHTS_S", 0.0)

    async def no(*_: Any) -> bool:
        return answers.pop() if answers else False

    answers = [True]
    monkeypatch.setattr("ci_bot.web.rights.KeyHolder.may_read", no)
    number = site.experiment(*RUNNING)
    assert "end" not in [name for name, _, _ in follow(site, number, to_the_end)]


def test_a_stream_ends_when_its_person_logs_out(serve: Callable[..., Site], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "SESSION_S", 0.0)

    async def yes(*_: Any) -> bool:
        return True

    monkeypatch.setattr("ci_bot.web.rights.Person.may_read", yes)
    site = serve(environment_credentials=APP, public_url="http://127.0.0.1:PORT")
    site.repository()
    number = site.experiment(*RUNNING)
    sessions = site.room.sessions
    cookie = sessions.log_in(User(1, "mona"), UserToken("token"), site.room.github())
    with site.client(headers={"Origin": site.url}, cookies={sessions.cookie: cookie}) as client:
        csrf = re.search(r'name="csrf" value="([0-9a-f]+)"', client.get(f"/experiments/{number}").text)
        assert csrf
        with client.stream("GET", f"/experiments/{number}/events") as answer:
            following = events(answer)
            assert next(following)[0] == "state"
            began = time.monotonic()
            assert client.post("/logout", data={"csrf": csrf[1]}).status_code == 200
            site.write_log(number, b"not for you\n")
            assert list(following) == []
            assert time.monotonic() - began < 5  # it did not wait for a heartbeat


def test_the_server_ends_though_somebody_watches(site: Site) -> None:
    number = site.experiment(Signal.COMMIT_RESOLVED)
    with (
        site.opened() as client,
        client.stream("GET", f"/experiments/{number}/events") as answer,
    ):
        following = events(answer)
        assert next(following)[0] == "state"
        began = time.monotonic()
        site.stop()
        assert list(following) == []
        assert time.monotonic() - began < 4  # it did not wait for uvicorn's patience to end
