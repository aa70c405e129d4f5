"""Who gets in, and who may do what, over HTTP."""

import http.client
import re
from collections.abc import Callable

import httpx2 as httpx
import pytest

from ci_bot.records import ClaimKind
from ci_bot.store import approvals, begin, claims, experiments, reading, repositories
from tests.integration.web.conftest import APP, BORN, RUNNING, Site


def csrf(client: httpx.Client, path: str) -> str:
    found = re.search(r'name="csrf" value="([0-9a-f]+)"', client.get(path).text)
    assert found
    return found[1]


@pytest.fixture
def number(site: Site) -> int:
    return site.experiment(*RUNNING)


PAGES = (
    "/", "/experiments", "/experiments.json", "/experiments/1", "/experiments/1.json", "/experiments/1/events",
    "/experiments/1/log", "/experiments/1/artifacts/model.pkl", "/setup", "/setup/installed", "/metrics", "/nowhere",
)  # fmt: skip


def test_nothing_is_shown_without_a_session(site: Site, number: int) -> None:
    with site.client() as client:
        for page in PAGES:
            for accept in ("text/html", "*/*", "text/event-stream"):
                answer = client.get(page, headers={"Accept": accept})
                assert answer.status_code == 401, page
                assert "digits" not in answer.text


def test_health_static_files_and_the_icon_are_open(site: Site) -> None:
    with site.client() as client:
        for page in ("/healthz", "/readyz", "/static/style.css", "/static/htmx.min.js", "/favicon.ico"):
            assert client.get(page).status_code == 200, page


def test_the_key_opens_a_session_and_leaves_the_address(site: Site) -> None:
    with site.client() as client:
        answer = client.get("/", params={"key": site.key, "state": "RUNNING"})
        assert (answer.status_code, answer.headers["location"]) == (303, "/?state=RUNNING")
        cookie = answer.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=strict" in cookie
        assert client.get("/").status_code == 200


def test_a_wrong_key_opens_nothing(site: Site) -> None:
    with site.client() as client:
        answer = client.get("/", params={"key": "wrong"}, headers={"Accept": "text/html"})
        assert (answer.status_code, "set-cookie" in answer.headers) == (401, False)
        assert "This is not the key" in answer.text


def test_a_stranger_hears_where_the_key_is_and_not_where_files_lie(site: Site) -> None:
    with site.client(headers={"Accept": "text/html"}) as client:
        text = client.get("/").text
    assert "<code>descent up</code> or <code>make demo</code> printed" in text
    assert "<code>key</code> in DATA_DIR" in text
    assert str(site.settings.data_dir) not in text


def test_the_key_leads_to_a_path_of_ours_and_nowhere_else(site: Site) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", site.settings.port, timeout=20)
    connection.request("GET", f"//evil.example/?key={site.key}")
    assert connection.getresponse().getheader("location") == "/evil.example/"
    connection.close()


def test_a_link_from_elsewhere_takes_one_step_more(site: Site, number: int) -> None:
    with site.client() as client:
        strange = {"Accept": "text/html", "Sec-Fetch-Site": "cross-site"}
        answer = client.get(f"/experiments/{number}", headers=strange)
        assert answer.status_code == 401
        assert 'http-equiv="refresh"' in answer.text


def test_a_foreign_host_is_refused_but_for_machines(site: Site) -> None:
    with site.opened() as client:
        foreign = {"Host": "evil.example"}
        assert client.get("/", headers=foreign).status_code == 400
        assert (
            client.get("/static/style.css", headers={"Host": f"evil.example:{site.settings.port}"}).status_code == 400
        )
        assert client.get("/healthz", headers=foreign).status_code == 200
        assert client.post("/webhook", headers=foreign).status_code == 401
        assert client.get("/", headers={"Host": f"localhost:{site.settings.port}"}).status_code == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:1", None])
def test_a_form_from_elsewhere_is_refused(site: Site, number: int, origin: str | None) -> None:
    with site.opened() as client:
        token = csrf(client, f"/experiments/{number}")
        client.headers.pop("origin")
        headers = {"Origin": origin} if origin else {}
        answer = client.post(f"/experiments/{number}/cancel", data={"csrf": token}, headers=headers)
        assert answer.status_code == 403
    assert site.get(number).wish is None


@pytest.mark.parametrize("token", ["", "0" * 64, "é"])
def test_a_form_without_this_sessions_token_is_refused(site: Site, number: int, token: str) -> None:
    with site.opened() as client:
        for action in ("cancel", "rerun"):
            answer = client.post(f"/experiments/{number}/{action}", data={"csrf": token})
            assert answer.status_code == 403
        assert client.post("/logout", data={"csrf": token}).status_code == 403
    assert site.get(number).wish is None


def test_every_answer_has_the_headers_of_a_strict_site(site: Site, number: int) -> None:
    with site.opened() as client:
        for page in ("/", f"/experiments/{number}", "/nowhere", "/healthz", "/static/live.js"):
            headers = client.get(page).headers
            assert "default-src 'self'" in headers["content-security-policy"]
            assert "frame-ancestors 'none'" in headers["content-security-policy"]
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["referrer-policy"] == "same-origin"
            assert "server" not in headers or "uvicorn" not in headers["server"]


