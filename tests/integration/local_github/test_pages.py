"""The pages: what a person sees, and what their buttons really send."""

import html
import re
from collections.abc import Iterator
from typing import Any

import httpx2 as httpx
import pytest

from tests.integration.local_github.conftest import Place, Server

BUTTON = {"label": "Cancel", "description": "Stop it", "identifier": "cancel"}


class Browser:
    """Goes from page to page with cookies, and fills in the forms that it finds."""

    def __init__(self, server: Server) -> None:
        self.opened = server.control.opened("/")
        self.client = httpx.Client(base_url=server.url, trust_env=False, follow_redirects=False)

    def get(self, path: str) -> httpx.Response:
        return self.client.get(path)

    def forms(self, page: httpx.Response) -> list[tuple[str, dict[str, str]]]:
        """Each form of a page: its address and its hidden and named values."""
        found = []
        for form in re.findall(r"<form.*?</form>", page.text, re.DOTALL):
            action = re.search(r'action="([^"]*)"', form)
            values = re.findall(r'<(?:input|button)[^>]*name="([^"]*)" value="([^"]*)"', form)
            address = html.unescape(action[1]) if action else str(page.url)
            found.append((address, {name: html.unescape(value) for name, value in values}))
        return found

    def send(self, form: tuple[str, dict[str, str]], **values: str) -> httpx.Response:
        return self.client.post(form[0], data={**form[1], **values})

    def sign_in(self, login: str) -> None:
        assert self.get(self.opened).status_code == 303
        answer = self.send(self.forms(self.get("/login"))[0], login=login)
        assert answer.status_code == 303, answer.text


@pytest.fixture
def browser(server: Server) -> Iterator[Browser]:
    made = Browser(server)
    with made.client:
        yield made


def test_a_commits_page_shows_its_check_runs_safely(shared: Place, browser: Browser) -> None:
    summary = (
        "| a | b |\n|---|---|\n| 1 | **2** |\n\n<details><summary>more</summary>\n\nhidden\n\n</details>\n\n"
        "<script>alert(1)</script> <img src=x onerror=alert(1)> [x](javascript:alert(1)) <!-- secret -->"
    )
    note = {
        "path": "config.yaml",
        "start_line": 3,
        "end_line": 3,
        "annotation_level": "failure",
        "message": "<b>no</b>",
    }
    shared.check_run(
        shared.head,
        "descent/<demo>",
        conclusion="failure",
        output={"title": "Failed & done", "summary": summary, "annotations": [note]},
        details_url="http://127.0.0.1:1/experiments/1",
    )
    browser.sign_in(shared.owner)
    page = browser.get(f"/{shared.full_name}/commit/{shared.head}")
    text = page.text
    assert page.status_code == 200
    assert "descent/&lt;demo&gt;" in text
    assert "Failed &amp; done" in text
    assert '<svg class="icon failure"' in text
    assert "<td><strong>2</strong></td>" in text
    assert "<details><summary>more</summary>" in text
    assert "<script>alert" not in text
    assert "<img" not in text
    assert 'href="javascript:' not in text
    assert "secret" not in text
    assert "config.yaml:3" in text
    assert "&lt;b&gt;no&lt;/b&gt;" in text
    assert 'href="http://127.0.0.1:1/experiments/1"' in text
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert not re.findall(r'(?:src|<link[^>]*href)="(?:https?:)?//', text)
    for name in ("style.css", "live.js"):
        assert browser.get(f"/_static/{name}").status_code == 200
    assert browser.get("/_static/base.html").status_code == 404


def test_a_button_sends_its_event_from_who_may_write(place: Place, browser: Browser) -> None:
    sha = place.push({"a": "1"})
    run = place.check_run(sha, actions=[BUTTON])
    for login, role in (("writer", "write"), ("reader", "read")):
        place.control.set_role(place.full_name, f"{login}-{place.owner}", role)
    address = f"/{place.full_name}/commit/{sha}"
    assert browser.get(address).status_code == 404
    browser.sign_in(f"reader-{place.owner}")
    page = browser.get(address)
    assert browser.forms(page) == []
    browser.sign_in(f"writer-{place.owner}")
    forms = browser.forms(browser.get(address))
    cancel = next(form for form in forms if form[1].get("identifier") == "cancel")
    again = next(form for form in forms if "check_run_id" in form[1] and "identifier" not in form[1])
    whole = next(form for form in forms if "check_suite_id" in form[1])
    for form, name in (
        (cancel, "check_run.requested_action"),
        (again, "check_run.rerequested"),
        (whole, "check_suite.rerequested"),
    ):
        answer = browser.send(form)
        assert (answer.status_code, answer.headers["location"]) == (303, address)
        assert place.receiver.wait(name)[0].payload["sender"]["login"] == f"writer-{place.owner}"
    assert browser.send(cancel, authenticity_token="forged").status_code == 403
    browser.sign_in(f"reader-{place.owner}")
    token = browser.forms(browser.get("/login"))[0][1]["authenticity_token"]
    assert browser.send(cancel, authenticity_token=token).status_code == 403
    assert len(place.receiver.hooks("check_run.requested_action")) == 1
    where = browser.get(f"/{place.full_name}/runs/{run['id']}").headers["location"]
    assert where == f"{address}#run-{run['id']}"


