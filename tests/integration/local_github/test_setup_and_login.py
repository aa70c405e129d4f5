"""Making an App from a manifest, installing it, and logging in with it."""

import base64
import hashlib
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2 as httpx
import pytest

from tests.integration.local_github.conftest import Place, Server, jwt
from tests.integration.local_github.test_pages import Browser

CALLBACK = "http://127.0.0.1:8000/login/callback"


@pytest.fixture
def browser(shared: Place, server: Server) -> Iterator[Browser]:
    made = Browser(server)
    with made.client:
        made.sign_in(shared.owner)
        yield made


def manifest(**more: Any) -> dict[str, Any]:
    return {
        "name": "From a manifest",
        "url": "http://127.0.0.1:8000",
        "redirect_url": "http://127.0.0.1:8000/setup/done",
        "setup_url": "http://127.0.0.1:8000/setup/installed",
        "callback_urls": [CALLBACK],
        "hook_attributes": {"url": "http://127.0.0.1:8000/webhook"},
        "default_permissions": {"checks": "write", "contents": "read"},
        "default_events": ["push", "check_run"],
        **more,
    }


def query_of(answer: httpx.Response) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(answer.headers["location"]).query).items()}


def post_manifest(browser: Browser, wanted: dict[str, Any], state: str = "s t") -> httpx.Response:
    shown = browser.client.post("/settings/apps/new", params={"state": state}, data={"manifest": json.dumps(wanted)})
    return browser.get(shown.headers["location"]) if shown.status_code == 303 else shown


def test_a_manifest_becomes_an_app_whose_secrets_are_given_once(shared: Place, browser: Browser) -> None:
    page = post_manifest(browser, manifest())
    assert "write checks" in page.text
    done = browser.send(browser.forms(page)[0], name=f"Made by {shared.owner}")
    assert done.headers["location"].startswith("http://127.0.0.1:8000/setup/done?")
    query = query_of(done)
    assert query["state"] == "s t"
    made = shared.call("POST", f"/app-manifests/{query['code']}/conversions", token="")
    assert made.status_code == 201
    app = made.json()
    assert (app["slug"], app["permissions"]["checks"]) == (f"made-by-{shared.owner}", "write")
    now = int(shared.server.clock())
    token = jwt(app["pem"], {"iat": now - 60, "exp": now + 60, "iss": app["client_id"]})
    assert shared.call("GET", "/app", token=token).json()["id"] == app["id"]
    assert shared.call("POST", f"/app-manifests/{query['code']}/conversions", token="").status_code == 404
    assert browser.send(browser.forms(page)[0]).status_code == 404


def test_a_manifests_code_ends_after_an_hour(shared: Place, browser: Browser) -> None:
    page = post_manifest(browser, manifest())
    code = query_of(browser.send(browser.forms(page)[0], name=f"Late {shared.owner}"))["code"]
    shared.server.clock.ahead_s = 3601
    assert shared.call("POST", f"/app-manifests/{code}/conversions", token="").status_code == 404


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"url": ""}, "Url must be"),
        ({"hook_attributes": {"url": "nowhere"}}, "Hook url"),
        ({"default_permissions": {"everything": "write"}}, "everything"),
        ({"default_events": ["push", "earthquake"]}, "earthquake"),
        ({"default_events": ["pull_request"]}, "needs pull_requests"),
        ({"name": "x" * 35}, "too long"),
    ],
)
def test_a_bad_manifest_is_refused_with_the_reason(browser: Browser, wrong: dict[str, Any], words: str) -> None:
    page = post_manifest(browser, manifest(**wrong))
    assert words in page.text
    refused = browser.send(browser.forms(page)[0])
    assert (refused.status_code, words in refused.text) == (422, True)


def test_what_is_no_manifest_is_refused(browser: Browser) -> None:
    for text in ("{", "[]", '{"default_events": {"push": 1}}', '{"default_permissions": ["checks"]}'):
        assert browser.client.post("/settings/apps/new", data={"manifest": text}).status_code == 422
    assert browser.get("/settings/apps/new").status_code == 422


def test_an_app_is_installed_on_chosen_repositories(shared: Place, browser: Browser) -> None:
    app = shared.control.create_app(f"Chosen {shared.owner}", None, setup_url="http://127.0.0.1:8000/installed")
    page = browser.get(f"/apps/{app['slug']}/installations/new?state=abc")
    (form,) = browser.forms(page)
    number = shared.repo("GET", "").json()["id"]
    values = {"account": shared.owner, "selection": "selected"}
    assert browser.send((form[0], {**form[1], "repository_ids": ""} | values), repository_ids="0").status_code == 422
    done = browser.send(form, **values, repository_ids=str(number))
    query = query_of(done)
    assert (query["setup_action"], query["state"]) == ("install", "abc")
    settings = f"/settings/installations/{query['installation_id']}"
    shown = browser.get(settings)
    assert shared.full_name in shown.text
    (change,) = browser.forms(shown)
    assert browser.send(change, action="suspend").status_code == 303
    assert "Suspended by" in browser.get(settings).text
    assert browser.send(change, action="uninstall").status_code == 303
    assert browser.get(settings).status_code == 404


def login_page(shared: Place, browser: Browser, app: dict[str, Any], **more: str) -> httpx.Response:
    query = {"client_id": app["client_id"], "state": "xyz", **more}
    return browser.client.get("/login/oauth/authorize", params=query)


