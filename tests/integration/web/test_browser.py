"""The dashboard in a real browser: what people see, without a reload, and no error in the console."""

import asyncio
import json
import stat
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from ci_bot.demo import local_github
from ci_bot.github.client import GitHub
from ci_bot.local_github.control import Control
from ci_bot.records import Repository
from ci_bot.settings import AppCredentials
from ci_bot.store import begin, repositories
from launcher.experiment import HeldNode, NodeState
from launcher.state import Signal
from tests.integration.web.conftest import RUNNING, Site

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
CHROMIUM = Path("/usr/bin/chromium")
pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason=f"needs a browser at {CHROMIUM}")
ARGUMENTS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def page(chromium: Any) -> Iterator[Any]:
    """A new browser's page; what its console complains about fails the test."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    complaints: list[str] = []
    page.on("console", lambda said: complaints.append(said.text) if said.type in {"error", "warning"} else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.set_default_timeout(20_000)
    yield page
    context.close()
    assert complaints == []


@pytest.fixture
def expect() -> Any:
    sync_api.expect.set_options(timeout=20_000)  # the machine may be busy; what comes sooner is seen sooner
    return sync_api.expect


@pytest.fixture(scope="module")
def github(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Control]:
    with local_github(tmp_path_factory.mktemp("github") / "root") as control:
        control.create_repository("octo/digits")
        yield control
        control.close()


def mark(page: Any) -> None:
    """Leave a mark that a reload would wipe away."""
    page.evaluate("window.seenByTheTest = true")


def is_marked(page: Any) -> bool:
    return bool(page.evaluate("window.seenByTheTest === true"))


def test_the_list_follows_what_happens_without_a_reload(site: Site, page: Any, expect: Any) -> None:
    page.goto(f"{site.url}/?key={site.key}")
    assert "key" not in page.url
    expect(page.get_by_text("No experiments yet")).to_be_visible()
    mark(page)
    number = site.experiment(*RUNNING)
    row = page.locator(f"#experiment-{number}")
    expect(row.locator(".badge")).to_have_text("Running")
    site.end(number)
    expect(row.locator(".badge")).to_have_text("Stopped")
    expect(row).to_contain_text("Train <b>longer</b>")
    assert is_marked(page)
    row.get_by_role("link", name="digits").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text(f"digits #{number}")


def test_an_experiment_lives_on_its_page(site: Site, page: Any, expect: Any) -> None:
    number = site.experiment(Signal.COMMIT_RESOLVED)
    page.goto(f"{site.url}/experiments/{number}?key={site.key}")
    mark(page)
    state = page.locator(".verdict .badge")
    expect(state).to_have_text("Pending")
    expect(page.get_by_text("Nothing was printed yet.")).to_be_visible()
    for signal in RUNNING[1:]:
        site.advance(number, signal)
    site.hold(number, HeldNode("k", "n", "gpu-host-a", "10.0.0.1", ("0",), "bubblewrap"))
    expect(state).to_have_text("Running")
    expect(page.get_by_text("gpu-host-a")).to_be_visible()
    site.write_log(number, b"\x1b[32mepoch 1\x1b[0m <i>done</i>\nepoch 2  10%")
    lines = page.locator("#lines")
    expect(lines).to_have_text("epoch 1 <i>done</i>\nepoch 2  10%")
    expect(lines.locator(".f2")).to_have_text("epoch 1")
    site.write_log(number, b"\repoch 2  99%\nthe end\n")
    expect(lines).to_have_text("epoch 1 <i>done</i>\nepoch 2  99%\nthe end\n")
    site.write_artifact(number, "model.pkl", b"weights")
    site.end(number)
    expect(state).to_have_text("Stopped")
    expect(page.get_by_text("The command ended with exit code 0.")).to_be_visible()
    assert is_marked(page)
    with page.expect_download() as download:
        page.get_by_role("link", name="model.pkl").click()
    assert Path(download.value.path()).read_bytes() == b"weights"


def test_the_log_is_followed_until_one_looks_back(site: Site, page: Any, expect: Any) -> None:
    number = site.experiment(*RUNNING)
    site.write_log(number, b"".join(b"line %d\n" % place for place in range(500)))
    page.goto(f"{site.url}/experiments/{number}?key={site.key}")
    at_end = "log => log.scrollHeight - log.scrollTop - log.clientHeight < 4"
    log = page.locator("#log")
    site.write_log(number, b"more\n")
    expect(page.locator("#lines")).to_contain_text("more")
    assert log.evaluate(at_end)
    log.evaluate("log => log.scrollTop = 10")
    expect(page.get_by_label("Follow")).not_to_be_checked()
    site.write_log(number, b"even more\n")
    expect(page.locator("#lines")).to_contain_text("even more")
    assert not log.evaluate(at_end)
    page.get_by_label("Follow").check()
    assert log.evaluate(at_end)


def test_cancel_and_rerun_ask_first_and_then_do_it(site: Site, page: Any, expect: Any) -> None:
    number = site.experiment(*RUNNING)
    page.goto(f"{site.url}/experiments/{number}?key={site.key}")
    page.once("dialog", lambda dialog: dialog.dismiss())
    page.get_by_role("button", name="Cancel").click()
    assert site.get(number).wish is None
    page.once("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_text("To be cancelled by dashboard")).to_be_visible()
    assert site.get(number).wish is not None
    site.end(number)
    page.once("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Re-run").click()
    expect(page.locator(".verdict .badge")).to_have_text("Created")
    assert site.get(number + 1).rerun == 1


def test_the_nodes_of_a_gang_live_and_their_logs_can_be_chosen(site: Site, page: Any, expect: Any) -> None:
    number = site.gang(*RUNNING)
    for rank in range(3):
        site.write_log(number, b"said by rank %d\n" % rank, rank=rank)
    page.goto(f"{site.url}/experiments/{number}?key={site.key}")
    expect(page.locator("#lines")).to_have_text("said by rank 0\n")
    mark(page)
    ended = page.locator("#node-1 .badge")
    expect(ended).to_have_text("Running")
    site.hold_gang(number, state=NodeState.ENDED, exit_code=3)
    expect(ended).to_have_text("Ended")
    expect(page.locator("#node-1")).to_contain_text("3")
    assert is_marked(page)
    page.get_by_label("Node whose log is shown").select_option("worker 2")
    expect(page.locator("#lines")).to_have_text("said by rank 2\n")
    site.write_log(number, b"and more\n", rank=2)
    expect(page.locator("#lines")).to_have_text("said by rank 2\nand more\n")
    page.locator("#node-1").get_by_role("link").click()
    expect(page.locator("#lines")).to_have_text("said by rank 1\n")


def test_the_node_of_a_log_is_chosen_without_javascript_too(site: Site, chromium: Any, expect: Any) -> None:
    number = site.gang(*RUNNING)
    site.write_log(number, b"said by rank 2\n", rank=2)
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{site.url}/experiments/{number}?key={site.key}")
    page.get_by_label("Node whose log is shown").select_option("worker 2")
    page.get_by_role("button", name="Show").click()
    expect(page.get_by_text("said by rank 2")).to_be_visible()
    context.close()


def test_the_pages_can_be_read_without_javascript(site: Site, chromium: Any, expect: Any) -> None:
    number = site.experiment(*RUNNING)
    site.write_log(number, b"what it said\n")
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{site.url}/?key={site.key}")
    page.get_by_role("link", name="digits").click()
    expect(page.get_by_text("what it said")).to_be_visible()
    page.get_by_role("button", name="Cancel").click()
    assert site.get(number).wish is not None
    context.close()


def test_pages_say_when_the_server_is_gone_and_when_the_session_is(site: Site, chromium: Any, expect: Any) -> None:
    number = site.experiment(*RUNNING)
    context = chromium.new_context()  # its console complains of what can't be reached, as it must
    listing, watching = context.new_page(), context.new_page()
    listing.goto(f"{site.url}/?key={site.key}")
    watching.goto(f"{site.url}/experiments/{number}")
    for page in (listing, watching):
        expect(page.locator("#away")).to_be_hidden()
    context.clear_cookies()
    expect(listing.locator("#away")).to_contain_text("You are logged out here.")
    expect(listing.locator(f"#experiment-{number} .badge")).to_have_text("Running")
    site.stop()
    for page in (listing, watching):
        expect(page.locator("#away")).to_contain_text("Descent does not answer.")
    expect(watching.locator(".verdict .badge")).to_have_text("Running")
    context.close()


def test_set_up_makes_the_app_once_and_closes(
    serve: Callable[..., Site], github: Control, page: Any, expect: Any
) -> None:
    site = serve(github_url=github.url, github_api_url=github.api_url)
    page.goto(github.opened("/"))
    page.goto(f"{site.url}/setup?key={site.key}")
    page.get_by_label("Name").fill("Descent of a test")
    page.get_by_role("button", name="Continue").click()
    page.get_by_role("button", name="Create the App on GitHub").click()
    page.get_by_role("button", name="octo", exact=True).click()
    page.get_by_role("button", name="Create GitHub App for octo").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Descent of a test is created")
    path = site.settings.data_dir / "app.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    kept = json.loads(path.read_text())
    made = site.settings.credentials()
    assert made is not None
    assert (made.app_id, made.slug, made.client_secret) == (kept["id"], "descent-of-a-test", kept["client_secret"])
    GitHub(made)  # the key can be used
    page.get_by_role("link", name="Install the App").click()
    page.get_by_label("All repositories").check()
    page.get_by_role("button", name="Install").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("The App is installed")
    with site.opened() as client:
        assert client.get("/setup").status_code == 404
        assert client.get("/setup/created?code=x&state=y").status_code == 404
    assert json.loads(path.read_text()) == kept


def test_people_log_in_and_see_and_do_what_github_lets_them(
    serve: Callable[..., Site], github: Control, page: Any, expect: Any
) -> None:
    site = serve(github_url=github.url, github_api_url=github.api_url, public_url="http://127.0.0.1:PORT")
    app = github.create_app("Login", None, owner="octo", callback_urls=[f"{site.url}/login/callback"])
    installed = github.install(app["id"], "octo")
    words = {"id": app["id"], "pem": app["pem"], "webhook_secret": "", "slug": app["slug"]}
    words |= {"client_id": app["client_id"], "client_secret": app["client_secret"]}
    (site.settings.data_dir / "app.json").write_text(json.dumps(words))
    assert isinstance(site.settings.credentials(), AppCredentials)
    github.create_user("guest")
    github.set_role("octo/digits", "guest", "read")
    number = repository_of(site, installed["id"])
    hidden = site.experiment(repository_id=99, full_name="octo/hidden", head_sha="d" * 40, title="Nobody sees this")

    page.goto(github.opened("/"))
    page.goto(f"{site.url}/experiments/{number}")
    page.get_by_role("button", name="guest", exact=True).click()
    page.get_by_role("button", name="Authorize Login").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text(f"digits #{number}")
    page.goto(f"{site.url}/")
    expect(page.get_by_text("Train <b>longer</b>")).to_be_visible()
    expect(page.get_by_text("Nobody sees this")).to_have_count(0)
    request = page.context.request
    assert request.get(f"{site.url}/experiments/{hidden}").status == 404
    assert request.get(f"{site.url}/experiments/{hidden}.json").status == 404
    page.goto(f"{site.url}/experiments/{number}")
    token = page.locator("input[name=csrf]").first.get_attribute("value")
    form = {"form": {"csrf": token}, "headers": {"Origin": site.url}}
    refused = request.post(f"{site.url}/experiments/{number}/cancel", **form)
    assert (refused.status, site.get(number).wish) == (403, None)
    github.set_role("octo/digits", "guest", "write")
    page.once("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_text("To be cancelled by guest")).to_be_visible()
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_text("You are logged out")).to_be_visible()
    assert request.get(f"{site.url}/experiments/{number}.json").status == 401


def repository_of(site: Site, installation_id: int) -> int:
    """An experiment of the repository that the local GitHub has."""

    async def ask() -> Repository:
        settings = site.settings
        async with GitHub(settings.credentials(), api_url=settings.github_api_url, url=settings.github_url) as github:
            (known,) = await github.installation_repositories(installation_id)
            return known

    with ThreadPoolExecutor(1) as pool:  # the browser's own event loop runs in this thread
        known = pool.submit(lambda: asyncio.run(ask())).result()
    with begin(site.engine) as connection:
        repositories.remember(connection, known)
    return site.experiment(*RUNNING, repository_id=known.id, installation_id=installation_id)
