"""One call from end to end: credentials, pauses, and what answers mean."""

import asyncio
import traceback
from collections.abc import Callable, Coroutine
from typing import Any

import httpx2 as httpx
import pytest

from ci_bot.github import (
    Forbidden,
    GitHub,
    GitHubError,
    Gone,
    RateLimited,
    Rejected,
    Unauthorized,
    Unavailable,
)
from ci_bot.records import CheckRun, Repository
from tests.unit.github.fake import REPO, A, FakeGitHub, call, ok, repository_answer, run_answer, said

PATH = "/repos/octo/digits"
RUN = CheckRun(name="descent/digits", head_sha=A, status="queued", title="Pending", summary="soon")


async def look(github: GitHub) -> Repository:
    return await github.repository(REPO)


def failure(fake: FakeGitHub, work: Callable[[GitHub], Coroutine[Any, Any, Any]] = look) -> GitHubError:
    with pytest.raises(GitHubError) as caught:
        call(fake, work)
    return caught.value


def test_a_token_is_made_for_one_repository_and_used_again(fake: FakeGitHub) -> None:
    fake.on("GET", PATH, ok(repository_answer()))

    async def twice(github: GitHub) -> None:
        await look(github)
        await look(github)

    call(fake, twice)
    ((token, request),) = fake.tokens.items()
    assert request["repository_ids"] == [7]
    assert request["permissions"] == {"contents": "read", "metadata": "read", "pull_requests": "read"}
    assert [r.headers["authorization"] for r in fake.sent("GET")] == [f"token {token}"] * 2


def test_checks_are_written_with_a_token_that_can_do_nothing_else(fake: FakeGitHub) -> None:
    fake.on("POST", PATH + "/check-runs", ok(run_answer(1), 201))
    call(fake, lambda github: github.create_check_run(REPO, RUN))
    (request,) = fake.tokens.values()
    assert request["permissions"] == {"checks": "write", "metadata": "read"}


def test_an_expired_token_is_renewed_and_the_call_repeated_once(fake: FakeGitHub) -> None:
    fake.on("GET", PATH, ok(repository_answer()))

    async def revoked_between(github: GitHub) -> None:
        await look(github)
        fake.tokens.clear()
        fake.tokens["something else"] = {}
        await look(github)

    call(fake, revoked_between)
    assert len(fake.sent("GET", PATH)) == 3
    assert len(fake.sent("POST")) == 2


def test_a_token_refused_twice_is_an_error(fake: FakeGitHub) -> None:
    fake.on("GET", PATH, said(401, "Bad credentials"))
    error = failure(fake)
    assert isinstance(error, Unauthorized)
    assert len(fake.sent("GET", PATH)) == 2


def test_a_refused_jwt_is_signed_again_once(fake: FakeGitHub) -> None:
    fake.on("GET", "/app", ok({"id": 42, "slug": "descent", "permissions": {"checks": "write"}, "events": ["push"]}))
    fake.refuse_jwts = 1
    assert call(fake, lambda github: github.app()).slug == "descent"
    fake.refuse_jwts = 2
    error = failure(fake, lambda github: github.app())
    assert isinstance(error, Unauthorized)
    assert "GITHUB_APP_ID" in str(error)


def test_without_an_app_the_next_step_is_named(fake: FakeGitHub) -> None:
    with pytest.raises(Unauthorized, match="/setup"):
        call(fake, lambda github: github.app(), credentials=False)
    assert fake.requests == []


def test_a_rate_limit_says_until_when_and_silences_that_installation_only(fake: FakeGitHub) -> None:
    fake.on("GET", PATH, said(403, "API rate limit exceeded", retry_after="30"), ok(repository_answer()))
    other = Repository(id=8, installation_id=12, full_name="octo/digits", default_branch="main")

    async def storm(github: GitHub) -> None:
        for _ in range(3):
            with pytest.raises(RateLimited) as caught:
                await look(github)
            assert caught.value.until == fake.clock.now + 30
        assert len(fake.sent("GET", PATH)) == 1, "nobody asks while GitHub wants a pause"
        await github.repository(other)
        fake.clock.now += 30
        await look(github)

    call(fake, storm)


