"""Limits that are enforced and faults that are ordered."""

import time
from concurrent.futures import ThreadPoolExecutor

import httpx2 as httpx
import pytest

from tests.integration.local_github.conftest import Place


def test_the_primary_limit_counts_down_and_refuses_at_zero(shared: Place) -> None:
    shared.repo("GET", "")
    shared.control.limits(primary_per_hour=3)
    left = [shared.repo("GET", "").headers["x-ratelimit-remaining"] for _ in range(3)]
    assert left == ["2", "1", "0"]
    refused = shared.repo("GET", "")
    assert (refused.status_code, refused.headers["x-ratelimit-remaining"]) == (403, "0")
    assert "API rate limit exceeded" in refused.json()["message"]
    assert "retry-after" not in refused.headers
    core = shared.call("GET", "/rate_limit").json()["resources"]["core"]
    assert (core["remaining"], core["reset"]) == (0, int(refused.headers["x-ratelimit-reset"]))
    shared.server.clock.ahead_s = 3602
    shared._token = ""
    assert shared.repo("GET", "").status_code == 200
    shared._token = ""


def test_creating_too_fast_meets_the_secondary_limit(shared: Place) -> None:
    shared.control.limits(content_per_minute=2, content_per_hour=3)
    body = {"name": "n", "head_sha": shared.head}
    assert [shared.repo("POST", "/check-runs", json=body).status_code for _ in range(3)] == [201, 201, 403]
    refused = shared.repo("POST", "/check-runs", json=body)
    assert "secondary rate limit" in refused.json()["message"]
    assert 0 < int(refused.headers["retry-after"]) <= 60
    assert int(refused.headers["x-ratelimit-remaining"]) > 0
    assert shared.repo("GET", "").status_code == 200
    shared.server.clock.ahead_s = 61
    assert [shared.repo("POST", "/check-runs", json=body).status_code for _ in range(2)] == [201, 403]


def test_writes_cost_five_points_of_those_in_a_minute(shared: Place) -> None:
    run = shared.check_run(shared.head)
    shared.control.limits(points_per_minute=11)
    path = f"/check-runs/{run['id']}"
    codes = [shared.repo("PATCH", path, json={"external_id": "x"}).status_code for _ in range(3)]
    assert codes == [200, 200, 403]
    assert [shared.repo("GET", path).status_code for _ in range(2)] == [200, 403]


@pytest.mark.parametrize(
    ("fault", "status", "header", "value"),
    [
        ({"kind": "secondary_limit"}, 403, "retry-after", None),
        ({"kind": "secondary_limit", "status": 429, "retry_after_s": 7}, 429, "retry-after", "7"),
        ({"kind": "primary_limit", "seconds": 5}, 403, "x-ratelimit-remaining", "0"),
        ({"kind": "primary_limit", "status": 429}, 429, "x-ratelimit-remaining", "0"),
        ({"kind": "status", "status": 502}, 502, "retry-after", None),
        ({"kind": "unauthorized"}, 401, "retry-after", None),
    ],
)
def test_an_ordered_answer_is_given_so_often_and_no_more(
    shared: Place, fault: dict[str, object], status: int, header: str, value: str | None
) -> None:
    shared.repo("GET", "")
    shared.control.fault(**fault, operation="repos/get", skip=1, count=2)  # type: ignore[arg-type]
    answers = [shared.repo("GET", "") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, status, status, 200]
    assert answers[1].headers.get(header) == value
    assert answers[1].json()["message"]
    assert shared.control.faults()[0]["hit"] == 2


def test_faults_choose_by_method_path_and_operation(shared: Place) -> None:
    shared.control.fault("status", status=500, method="POST", path="/repos/*/check-runs", count=None)
    assert shared.repo("GET", "/commits/main/check-runs").status_code == 200
    assert shared.repo("POST", "/check-runs", json={"name": "n", "head_sha": shared.head}).status_code == 500
    with pytest.raises(Exception, match="kind"):
        shared.control.fault("earthquake")
    with pytest.raises(Exception, match="colour"):
        shared.control.fault("delay", colour="red")


