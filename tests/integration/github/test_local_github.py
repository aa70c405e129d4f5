"""Every call against the local GitHub, which is strict and was written by other hands."""

import asyncio
import io
import tarfile
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import httpx2 as httpx
import pytest

from ci_bot.github import Forbidden, GitHub, Gone, RateLimited, Rejected, Role, TooLarge, Unauthorized, Unavailable
from ci_bot.records import Annotation, Button, CheckRun, Repository
from tests.integration.github.conftest import Credentials, Local

T = TypeVar("T")


@pytest.fixture(autouse=True)
def _no_faults_left(local: Local) -> Iterator[None]:
    yield
    local.command("clear-faults")
    local.command("limits")


@pytest.fixture
def run(local: Local, credentials: Credentials) -> Callable[[Callable[[GitHub], Coroutine[Any, Any, T]]], T]:
    def start(work: Callable[[GitHub], Coroutine[Any, Any, T]]) -> T:
        async def main() -> T:
            async with local.client(credentials) as github:
                return await work(github)

        return asyncio.run(main())

    return start


def wanted(sha: str, **fields: Any) -> CheckRun:
    base: dict[str, Any] = {"name": "descent/digits", "head_sha": sha, "status": "queued", "title": "Pending"}
    return CheckRun(
        **(base | {"summary": "soon", "external_id": "exp-1", "details_url": "http://127.0.0.1/1"} | fields)
    )


def test_a_commit_is_read_as_it_was_pushed(run: Any, repo: Repository, sha: str) -> None:
    async def work(github: GitHub) -> None:
        assert await github.repository(repo) == repo
        assert repo in await github.installation_repositories(repo.installation_id)
        assert sorted(await github.root_tree(repo, sha)) == [".descent", "config.yaml", "large.bin"]
        assert await github.read_file(repo, "config.yaml", sha) == b"version: 1\n"
        assert await github.read_file(repo, ".descent/a b?#{c}.yaml", sha) == b"\x00odd\xff"
        assert await github.read_file(repo, "nowhere.yaml", sha) is None
        assert await github.read_file(repo, ".descent", sha) is None
        with pytest.raises(TooLarge):
            await github.read_file(repo, "large.bin", sha, 2_000_000)
        assert await github.ref_head(repo, "refs/heads/feature/x") == sha
        assert await github.ref_head(repo, "refs/heads/feature") is None
        commit = await github.commit(repo, sha)
        assert (commit.sha, commit.title, commit.author) == (sha, "Train longer", "Mona")

    run(work)


def test_a_commit_that_is_not_there_is_gone(run: Any, repo: Repository, tmp_path: Path) -> None:
    nowhere = "d" * 40

    async def work(github: GitHub) -> None:
        for call in (
            github.root_tree(repo, nowhere),
            github.read_file(repo, "config.yaml", nowhere),
            github.tarball(repo, nowhere, tmp_path / "x", 1_000_000),
            github.create_check_run(repo, wanted(nowhere)),
        ):
            with pytest.raises(Gone):
                await call

    run(work)


def test_a_tarball_arrives_without_the_token_going_to_the_other_host(
    run: Any, local: Local, repo: Repository, sha: str, tmp_path: Path
) -> None:
    before = len(local.inspect("requests"))
    size = run(lambda github: github.tarball(repo, sha, tmp_path / "code.tar.gz", 10_000_000))
    content = (tmp_path / "code.tar.gz").read_bytes()
    assert len(content) == size
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        assert any(name.endswith("/config.yaml") for name in archive.getnames())
    *_, asked, sent_on = local.inspect("requests")[before:]
    assert (asked["authorization"], sent_on["operation"], sent_on["authorization"]) == ("token", "codeload", None)
    assert asked["host"] != sent_on["host"]


def test_a_tarball_that_breaks_off_leaves_nothing(
    run: Any, local: Local, repo: Repository, sha: str, tmp_path: Path
) -> None:
    local.command("fault", kind="drop", operation="codeload")
    with pytest.raises(Unavailable):
        run(lambda github: github.tarball(repo, sha, tmp_path / "code.tar.gz", 10_000_000))
    assert list(tmp_path.iterdir()) == []


def test_a_check_run_goes_from_queued_to_its_end(run: Any, local: Local, repo: Repository, sha: str) -> None:
    remarks = tuple(
        Annotation(path="config.yaml", start_line=i, end_line=i, level="failure", title="t", message="m")
        for i in range(1, 61)
    )
    button = Button(label="Cancel", description="Stop this experiment", identifier="cancel")
    end = wanted(
        sha,
        status="completed",
        conclusion="failure",
        title="Failed",
        annotations=remarks,
        started_at=1_800_000_000.0,
        completed_at=1_800_000_060.0,
    )

    async def work(github: GitHub) -> None:
        assert await github.find_check_run(repo, sha, "descent/digits", "exp-1") is None
        posted = await github.create_check_run(repo, wanted(sha, buttons=(button,)))
        assert (posted.status, posted.annotations) == ("queued", 0)
        while posted.annotations < 60:
            posted = await github.update_check_run(repo, posted.id, end, posted.annotations)
        found = await github.find_check_run(repo, sha, "descent/digits", "exp-1")
        assert found is not None
        assert found == posted
        assert (found.conclusion, found.annotations) == ("failure", 60)
        assert await github.find_check_run(repo, sha, "descent/digits", "exp-2") is None

    run(work)
    (shown,) = local.inspect("check-runs", repository="octo/digits", sha=sha)
    assert (shown["output"]["title"], shown["actions"]) == ("Failed", [])
    suite = shown["check_suite"]["id"]
    assert [r.id for r in run(lambda github: github.suite_check_runs(repo, suite))] == [shown["id"]]


