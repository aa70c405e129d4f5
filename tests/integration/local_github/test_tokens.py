"""Who may call: JWTs, installation tokens and what they are narrowed to."""

import re
from typing import Any

import pytest

from tests.integration.local_github.conftest import Place, base64url, jwt


def test_a_jwt_names_its_app_by_number_or_client_id(shared: Place) -> None:
    assert shared.as_app("GET", "/app").json()["slug"] == shared.app["slug"]
    by_client_id = shared.jwt(iss=shared.app["client_id"])
    assert shared.call("GET", "/app", token=by_client_id).json()["id"] == shared.app["id"]
    assert [each["id"] for each in shared.as_app("GET", "/app/installations").json()] == [shared.installation["id"]]
    assert shared.as_app("GET", f"/repos/{shared.full_name}/installation").json()["id"] == shared.installation["id"]
    assert shared.as_app("GET", "/repos/nobody/nothing/installation").status_code == 404


@pytest.mark.parametrize(
    ("claims", "words"),
    [
        ({"exp_in": 700}, "too far in the future"),
        ({"exp_in": -5}, "'exp'"),
        ({"iat_in": 60}, "'iat'"),
        ({"iat": "now"}, "'iat'"),
        ({"iss": None}, "'iss'"),
    ],
)
def test_a_jwt_outside_its_ten_minutes_is_refused(shared: Place, claims: dict[str, Any], words: str) -> None:
    now = int(shared.server.clock())
    times = {name[:3]: now + claims.pop(name) for name in list(claims) if name.endswith("_in")}
    answer = shared.call("GET", "/app", token=shared.jwt(**times, **claims))
    assert answer.status_code == 401
    assert words in answer.json()["message"]


def test_a_jwt_that_is_not_signed_by_the_key_is_refused(shared: Place) -> None:
    good = shared.jwt()
    head, claims, mark = good.split(".")
    unsigned = ".".join([base64url(b'{"alg":"none"}'), claims, ""])
    mixed = jwt(shared.app["pem"], {"iss": "1"}).split(".")[1]
    other = shared.control.create_app(f"Other key {shared.owner}", None)
    forged = jwt(other["pem"], {"iss": str(shared.app["id"]), "iat": 0, "exp": int(shared.server.clock()) + 60})
    for token in (unsigned, f"{head}.{mixed}.{mark}", f"{head}.{claims}.", forged, "a.b.c"):
        assert shared.call("GET", "/app", token=token).status_code in (401, 404)


def test_an_installation_token_is_long_ends_after_an_hour_and_is_no_jwt(shared: Place) -> None:
    token = shared.new_token()
    assert re.fullmatch(rf"ghs_{shared.app['id']}_[\w-]+\.[\w-]+\.[\w-]+", token)
    assert 380 <= len(token) <= 520
    assert shared.call("GET", "/installation/repositories", token=token).json()["total_count"] == 1
    assert shared.call("GET", "/app", token=token).status_code == 401
    assert shared.call("GET", "/user", token=token).status_code == 403
    shared.server.clock.ahead_s = 3601
    answer = shared.call("GET", "/installation/repositories", token=token)
    assert (answer.status_code, answer.json()["message"]) == (401, "Bad credentials")


def test_tokens_are_narrowed_to_repositories_and_permissions(place: Place) -> None:
    place.control.create_repository(f"{place.owner}/second")
    place.push({"a": "1"})
    number = place.repo("GET", "").json()["id"]
    token = place.new_token(repository_ids=[number], permissions={"contents": "read"})
    seen = place.call("GET", "/installation/repositories", token=token).json()
    assert [each["full_name"] for each in seen["repositories"]] == [place.full_name]
    assert place.call("GET", f"/repos/{place.owner}/second", token=token).status_code == 404
    assert place.repo("GET", "/contents/a", token=token).status_code == 200
    assert place.repo("GET", "/commits/main/check-runs", token=token).status_code == 403
    by_name = place.new_token(repositories=["second"])
    assert place.call("GET", f"/repos/{place.owner}/second", token=by_name).status_code == 200
    path = f"/app/installations/{place.installation['id']}/access_tokens"
    for wrong in (
        {"repository_ids": [1]},
        {"permissions": {"administration": "write"}},
        {"permissions": {"checks": []}},
        {"repository_ids": []},
    ):
        assert place.as_app("POST", path, json=wrong).status_code == 422
    assert place.as_app("POST", "/app/installations/1/access_tokens").status_code == 404


def test_what_one_may_not_see_is_not_found_and_what_is_public_is_seen(shared: Place) -> None:
    shared.control.create_repository(f"stranger-{shared.owner}/hidden")
    shared.control.create_repository(f"stranger-{shared.owner}/open", private=False)
    assert shared.call("GET", f"/repos/stranger-{shared.owner}/hidden").status_code == 404
    assert shared.call("GET", f"/repos/stranger-{shared.owner}/open").status_code == 200
    assert shared.call("GET", f"/repos/stranger-{shared.owner}/open", token="").status_code == 200
    assert shared.repo("GET", "", token="").status_code == 404
    assert shared.repo("GET", "", token="ghs_nonsense").json()["message"] == "Bad credentials"


def test_roles_are_told_by_name(shared: Place) -> None:
    path = "/collaborators/{}/permission"
    shared.control.create_user("nobody-special")
    answers = {}
    for role in ("admin", "maintain", "write", "triage", "read"):
        shared.control.set_role(shared.full_name, f"the-{role}", role)
        body = shared.repo("GET", path.format(f"the-{role}")).json()
        answers[body["role_name"]] = body["permission"]
    assert answers == {"admin": "admin", "maintain": "write", "write": "write", "triage": "read", "read": "read"}
    assert shared.repo("GET", path.format("nobody-special")).json()["permission"] == "none"
    assert shared.repo("GET", path.format("unheard-of")).status_code == 404
    shared.control.set_role(shared.full_name, "the-write", None)
    assert shared.repo("GET", path.format("the-write")).json()["role_name"] == "none"


def test_requests_need_a_user_agent_a_known_version_and_json(shared: Place) -> None:
    assert shared.call("GET", "/meta", headers={"User-Agent": ""}).status_code == 403
    assert shared.call("GET", "/meta", headers={"X-GitHub-Api-Version": "2020-01-01"}).status_code == 400
    assert shared.call("GET", "/meta", headers={"X-GitHub-Api-Version": "2022-11-28"}).status_code == 200
    assert shared.repo("POST", "/check-runs", content=b"{").json()["message"] == "Problems parsing JSON"
    assert shared.call("GET", "/nothing/here").status_code == 404
    assert shared.call("DELETE", "/meta").status_code == 404
