"""No error text holds a secret, in any form GitHub gives them."""

import pytest

from ci_bot.github.errors import GitHubError, RateLimited, Rejected, scrubbed

JWT = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiI0MiJ9.c2lnbmF0dXJl-_x"


@pytest.mark.parametrize(
    "secret",
    [
        "ghs_" + "a" * 36,
        f"ghs_1234567_{JWT}",
        "ghu_" + "B" * 36,
        "gho_" + "c" * 36,
        "ghp_" + "d" * 36,
        "ghr_" + "e" * 76,
        "github_pat_" + "f" * 22 + "_" + "g" * 59,
        JWT,
    ],
)
@pytest.mark.parametrize(
    "around", ["{}", "token {}", "Bearer {}", '{{"authorization": "token {}"}}', "https://x/y?a=1&token={}&b=2"]
)
def test_tokens_old_and_new_are_masked_to_their_last_character(secret: str, around: str) -> None:
    text = scrubbed(f"before {around.format(secret)} after")
    assert "***" in text
    assert text.startswith("before ")
    assert text.endswith(" after")
    for piece in (secret[4:12], secret[-8:]):
        assert piece not in text


def test_a_token_of_no_known_form_is_masked_by_what_stands_before_it() -> None:
    assert scrubbed("you sent: token v1.1f699f1069f60xxx") == "you sent: token ***"


@pytest.mark.parametrize("kind", [GitHubError, lambda t: RateLimited(t, 0.0), lambda t: Rejected(t, 422)])
def test_every_error_masks_its_text(kind: type[GitHubError]) -> None:
    error = kind(f"sent {JWT}")
    assert JWT not in str(error) + repr(error) + str(error.args)


def test_the_code_of_the_manifest_flow_is_masked() -> None:
    assert scrubbed("POST https://x/app-manifests/abc123/conversions") == "POST https://x/app-manifests/***/conversions"


def test_plain_words_stay() -> None:
    said = "GET https://api.example/repos/octo/digits: 404 Not Found; token expired; see eyJ"
    assert scrubbed(said) == said


def test_a_rate_limit_says_when_it_ends() -> None:
    error = RateLimited("GET /x: GitHub's rate limit", 1_800_000_000.0)
    assert str(error) == "GET /x: GitHub's rate limit; trying again after 08:00:00 UTC"