def test_secondary_limits_in_a_row_wait_longer_until_a_call_goes_through(fake: FakeGitHub) -> None:
    limit = said(403, "You have exceeded a secondary rate limit")
    fake.on("GET", PATH, limit, limit, limit, ok(repository_answer()), limit)

    async def patient(github: GitHub) -> list[float]:
        waits = []
        for turn in range(5):
            if turn == 3:
                await look(github)
                continue
            with pytest.raises(RateLimited) as caught:
                await look(github)
            waits.append(caught.value.until - fake.clock.now)
            fake.clock.now = caught.value.until
        return waits

    assert call(fake, patient) == [60, 120, 240, 60]


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (said(404, "Not Found"), Gone, "Not Found"),
        (said(410, "Gone"), Gone, "does not exist"),
        (said(451, "Repository access blocked"), Gone, "blocked"),
        (said(403, "Resource not accessible by integration"), Forbidden, "permissions"),
        (said(422, "Validation Failed"), Rejected, "422"),
        (said(409, "Conflict"), Rejected, "409"),
        (said(502, "oops"), Unavailable, "502"),
        (httpx.Response(200, text="<html>captive portal"), Unavailable, "incomplete"),
        (httpx.Response(200, content=b"{", headers={"content-type": "application/json"}), Unavailable, "can't be read"),
        (
            httpx.Response(200, content=b"\xff", headers={"content-type": "application/json"}),
            Unavailable,
            "can't be read",
        ),
        (
            httpx.Response(200, content=b"x", headers={"content-type": "text/x; charset=no"}),
            Unavailable,
            "can't be read",
        ),
        (ok({"id": 7, "full_name": "octo/digits"}), Unavailable, "default_branch is missing"),
        (ok([]), Unavailable, "no object"),
        (httpx.Response(301, headers={"location": PATH}), Unavailable, "redirections"),
        (httpx.Response(304), Rejected, "304"),
    ],
)
def test_every_bad_answer_is_one_error_that_says_where_and_why(
    fake: FakeGitHub, answer: httpx.Response, kind: type[GitHubError], words: str
) -> None:
    fake.on("GET", PATH, answer)
    error = failure(fake)
    assert type(error) is kind
    assert words in str(error)
    assert PATH in str(error)


@pytest.mark.parametrize(
    "broken",
    [
        httpx.ConnectError("no route"),
        httpx.ReadTimeout("late"),
        httpx.RemoteProtocolError("half"),
        httpx.InvalidURL("bad"),
    ],
)
def test_a_broken_way_to_github_is_unavailable(fake: FakeGitHub, broken: Exception) -> None:
    def fail(_: httpx.Request) -> httpx.Response:
        raise broken

    fake.on("GET", PATH, fail)
    error = failure(fake)
    assert isinstance(error, Unavailable)
    assert type(broken).__name__ in str(error)


def test_messages_name_the_address_without_its_query(fake: FakeGitHub) -> None:
    fake.on("GET", f"{PATH}/contents/config.yaml", said(500, "oops"))
    error = failure(fake, lambda github: github.read_file(REPO, "config.yaml", A))
    assert str(error) == "GET https://api.example/repos/octo/digits/contents/config.yaml: GitHub answered 500"