def test_lists_repositories_history_pull_requests_and_files(place: Place, browser: Browser) -> None:
    place.push({"a": "1\n"})
    sha = place.push({"config.yaml": "version: <1>\n"}, ref="topic", message="Try <it>")
    number = place.control.open_pull_request(place.full_name, "topic", title="A *title*", body="**why**")["number"]
    place.control.comment(place.full_name, number, "nice @you", user=place.owner)
    place.check_run(sha, conclusion="success")
    assert place.full_name not in browser.get("/").text
    browser.sign_in(place.owner)
    assert place.full_name in browser.get("/").text
    overview = browser.get(f"/{place.full_name}").text
    assert "Try &lt;it&gt;" in overview
    assert 'class="icon success"' in overview
    pull = browser.get(f"/{place.full_name}/pull/{number}").text
    assert "<strong>why</strong>" in pull
    assert "nice @you" in pull
    assert 'data-state="success"' in pull
    assert "version: &lt;1&gt;" in browser.get(f"/{place.full_name}/blob/{sha}/config.yaml").text
    for missing in ("/blob/main/absent", "/commit/ffffff", "/pull/99", "/runs/1"):
        assert browser.get(f"/{place.full_name}{missing}").status_code == 404


def test_only_this_machine_is_answered(server: Server) -> None:
    for host in ("evil.example", "evil.example:80", "127.0.0.1.evil.example"):
        assert httpx.get(server.url, headers={"Host": host}, trust_env=False).status_code == 403
    for host in ("localhost:1", "127.0.0.1"):
        assert httpx.get(server.url, headers={"Host": host}, trust_env=False).status_code == 200


def test_the_control_api_and_the_hooks_want_their_own_tokens(server: Server) -> None:
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Bearer {server.hub.hook_token}"}):
        assert httpx.get(f"{server.url}/_local/requests", headers=headers, trust_env=False).status_code == 401
        posted = httpx.post(f"{server.url}/_local/user", headers=headers, json={"login": "x"}, trust_env=False)
        assert posted.status_code == 401
    headers = {"Authorization": "Bearer the-control-token"}
    posted = httpx.post(f"{server.url}/_local/post-receive", headers=headers, json={}, trust_env=False)
    assert posted.status_code == 401


def test_nobody_signs_in_without_the_key(shared: Place, browser: Browser) -> None:
    form = {"login": shared.owner, "return_to": "/"}
    assert browser.get("/login").status_code == 403
    assert browser.get("/?key=" + "0" * 32).status_code == 403
    assert browser.client.post("/login", data=form).status_code == 403
    answer = browser.get(f"{browser.opened}&then=1")
    assert (answer.status_code, answer.headers["location"]) == (303, "/?then=1")
    assert shared.owner in browser.get("/login").text


def test_an_address_with_the_key_can_sign_in_at_once(place: Place, browser: Browser) -> None:
    sha = place.push({"a": "1"})
    place.check_run(sha, actions=[BUTTON])
    address = f"/{place.full_name}/commit/{sha}"
    answer = browser.get(place.control.opened(address, as_login=place.owner))
    assert (answer.status_code, answer.headers["location"]) == (303, address)
    assert any(form[1].get("identifier") == "cancel" for form in browser.forms(browser.get(address)))


def test_a_name_in_an_address_signs_nobody_in_without_the_key_or_under_no_name(place: Place, browser: Browser) -> None:
    browser.get(f"/?as={place.owner}")
    assert browser.get(f"/?key={'0' * 32}&as={place.owner}").status_code == 403
    assert not browser.client.cookies
    assert browser.get(place.control.opened("/", as_login="nobody-of-that-name")).status_code == 303
    assert ">Sign in</a>" in browser.get("/").text


def test_a_refusal_says_what_and_leads_back(shared: Place, browser: Browser) -> None:
    for path in ("/no/such", f"/{shared.full_name}/commit/ffffff", "/nothing/at/all/here"):
        missing = browser.get(path)
        assert missing.status_code == 404
        assert "<h1>Not found</h1>" in missing.text
        assert "<title>Not found · Local GitHub</title>" in missing.text
        assert f"<code>{path}</code>" in missing.text
        assert '<a href="/">All repositories</a>' in missing.text
    refused = browser.get("/login")
    assert refused.status_code == 403
    assert "<h1>Not allowed</h1>" in refused.text
    assert "?key=" in refused.text
    assert '<a href="/">All repositories</a>' in refused.text


@pytest.mark.parametrize("address", ["https://evil.example/", "//evil.example", "/\\evil.example", "javascript:x"])
def test_signing_in_leads_only_to_this_server(shared: Place, browser: Browser, address: str) -> None:
    browser.get(browser.opened)
    form = browser.forms(browser.get(f"/login?return_to={address}"))[0]
    assert browser.send(form, login=shared.owner, return_to=address).headers["location"] == "/"
    forged: dict[str, Any] = {"login": shared.owner, "return_to": "/"}
    assert browser.client.post("/login", data=forged).status_code == 403
