"""One fake GitHub for each test; the App's key is parsed once for all of them."""

from functools import cache

import pytest

from ci_bot.github import app_auth
from tests.unit.github.fake import Clock, FakeGitHub

parsed_once = cache(app_auth._parsed)


@pytest.fixture(autouse=True)
def _one_parsed_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app_auth, "_parsed", parsed_once)  # 50 ms of checking primes, 200 times


@pytest.fixture
def fake() -> FakeGitHub:
    return FakeGitHub(Clock())