def test_cancel_is_a_wish_in_the_dashboards_name(site: Site, number: int) -> None:
    with site.opened() as client:
        token = csrf(client, f"/experiments/{number}")
        answer = client.post(f"/experiments/{number}/cancel", data={"csrf": token})
        assert (answer.status_code, answer.headers["location"]) == (303, f"/experiments/{number}")
        wish = site.get(number).wish
        assert wish is not None
        assert (wish.by, wish.why) == ("dashboard", "cancelled by dashboard")
        assert "cancelled by dashboard" in client.get(f"/experiments/{number}").text
        again = client.post(f"/experiments/{number}/cancel", data={"csrf": token})
        assert again.status_code == 303


def test_what_has_ended_is_not_cancelled_and_what_runs_is_not_run_again(site: Site, number: int) -> None:
    with site.opened() as client:
        token = csrf(client, f"/experiments/{number}")
        answer = client.post(f"/experiments/{number}/rerun", data={"csrf": token})
        assert (answer.status_code, "has not ended yet" in answer.text) == (409, True)
        site.end(number)
        answer = client.post(f"/experiments/{number}/cancel", data={"csrf": token})
        assert (answer.status_code, "has ended already" in answer.text) == (409, True)


def test_a_rerun_is_the_same_experiment_once_more(site: Site) -> None:
    note = ".descent/config.yaml:2: spelled otherwise"
    number = site.experiment(*RUNNING, notes=(note, "The container was not used."), trusted=True)
    site.end(number)
    with site.opened() as client:
        token = csrf(client, f"/experiments/{number}")
        answer = client.post(f"/experiments/{number}/rerun", data={"csrf": token})
        assert answer.status_code == 303
        begun = int(answer.headers["location"].rsplit("/", 1)[1])
        old, new = site.get(number), site.get(begun)
        assert (new.rerun, new.state, new.progress.user_retries) == (1, "CREATED", 1)
        same = ("full_name", "head_sha", "ref", "name", "title", "specification", "configuration_source", "trusted")
        assert [getattr(new, name) for name in same] == [getattr(old, name) for name in same]
        assert new.notes == (note,)
        with reading(site.engine) as connection:
            (claim,) = claims.of_experiment(connection, begun)
        assert (claim.kind, claim.key) == (ClaimKind.RERUN, "dashboard")
        # The old page's button means the newest run, which has not ended.
        again = client.post(f"/experiments/{number}/rerun", data={"csrf": token})
        assert (again.status_code, "has not ended yet" in again.text) == (409, True)


def test_a_repository_from_which_the_app_was_removed_runs_nothing_again_and_stays_removed(site: Site) -> None:
    number = site.experiment(*RUNNING)
    site.end(number)
    with site.opened() as client:
        token = csrf(client, f"/experiments/{number}")
        with begin(site.engine) as connection:
            repositories.removed(connection, 7, BORN)
        answer = client.post(f"/experiments/{number}/rerun", data={"csrf": token})
        assert (answer.status_code, "the App was removed from octo/digits, or suspended" in answer.text) == (409, True)
    with reading(site.engine) as connection:
        assert repositories.get(connection, 7) is None
        assert [each.id for each in experiments.listed(connection)] == [number]


def test_a_forks_commit_runs_again_only_while_it_is_approved_and_stays_untrusted(site: Site) -> None:
    number = site.experiment(*RUNNING, trusted=False, ref="refs/pull/3/head")
    site.end(number)
    with site.opened() as client:
        token = csrf(client, f"/experiments/{number}")
        answer = client.post(f"/experiments/{number}/rerun", data={"csrf": token})
        assert (answer.status_code, "only when it is approved" in answer.text) == (409, True)
        with begin(site.engine) as connection:
            approvals.approve(connection, approvals.Approval(7, "a" * 40, "mona", BORN))
        answer = client.post(f"/experiments/{number}/rerun", data={"csrf": token})
        assert site.get(int(answer.headers["location"].rsplit("/", 1)[1])).trusted is False


def test_with_a_public_address_the_key_opens_nothing_once_there_is_an_app(serve: Callable[..., Site]) -> None:
    site = serve(environment_credentials=APP, public_url="https://descent.example")
    with site.client(headers={"Host": "descent.example", "Accept": "text/html"}) as client:
        answer = client.get("/experiments/3", params={"key": site.key})
        assert (answer.status_code, "set-cookie" in answer.headers) == (303, False)
        assert answer.headers["location"].startswith("/login?next=%2Fexperiments%2F3")
        login = client.get("/login", params={"next": "/experiments/3"})
        location = login.headers["location"]
        assert location.startswith("https://github.com/login/oauth/authorize?")
        assert "code_challenge_method=S256" in location
        cookie = login.headers["set-cookie"].lower()
        assert all(word in cookie for word in ("httponly", "secure", "samesite=lax"))
        assert client.get("/login/callback", params={"code": "x", "state": "y"}).status_code == 400
        assert client.get("/setup").status_code == 303