def test_a_renamed_repository_is_followed_to_its_number(fake: FakeGitHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.unit.github.fake.complaints", lambda _: [])  # GitHub's description lacks that address
    fake.on("GET", PATH, httpx.Response(301, headers={"location": "https://api.example/repositories/7"}))
    fake.on("GET", "/repositories/7", ok(repository_answer(full_name="octo/numbers")))
    assert call(fake, look).full_name == "octo/numbers"
    fake.on("POST", PATH + "/check-runs", httpx.Response(307, headers={"location": "/repositories/7/check-runs"}))
    fake.on("POST", "/repositories/7/check-runs", ok(run_answer(5), 201))
    assert call(fake, lambda github: github.create_check_run(REPO, RUN)).id == 5
    assert fake.body()["name"] == RUN.name


def test_a_redirection_to_another_host_gets_no_token(fake: FakeGitHub) -> None:
    fake.on("GET", PATH, httpx.Response(302, headers={"location": "https://evil.example/repos"}))
    error = failure(fake)
    assert isinstance(error, Unavailable)
    assert [r.url.host for r in fake.requests] == ["api.example"] * 2


def test_a_next_page_on_another_host_gets_no_token(fake: FakeGitHub) -> None:
    link = '<https://evil.example/installation/repositories?page=2>; rel="next"'
    fake.on("GET", "/installation/repositories", ok({"repositories": []}, link=link))
    error = failure(fake, lambda github: github.installation_repositories(11))
    assert isinstance(error, Unavailable)
    assert {r.url.host for r in fake.requests} == {"api.example"}


def test_a_removed_installation_is_gone(fake: FakeGitHub) -> None:
    fake.on("POST", "/app/installations/11/access_tokens", said(404, "Not Found"))
    error = failure(fake)
    assert isinstance(error, Gone)
    assert "not installed any more" in str(error)


def test_an_unknown_app_makes_nothing_gone(fake: FakeGitHub) -> None:
    fake.on("POST", "/app/installations/11/access_tokens", said(404, "Integration not found"))
    error = failure(fake)
    assert isinstance(error, Unauthorized)
    assert "GITHUB_APP_ID" in str(error)


def test_a_repository_that_left_the_installation_is_gone(fake: FakeGitHub) -> None:
    why = "There is at least one repository that does not exist or is not accessible to the parent installation."
    fake.on("POST", "/app/installations/11/access_tokens", said(422, why))
    error = failure(fake)
    assert isinstance(error, Gone)
    assert "repository 7 is not in installation 11" in str(error)


def test_a_permission_that_was_not_granted_is_named(fake: FakeGitHub) -> None:
    why = "The permissions requested are not granted to this installation."
    fake.on("POST", "/app/installations/11/access_tokens", said(422, why))
    error = failure(fake)
    assert isinstance(error, Forbidden)
    assert "pull_requests: read" in str(error)


def test_a_dropped_installation_needs_a_new_token(fake: FakeGitHub) -> None:
    fake.on("GET", PATH, ok(repository_answer()))

    async def suspended_and_back(github: GitHub) -> None:
        await look(github)
        github.drop_installation(11)
        await look(github)

    call(fake, suspended_and_back)
    assert len(fake.tokens) == 2


def test_a_burst_of_writes_is_sent_at_once_and_a_flood_is_paced(fake: FakeGitHub) -> None:
    fake.on("POST", PATH + "/check-runs", ok(run_answer(1), 201))

    async def write(github: GitHub, times: int) -> None:
        for _ in range(times):
            await github.create_check_run(REPO, RUN)

    call(fake, lambda github: write(github, 10))
    assert fake.clock.slept == []
    call(fake, lambda github: write(github, 13))
    assert fake.clock.slept == [1.0, 1.0, 1.0]


def test_reading_is_never_paced(fake: FakeGitHub) -> None:
    fake.on("GET", PATH, ok(repository_answer()))

    async def read(github: GitHub) -> None:
        await asyncio.gather(*(look(github) for _ in range(50)))

    call(fake, read)
    assert fake.clock.slept == []


def test_no_token_or_key_is_in_any_text(fake: FakeGitHub) -> None:
    def echo(request: httpx.Request) -> httpx.Response:
        # What a debugging proxy does.
        return httpx.Response(
            500 if request.url.path == PATH else 403, text=f"you sent {request.headers['authorization']}"
        )

    def fail(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError(f"can't send {request.headers['authorization']}", request=request)

    texts = []
    for answer in (echo, fail, said(401, "bad"), said(422, "no")):
        fake.on("GET", PATH, answer)
        fake.on("GET", "/app", answer)
        for work in (look, lambda github: github.app()):
            error = failure(fake, work)
            texts += [str(error), repr(error), "".join(traceback.format_exception(error))]
    call_texts: list[str] = []

    async def show(github: GitHub) -> None:
        call_texts.extend([repr(github), str(github)])

    call(fake, show)
    secrets = [r.headers["authorization"].split()[1] for r in fake.requests]
    assert len(secrets) > 8
    for secret in [*secrets, "BEGIN RSA PRIVATE KEY", "client-secret-value"]:
        for text in texts + call_texts:
            for piece in (secret, secret[9:40], secret[-40:]):
                assert piece not in text