def test_a_dropped_connection_ends_before_or_after_the_work(shared: Place) -> None:
    body = {"name": "dropped", "head_sha": shared.head}
    shared.control.fault("drop", operation="checks/create")
    with pytest.raises(httpx.TransportError):
        shared.repo("POST", "/check-runs", json=body)
    path = "/commits/main/check-runs?check_name=dropped"
    assert shared.repo("GET", path).json()["total_count"] == 0
    shared.control.fault("drop_after", operation="checks/create")
    with pytest.raises(httpx.TransportError):
        shared.repo("POST", "/check-runs", json=body)
    assert shared.repo("GET", path).json()["total_count"] == 1


def test_too_many_requests_at_once_are_refused(shared: Place) -> None:
    shared.repo("GET", "")
    shared.control.limits(concurrent=2)
    shared.control.fault("delay", seconds=0.5, operation="repos/get", count=3)
    with ThreadPoolExecutor(3) as pool:
        codes = list(pool.map(lambda _: shared.repo("GET", "").status_code, range(3)))
    assert sorted(codes) == [200, 200, 403]


def test_a_delay_delays(shared: Place) -> None:
    shared.repo("GET", "")
    shared.control.fault("delay", seconds=0.3, operation="repos/get")
    began = time.monotonic()
    shared.repo("GET", "")
    assert time.monotonic() - began >= 0.3


def test_down_refuses_everything_until_it_is_up(shared: Place) -> None:
    shared.repo("GET", "")
    shared.control.down()
    assert shared.repo("GET", "").status_code == 503
    shared.control.down("reset")
    with pytest.raises(httpx.TransportError):
        shared.repo("GET", "")
    shared.control.down(None)
    assert shared.repo("GET", "").status_code == 200


def test_expired_tokens_are_worth_nothing(shared: Place) -> None:
    shared.repo("GET", "")
    assert shared.control.expire_tokens() >= 1
    assert shared.repo("GET", "").status_code == 401
    shared._token = ""
    assert shared.repo("GET", "").status_code == 200


def test_a_stale_read_shows_the_world_as_it_was(place: Place) -> None:
    place.push({"a": "1"})
    place.server.clock.ahead_s = 100
    old = place.git("rev-parse", "HEAD")
    new = place.push({"a": "2"})
    run = place.check_run(new)
    place.control.fault("stale", seconds=50, count=None)
    assert place.repo("GET", "/branches/main").json()["commit"]["sha"] == old
    assert place.repo("GET", "/git/ref/heads/main").json()["object"]["sha"] == old
    assert place.repo("GET", "/commits").json()[0]["sha"] == old
    assert place.repo("GET", f"/commits/{new}").status_code == 422
    assert place.repo("GET", f"/contents/a?ref={new}").status_code == 404
    assert place.repo("GET", f"/check-runs/{run['id']}").status_code == 404
    place.control.clear_faults()
    assert place.repo("GET", "/branches/main").json()["commit"]["sha"] == new
    assert place.repo("GET", f"/check-runs/{run['id']}").status_code == 200


def test_webhooks_are_lost_doubled_and_held_back(place: Place) -> None:
    place.control.fault("lose", target="webhook", event="push")
    place.control.fault("vanish", target="webhook", event="push", skip=1)
    place.control.fault("double", target="webhook", event="push", skip=2)
    place.push({"a": "1"})
    place.push({"a": "2"})
    third = place.push({"a": "3"})
    hooks = place.receiver.wait("push", 2)
    assert [hook.payload["after"] for hook in hooks] == [third, third]
    assert len({hook.headers["X-GitHub-Delivery"] for hook in hooks}) == 1
    pushes = [each for each in place.as_app("GET", "/app/hook/deliveries").json() if each["event"] == "push"]
    assert sorted(each["status_code"] for each in pushes) in ([202, 502], [202, 202, 502])
    place.receiver.forget()
    place.control.fault("hold", target="webhook", event="push")
    fourth, fifth = place.push({"a": "4"}), place.push({"a": "5"}, ref="other")
    place.receiver.wait("push", 2)
    order = [hook.payload["after"] for hook in place.receiver.hooks("push")]
    assert sorted(order) == sorted([fourth, fifth])
    suites = [hook.name for hook in place.receiver.hooks() if hook.event in ("push", "check_suite")]
    assert suites[0] == "check_suite.requested"


def test_a_late_webhook_comes_late(place: Place) -> None:
    place.control.fault("delay", target="webhook", event="push", seconds=3)
    place.push({"a": "1"})
    place.receiver.wait("check_suite.requested")
    assert place.receiver.hooks("push") == []
    place.receiver.wait("push")
