"""Login: GitHub says who somebody is and what they can read."""

from urllib.parse import parse_qs, urlsplit

import httpx2 as httpx
import pytest

from ci_bot.github import GitHub, Rejected, Unauthorized, Unavailable, User, UserToken
from ci_bot.github.login import challenge
from tests.unit.github.fake import REPO, FakeGitHub, call, ok, repository_answer, said

PATH = "/repos/octo/digits"
EXCHANGE = "/login/oauth/access_token"
BACK = "https://descent.example/login/callback"
USER_TOKEN = "ghu_1234567890abcdef"


def exchange(fake: FakeGitHub) -> UserToken:
    return call(fake, lambda github: github.exchange_code("the-code", "the-verifier", BACK))


def test_the_browser_is_sent_with_state_and_challenge(fake: FakeGitHub) -> None:
    async def work(github: GitHub) -> str:
        return github.authorize_url(BACK, "the-state", "the-verifier")

    url = urlsplit(call(fake, work))
    assert (url.netloc, url.path) == ("pages.example", "/login/oauth/authorize")
    query = {key: value for key, (value,) in parse_qs(url.query).items()}
    assert query == {
        "client_id": "Iv1.client",
        "redirect_uri": BACK,
        "state": "the-state",
        "code_challenge": challenge("the-verifier"),
        "code_challenge_method": "S256",
    }


def test_the_challenge_is_that_of_rfc_7636() -> None:
    assert challenge("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk") == "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"


def test_a_code_is_swapped_for_a_token(fake: FakeGitHub) -> None:
    fake.on("POST", EXCHANGE, ok({"access_token": USER_TOKEN, "token_type": "bearer", "expires_in": 28800}))
    token = exchange(fake)
    assert (token.value, token.expires_in_s) == (USER_TOKEN, 28800)
    form = {key: value for key, (value,) in parse_qs(fake.requests[-1].content.decode()).items()}
    assert form == {
        "client_id": "Iv1.client",
        "client_secret": "client-secret-value",
        "code": "the-code",
        "code_verifier": "the-verifier",
        "redirect_uri": BACK,
    }
    assert "authorization" not in fake.requests[-1].headers
    assert USER_TOKEN not in repr(token)


def test_a_refused_code_is_rejected_although_github_answers_200(fake: FakeGitHub) -> None:
    body = {"error": "bad_verification_code", "error_description": "The code passed is incorrect or expired."}
    fake.on("POST", EXCHANGE, ok(body))
    with pytest.raises(Rejected, match="incorrect or expired"):
        exchange(fake)


@pytest.mark.parametrize("answer", [httpx.Response(200, text="<html>"), ok({}), said(503, "down")])
def test_a_login_page_in_trouble_is_unavailable(fake: FakeGitHub, answer: httpx.Response) -> None:
    fake.on("POST", EXCHANGE, answer)
    with pytest.raises(Unavailable):
        exchange(fake)


def test_a_token_tells_whose_it_is(fake: FakeGitHub) -> None:
    fake.tokens[USER_TOKEN] = {}
    fake.on("GET", "/user", ok({"id": 3, "login": "mona"}))
    assert call(fake, lambda github: github.user(USER_TOKEN)) == User(3, "mona")


def test_a_refused_user_token_is_not_tried_twice(fake: FakeGitHub) -> None:
    with pytest.raises(Unauthorized, match="log in again") as caught:
        call(fake, lambda github: github.user(USER_TOKEN))
    assert len(fake.requests) == 1
    assert USER_TOKEN not in str(caught.value)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (ok(repository_answer()), True),
        (ok(repository_answer(id=8)), False),
        (said(404, "Not Found"), False),
        (said(403, "SAML"), False),
    ],
)
def test_reading_follows_githubs_read_access(fake: FakeGitHub, answer: httpx.Response, expected: bool) -> None:
    fake.tokens[USER_TOKEN] = {}
    fake.on("GET", PATH, answer)
    assert call(fake, lambda github: github.user_can_read(USER_TOKEN, REPO)) is expected
