"""What the App asks about itself."""

import json

import pytest

from ci_bot.github import App, Delivery, GitHub, Gone, Installation, StoredDelivery, Unavailable
from tests.unit.github.fake import FakeGitHub, call, ok, rfc3339, said

NEW_APP = {
    "id": 42,
    "slug": "descent",
    "name": "Descent",
    "html_url": "https://pages.example/apps/descent",
    "client_id": "Iv1.x",
    "client_secret": "client-secret-value",
    "webhook_secret": "hook-secret-value",
    "pem": "-----BEGIN RSA PRIVATE KEY-----",
}


def line(number: int, at: float, **fields: object) -> dict[str, object]:
    body = {"id": number, "guid": f"guid-{number}", "event": "push", "action": None, "delivered_at": rfc3339(at)}
    return body | {"status_code": 202, "redelivery": False, "installation_id": 11, "repository_id": 7} | fields


def test_the_app_tells_its_permissions_and_events(fake: FakeGitHub) -> None:
    body = {"id": 42, "slug": "descent", "name": "Descent", "html_url": "https://x", "permissions": {"checks": "write"}}
    fake.on("GET", "/app", ok(body | {"events": ["push"]}))
    found = call(fake, lambda github: github.app())
    assert found == App(42, "descent", "Descent", "https://x", {"checks": "write"}, ("push",))


def test_suspended_installations_are_told(fake: FakeGitHub) -> None:
    awake = {"id": 1, "account": {"login": "octo"}, "suspended_at": None, "permissions": {"checks": "write"}}
    asleep = {"id": 2, "account": None, "suspended_at": "2026-01-01T00:00:00Z", "permissions": {}}
    fake.on("GET", "/app/installations", ok([awake, asleep]))
    assert call(fake, lambda github: github.installations()) == (
        Installation(1, "octo", False, {"checks": "write"}),
        Installation(2, "", True, {}),
    )


def test_deliveries_are_read_back_to_a_moment_and_no_further(fake: FakeGitHub) -> None:
    now = fake.clock.now
    link = '<https://api.example/app/hook/deliveries?cursor=v1_2>; rel="next"'
    fake.on(
        "GET",
        "/app/hook/deliveries",
        ok([line(5, now - 1), line(4, now - 10, status_code=502, redelivery=True)], link=link),
        ok([line(3, now - 20), line(2, now - 40)], link=link),
    )
    found = call(fake, lambda github: github.deliveries(since=now - 30))
    assert [d.id for d in found] == [5, 4, 3]
    assert [d.arrived for d in found] == [True, False, True]
    assert found[1] == Delivery(4, "guid-4", "push", "", now - 10, 502, True)
    assert len(fake.sent("GET")) == 2
    assert [request.url.params.get("cursor") for request in fake.sent("GET")] == [None, "v1_2"]


def test_a_list_of_deliveries_may_be_of_any_length(fake: FakeGitHub) -> None:
    now = fake.clock.now
    link = '<https://api.example/app/hook/deliveries?per_page=100&cursor=v1_2>; rel="next"'
    page = ok([line(number, now) for number in range(1, 101)], link=link)
    fake.on("GET", "/app/hook/deliveries", *[page] * 109, ok([line(1, now)]))
    assert len(call(fake, lambda github: github.deliveries(since=now - 30))) == 10_901


def test_a_line_of_the_list_that_can_not_be_read_is_left_out(fake: FakeGitHub) -> None:
    now = fake.clock.now
    odd = [None, {}, line(4, now, guid=None), line(4, now, delivered_at="soon"), line(4, now) | {"id": "4"}]
    bare = {"id": 3, "guid": "guid-3", "delivered_at": rfc3339(now)}
    fake.on("GET", "/app/hook/deliveries", ok([line(5, now, installation_id=None, repository_id=2**70), *odd, bare]))
    found = call(fake, lambda github: github.deliveries(since=now - 30))
    assert [d.guid for d in found] == ["guid-5", "guid-3"]


def test_what_is_no_list_is_no_answer(fake: FakeGitHub) -> None:
    fake.on("GET", "/app/hook/deliveries", ok({"message": "?"}))
    with pytest.raises(Unavailable, match="no list"):
        call(fake, lambda github: github.deliveries(since=0.0))


def test_an_old_token_in_the_middle_of_a_list_costs_one_page(fake: FakeGitHub) -> None:
    now = fake.clock.now
    link = '<https://api.example/app/hook/deliveries?cursor=v1_2>; rel="next"'
    fake.on(
        "GET",
        "/app/hook/deliveries",
        ok([line(5, now)], link=link),
        said(401, "A JSON web token could not be decoded"),
        ok([line(4, now)]),
    )
    assert [d.id for d in call(fake, lambda github: github.deliveries(since=0.0))] == [5, 4]
    assert len(fake.sent("GET")) == 3


def test_a_stored_delivery_gives_its_payload(fake: FakeGitHub) -> None:
    payload = {"ref": "refs/heads/é", "after": "b"}
    request = {"headers": {"X-GitHub-Event": "push"}, "payload": payload}
    fake.on("GET", "/app/hook/deliveries/5", ok(line(5, 0.0) | {"request": request, "response": {}}))
    found = call(fake, lambda github: github.delivery(5))
    assert found is not None
    assert (found.guid, found.event, json.loads(found.body)) == ("guid-5", "push", payload)
    fake.on("GET", "/app/hook/deliveries/5", ok(line(5, 0.0) | {"request": {"headers": None}}))
    with pytest.raises(Unavailable, match=r"request\.payload is missing"):
        call(fake, lambda github: github.delivery(5))


def test_a_stored_delivery_may_have_no_payload(fake: FakeGitHub) -> None:
    fake.on("GET", "/app/hook/deliveries/5", ok(line(5, 0.0) | {"request": {"headers": None, "payload": None}}))
    assert call(fake, lambda github: github.delivery(5)) is None


def test_large_deliveries_are_read_where_other_answers_would_be_too_large(fake: FakeGitHub) -> None:
    request = {"headers": {}, "payload": {"x": "y" * 9_000_000}}
    fake.on("GET", "/app/hook/deliveries/5", ok(line(5, 0.0) | {"request": request}))

    async def work(github: GitHub) -> StoredDelivery | None:
        return await github.delivery(5)

    found = call(fake, work)
    assert found is not None
    assert len(found.body) > 9_000_000


def test_a_manifest_becomes_an_app_before_there_is_one(fake: FakeGitHub) -> None:
    fake.on("POST", "/app-manifests/one-time-code/conversions", ok(NEW_APP, 201))
    found = call(fake, lambda github: github.convert_manifest("one-time-code"), credentials=False)
    assert (found.id, found.slug, found.pem) == (42, "descent", NEW_APP["pem"])
    assert "authorization" not in fake.requests[-1].headers
    for secret in (NEW_APP["pem"], NEW_APP["client_secret"], NEW_APP["webhook_secret"]):
        assert str(secret) not in repr(found)


def test_a_used_manifest_code_is_gone_and_not_repeated_in_the_text(fake: FakeGitHub) -> None:
    fake.on("POST", "/app-manifests/one-time-code/conversions", said(404, "Not Found"))
    with pytest.raises(Gone) as caught:
        call(fake, lambda github: github.convert_manifest("one-time-code"), credentials=False)
    assert "one-time-code" not in str(caught.value)