def exchanged(shared: Place, app: dict[str, Any], **form: str) -> dict[str, Any]:
    credentials = {"client_id": app["client_id"], "client_secret": app["client_secret"]}
    answer = httpx.post(
        f"{shared.server.url}/login/oauth/access_token",
        data={**credentials, **form},
        headers={"Accept": "application/json"},
        trust_env=False,
    )
    assert answer.status_code == 200
    body: dict[str, Any] = answer.json()
    return body


@pytest.fixture
def app(shared: Place, request: pytest.FixtureRequest) -> dict[str, Any]:
    name = f"L{abs(hash(request.node.name)) % 10**8} {shared.owner}"
    return shared.control.create_app(name, None, callback_urls=[CALLBACK, CALLBACK + "2"])


def test_a_person_logs_in_with_pkce_and_a_code_is_good_once(
    shared: Place, browser: Browser, app: dict[str, Any]
) -> None:
    shared.control.install(app["id"], shared.owner)
    verifier = "v" * 43
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    page = login_page(shared, browser, app, code_challenge=challenge, code_challenge_method="S256")
    done = browser.send(browser.forms(page)[0], decision="authorize")
    assert done.headers["location"].startswith(CALLBACK + "?")
    query = query_of(done)
    assert query["state"] == "xyz"
    tokens = exchanged(shared, app, code=query["code"], code_verifier=verifier)
    assert (tokens["token_type"], tokens["expires_in"]) == ("bearer", 28800)
    assert tokens["access_token"].startswith("ghu_")
    assert exchanged(shared, app, code=query["code"], code_verifier=verifier)["error"] == "bad_verification_code"
    user = tokens["access_token"]
    assert shared.call("GET", "/user", token=user).json()["login"] == shared.owner
    (installed,) = shared.call("GET", "/user/installations", token=user).json()["installations"]
    path = f"/user/installations/{installed['id']}/repositories"
    (seen,) = shared.call("GET", path, token=user).json()["repositories"]
    assert (seen["full_name"], seen["permissions"]["admin"]) == (shared.full_name, True)
    assert shared.repo("GET", "", token=user).status_code == 200
    refused = shared.repo("POST", "/check-runs", token=user, json={"name": "n", "head_sha": shared.head})
    assert refused.status_code == 403
    renewed = exchanged(shared, app, grant_type="refresh_token", refresh_token=tokens["refresh_token"])
    assert shared.call("GET", "/user", token=renewed["access_token"]).status_code == 200
    again = exchanged(shared, app, grant_type="refresh_token", refresh_token=tokens["refresh_token"])
    assert again["error"] == "bad_refresh_token"


def test_a_code_needs_its_verifier_its_secret_and_its_time(
    shared: Place, browser: Browser, app: dict[str, Any]
) -> None:
    def code(**more: str) -> str:
        page = login_page(shared, browser, app, **more)
        return query_of(browser.send(browser.forms(page)[0], decision="authorize"))["code"]

    challenged = code(code_challenge="c" * 43, code_challenge_method="S256")
    assert exchanged(shared, app, code=challenged, code_verifier="wrong")["error"] == "bad_verification_code"
    assert exchanged(shared, app, code=code(), client_secret="no")["error"] == "incorrect_client_credentials"
    other = exchanged(shared, app, code=code(redirect_uri=CALLBACK), redirect_uri=CALLBACK + "2")
    assert other["error"] == "redirect_uri_mismatch"
    late = code()
    shared.server.clock.ahead_s = 601
    assert exchanged(shared, app, code=late)["error"] == "bad_verification_code"


def test_only_registered_addresses_and_s256_are_taken(shared: Place, browser: Browser, app: dict[str, Any]) -> None:
    for wrong in ("http://evil.example/", CALLBACK + "/more", CALLBACK + "?x=1"):
        assert login_page(shared, browser, app, redirect_uri=wrong).status_code == 422
    plain = login_page(shared, browser, app, code_challenge="x", code_challenge_method="plain")
    assert plain.status_code == 422
    assert login_page(shared, browser, {"client_id": "none"}).status_code == 404
    second = login_page(shared, browser, app, redirect_uri=CALLBACK + "2")
    denied = browser.send(browser.forms(second)[0], decision="cancel")
    assert denied.headers["location"].startswith(CALLBACK + "2?error=access_denied")


def test_who_is_not_signed_in_is_asked_first_and_comes_back(shared: Place, app: dict[str, Any]) -> None:
    stranger = Browser(shared.server)
    with stranger.client:
        stranger.get(stranger.opened)
        asked = login_page(shared, stranger, app, redirect_uri=CALLBACK)
        page = stranger.get(asked.headers["location"])
        back = stranger.send(stranger.forms(page)[0], login=shared.owner)
        assert "Authorize" in stranger.get(back.headers["location"]).text


def test_a_persons_token_sees_only_what_both_may_see(shared: Place, browser: Browser, app: dict[str, Any]) -> None:
    installed = shared.control.install(app["id"], shared.owner)
    login = shared.control.create_user(f"guest-{shared.owner}")["login"]
    browser.sign_in(login)
    page = login_page(shared, browser, app)
    code = query_of(browser.send(browser.forms(page)[0], decision="authorize"))["code"]
    guest = exchanged(shared, app, code=code)["access_token"]
    assert shared.repo("GET", "", token=guest).status_code == 404
    assert shared.call("GET", "/user/installations", token=guest).json()["total_count"] == 0
    path = f"/user/installations/{installed['id']}/repositories"
    assert shared.call("GET", path, token=guest).status_code == 404
    shared.control.set_role(shared.full_name, login, "read")
    assert shared.repo("GET", "", token=guest).status_code == 200
    assert shared.call("GET", path, token=guest).json()["total_count"] == 1
