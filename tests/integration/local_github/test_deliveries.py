"""The delivery log of an App, and delivering again."""

import threading
from typing import Any

import pytest

from tests.integration.local_github.conftest import Place


@pytest.fixture
def listed(place: Place) -> Any:
    def read(query: str = "", *, until: int = 1) -> list[dict[str, Any]]:
        """The log, once there are so many in it."""
        for _ in range(200):
            found: list[dict[str, Any]] = place.as_app("GET", f"/app/hook/deliveries?{query}").json()
            if len(found) >= until:
                return found
            threading.Event().wait(0.02)
        raise AssertionError(f"{len(found)} deliveries, wanted {until}")

    return read


def test_every_attempt_is_logged_newest_first_and_paged_by_cursor(place: Place, listed: Any) -> None:
    place.push({"a": "1"})
    place.receiver.wait("check_suite.requested")
    found = listed(until=4)
    assert {each["event"] for each in found} == {"ping", "installation", "push", "check_suite"}
    assert [each["id"] for each in found] == sorted((each["id"] for each in found), reverse=True)
    first = place.as_app("GET", "/app/hook/deliveries?per_page=3")
    link = first.headers["link"].split(">")[0].lstrip("<").removeprefix(f"{place.server.url}/api/v3")
    rest = place.as_app("GET", link)
    assert [each["id"] for each in first.json() + rest.json()] == [each["id"] for each in found]
    assert "link" not in rest.headers
    whole = place.as_app("GET", f"/app/hook/deliveries/{found[0]['id']}").json()
    assert whole["request"]["headers"]["X-GitHub-Delivery"] == found[0]["guid"]
    assert whole["request"]["payload"]["installation"]["id"] == place.installation["id"]
    assert (whole["response"]["payload"], whole["status"]) == ("", "OK")
    assert place.as_app("GET", "/app/hook/deliveries?status=maybe").status_code == 422
    assert place.as_app("GET", "/app/hook/deliveries?cursor=%7F").status_code == 422
    assert place.as_app("GET", "/app/hook/deliveries/1").status_code == 404


def test_a_failed_delivery_is_never_repeated_by_itself_and_once_when_asked(place: Place, listed: Any) -> None:
    place.receiver.answer = lambda: 500
    place.push({"a": "1"})
    place.receiver.wait("check_suite.requested")
    failed = listed("status=failure", until=2)
    assert {each["status"] for each in failed} == {"Invalid HTTP Response: 500"}
    push = next(each for each in failed if each["event"] == "push")
    place.receiver.answer = lambda: 202
    assert len(place.receiver.hooks("push")) == 1
    assert place.as_app("POST", f"/app/hook/deliveries/{push['id']}/attempts").status_code == 202
    first, again = place.receiver.wait("push", 2)
    assert first.headers["X-GitHub-Delivery"] == again.headers["X-GitHub-Delivery"]
    assert first.body == again.body
    done = [each for each in listed("status=success", until=3) if each["event"] == "push"]
    assert [(each["guid"], each["redelivery"], each["id"] != push["id"]) for each in done] == [
        (push["guid"], True, True)
    ]


def test_a_receiver_that_does_not_answer_in_time_failed(
    place: Place, listed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ci_bot.local_github.webhooks.DELIVERY_TIMEOUT_S", 0.1)
    hang = threading.Event()
    place.receiver.answer = lambda: 202 if hang.wait(20) else 500
    place.control.ping(place.app["id"])
    (late,) = listed("status=failure")
    assert (late["event"], late["status"], late["status_code"]) == ("ping", "timed out", 504)
    hang.set()


def test_the_webhooks_address_and_secret_can_be_changed(place: Place, listed: Any) -> None:
    config = place.as_app("GET", "/app/hook/config").json()
    assert (config["url"], config["secret"]) == (place.receiver.url, "********")
    changed = place.as_app("PATCH", "/app/hook/config", json={"url": "http://127.0.0.1:9/", "secret": "new"}).json()
    assert changed["url"] == "http://127.0.0.1:9/"
    place.control.ping(place.app["id"])
    (refused,) = listed("status=failure")
    assert refused["status"] == "failed to connect to host"
    assert place.as_app("PATCH", "/app/hook/config", json={"url": "ftp://x"}).status_code == 422


def test_deliveries_are_kept_for_three_days(place: Place, listed: Any) -> None:
    number = listed()[0]["id"]
    place.server.clock.ahead_s = 3 * 86400 + 60
    assert place.as_app("GET", "/app/hook/deliveries").json() == []
    assert place.as_app("GET", f"/app/hook/deliveries/{number}").status_code == 404