def test_a_run_whose_acknowledgement_was_lost_is_found(run: Any, local: Local, repo: Repository, sha: str) -> None:
    local.command("fault", kind="drop_after", operation="checks/create")

    async def work(github: GitHub) -> None:
        with pytest.raises(Unavailable):
            await github.create_check_run(repo, wanted(sha, name="descent/lost"))
        found = await github.find_check_run(repo, sha, "descent/lost", "exp-1")
        assert found is not None

    run(work)


def test_an_expired_token_costs_one_more_request(run: Any, local: Local, repo: Repository) -> None:
    async def work(github: GitHub) -> None:
        await github.repository(repo)
        local.command("expire-tokens")
        await github.repository(repo)

    run(work)


@pytest.mark.parametrize("kind", ["primary_limit", "secondary_limit"])
@pytest.mark.parametrize("status", [403, 429])
@pytest.mark.parametrize("retry_after_s", [None, 7])
def test_limits_are_told_in_every_form(
    run: Any, local: Local, repo: Repository, kind: str, status: int, retry_after_s: int | None
) -> None:
    local.command("fault", kind=kind, status=status, retry_after_s=retry_after_s, seconds=900, path="/repos/*")

    async def work(github: GitHub) -> float:
        with pytest.raises(RateLimited) as caught:
            await github.repository(repo)
        before = len(local.inspect("requests"))
        with pytest.raises(RateLimited):
            await github.repository(repo)
        assert len(local.inspect("requests")) == before
        return caught.value.until - time.time()

    expected = retry_after_s or {"primary_limit": 900, "secondary_limit": 60}[kind]
    assert expected - 5 <= run(work) <= expected + 3


@pytest.mark.parametrize("mode", ["503", "reset"])
def test_a_github_that_is_down_is_unavailable(run: Any, local: Local, repo: Repository, mode: str) -> None:
    local.command("down", mode=mode)
    with pytest.raises(Unavailable):
        run(lambda github: github.repository(repo))


def test_people_have_the_permission_that_github_says(run: Any, local: Local, repo: Repository) -> None:
    local.command("user", login="mona")
    local.command("user", login="stranger")
    local.command("role", repository="octo/digits", login="mona", role="maintain")

    async def work(github: GitHub) -> list[Role]:
        return [await github.permission(repo, login) for login in ("mona", "stranger", "nobody-at-all")]

    assert run(work) == [Role.WRITE, Role.NONE, Role.NONE]


def test_pull_requests_are_read_from_both_ends(run: Any, local: Local, repo: Repository, sha: str) -> None:
    opened = local.command("open-pull", repository="octo/digits", head="ahead", base="main", title="More", user="octo")

    async def work(github: GitHub) -> None:
        head = await github.ref_head(repo, "refs/heads/ahead")
        pull = await github.pull_request(repo, opened["number"])
        assert (pull.is_open, pull.is_fork, pull.head_sha) == (True, False, head)
        assert (pull.head_ref, pull.base_ref, pull.base_sha) == ("ahead", "main", sha)
        assert pull.number in {p.number for p in await github.pulls_for_commit(repo, pull.head_sha)}

    run(work)


def test_the_app_knows_itself_and_its_deliveries(run: Any, local: Local, credentials: Credentials, sha: str) -> None:
    async def work(github: GitHub) -> None:
        app = await github.app()
        assert (app.id, app.permissions["checks"]) == (credentials.app_id, "write")
        assert [i.account for i in await github.installations()] == ["octo"]
        await github.deliveries(since=0.0)

    run(work)


def test_a_wrong_key_is_unauthorized(local: Local, credentials: Credentials) -> None:
    async def work() -> None:
        wrong = Credentials(credentials.app_id + 1000, credentials.private_key, "", "")
        async with local.client(wrong) as github:
            with pytest.raises(Unauthorized, match="GITHUB_APP_ID"):
                await github.app()

    asyncio.run(work())


def test_a_suspended_installation_is_refused_and_a_removed_one_gone(local: Local, credentials: Credentials) -> None:
    made = local.command("repository", full_name="mona/paused", private=True)
    installed = local.command("install", app_id=credentials.app_id, account="mona")
    paused = Repository(made["id"], installed["id"], "mona/paused", "main")

    async def work() -> None:
        async with local.client(credentials) as github:
            local.command("installation", installation_id=installed["id"], action="suspend")
            with pytest.raises((Forbidden, Gone)):
                await github.repository(paused)
            local.command("installation", installation_id=installed["id"], action="delete")
            with pytest.raises(Gone):
                await github.repository(paused)

    asyncio.run(work())


def test_a_repository_outside_the_installation_is_gone(run: Any, local: Local, repo: Repository) -> None:
    made = local.command("repository", full_name="other/private", private=True)
    foreign = Repository(made["id"], repo.installation_id, "other/private", "main")
    with pytest.raises(Gone, match="not in installation"):
        run(lambda github: github.repository(foreign))


def test_a_login_code_is_taken_once(run: Any, local: Local, credentials: Credentials) -> None:
    async def work(github: GitHub) -> None:
        url = httpx.URL(github.authorize_url("http://127.0.0.1/back", "state", "v" * 43))
        assert httpx.get(url).status_code in {200, 302, 303}
        with pytest.raises(Rejected, match="incorrect or expired"):
            await github.exchange_code("wrong", "v" * 43, "http://127.0.0.1/back")

    run(work)
