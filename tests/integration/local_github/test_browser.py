"""The pages in a real browser: they follow what happens by themselves, and load nothing from elsewhere."""

import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, sync_playwright

from tests.integration.local_github.conftest import Place

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture
def page() -> Iterator[Page]:
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed")
    with sync_playwright() as playwright:
        # --no-sandbox: as root Chromium has none
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser.new_page()
        browser.close()


def test_a_commits_page_follows_its_check_runs_and_its_buttons_work(place: Place, page: Page) -> None:
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    foreign: list[str] = []
    page.on("request", lambda request: foreign.append(request.url))
    sha = place.push({"a": "1"})
    details = "<details><summary>All of it</summary>\n\ninside\n\n</details>"
    button = {"label": "Cancel", "description": "Stop it", "identifier": "cancel"}
    run = place.check_run(sha, actions=[button], output={"title": "Pending", "summary": details})
    page.goto(place.control.opened(f"/login?return_to=/{place.full_name}/commit/{sha}"))
    page.get_by_role("button", name=place.owner, exact=True).click()
    page.get_by_text("Pending").wait_for()
    page.get_by_text("All of it").click()
    done = {"conclusion": "success", "output": {"title": "Accuracy 0.97", "summary": details}}
    place.repo("PATCH", f"/check-runs/{run['id']}", json=done)
    page.get_by_text("Accuracy 0.97").wait_for()
    assert page.get_by_text("inside").is_visible()
    page.get_by_role("button", name="Cancel").click()
    pressed = place.receiver.wait("check_run.requested_action")[0].payload
    assert (pressed["sender"]["login"], pressed["check_run"]["id"]) == (place.owner, run["id"])
    page.get_by_role("img", name="success").first.wait_for()
    assert said == []
    assert [url for url in foreign if not url.startswith((place.server.url, "data:"))] == []
