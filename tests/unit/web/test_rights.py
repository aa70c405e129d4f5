"""Sessions, and what people may see and do."""

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from ci_bot.github.answers import Role, User, UserToken
from ci_bot.github.client import GitHub
from ci_bot.github.errors import Unauthorized
from ci_bot.records import Repository
from ci_bot.settings import Settings
from ci_bot.web.login import local_path
from ci_bot.web.rights import READ_S, KeyHolder, LoginAgain, Person, Sessions

DIGITS = Repository(7, 1, "octo/digits", "main")


@dataclass
class Clock:
    now: float = 1_790_000_000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class People:
    """A GitHub that knows who may do what."""

    readers: set[str] = field(default_factory=set)
    roles: dict[str, Role] = field(default_factory=dict)
    refused: bool = False
    asked: int = 0

    async def user_can_read(self, token: str, repository: Any) -> bool:
        self.asked += 1
        if self.refused:
            raise Unauthorized("no")
        return token in self.readers

    async def permission(self, repository: Any, login: str, user_id: int) -> Role:
        return self.roles.get(login, Role.NONE) if user_id == 1 else Role.NONE


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def sessions(tmp_path: Path, clock: Clock) -> Sessions:
    return Sessions(Settings(data_dir=tmp_path), clock)


def log_in(sessions: Sessions, github: People, lasts_s: int = 3600) -> tuple[str, Person]:
    cookie = sessions.log_in(User(1, "mona"), UserToken("token", lasts_s), cast("GitHub", github))
    person = sessions.viewer(cookie, key_is_enough=False)
    assert isinstance(person, Person)
    return cookie, person


def test_a_session_of_the_key_counts_only_where_the_key_does(sessions: Sessions) -> None:
    cookie = sessions.open_with_key()
    assert isinstance(sessions.viewer(cookie, key_is_enough=True), KeyHolder)
    assert sessions.viewer(cookie, key_is_enough=False) is None


@pytest.mark.parametrize(
    "spoil", [lambda c: c + "x", lambda c: c[:-1], lambda c: "", lambda c: None, lambda c: "é.b.c"]
)
def test_a_changed_cookie_is_worth_nothing(sessions: Sessions, spoil: Any) -> None:
    assert sessions.viewer(spoil(sessions.open_with_key()), key_is_enough=True) is None


def test_a_new_key_closes_the_sessions_of_the_old_one(sessions: Sessions, tmp_path: Path, clock: Clock) -> None:
    cookie = sessions.open_with_key()
    assert Sessions(Settings(data_dir=tmp_path), clock).viewer(cookie, key_is_enough=True) is not None
    (tmp_path / "key").write_text("another")
    assert Sessions(Settings(data_dir=tmp_path), clock).viewer(cookie, key_is_enough=True) is None


def test_a_session_of_the_key_ends_with_log_out_whoever_kept_its_cookie(sessions: Sessions) -> None:
    cookie, another = sessions.open_with_key(), sessions.open_with_key()
    holder = sessions.viewer(cookie, key_is_enough=True)
    assert holder is not None
    sessions.log_out(holder)
    assert sessions.viewer(cookie, key_is_enough=True) is None
    assert sessions.viewer(another, key_is_enough=True) is not None


def test_what_is_sealed_for_one_purpose_is_no_session(sessions: Sessions) -> None:
    assert sessions.viewer(sessions.sealed("login", {"id": "x", "key": "y"}), key_is_enough=True) is None


def test_each_session_has_its_own_csrf_token(sessions: Sessions) -> None:
    one, other = KeyHolder("one"), KeyHolder("other")
    assert sessions.is_csrf_token(one, sessions.csrf_token(one))
    assert not sessions.is_csrf_token(one, sessions.csrf_token(other))
    assert not sessions.is_csrf_token(one, "")


def test_a_login_ends_with_githubs_token_and_with_log_out(sessions: Sessions, clock: Clock) -> None:
    cookie, person = log_in(sessions, People(), lasts_s=60)
    assert person.name == "mona"
    assert "token" not in repr(person)
    clock.now += 61
    assert sessions.viewer(cookie, key_is_enough=False) is None
    cookie, person = log_in(sessions, People())
    sessions.log_out(person)
    assert sessions.viewer(cookie, key_is_enough=False) is None


def test_read_access_is_believed_for_a_minute_and_no_longer(sessions: Sessions, clock: Clock) -> None:
    github = People(readers={"token"})
    _, person = log_in(sessions, github)
    assert asyncio.run(person.may_read(DIGITS))
    github.readers.clear()
    assert asyncio.run(person.may_read(DIGITS))
    assert github.asked == 1
    clock.now += READ_S + 1
    assert not asyncio.run(person.may_read(DIGITS))


def test_write_access_is_asked_each_time(sessions: Sessions) -> None:
    github = People(roles={"mona": Role.WRITE})
    _, person = log_in(sessions, github)
    assert asyncio.run(person.may_write(DIGITS))
    github.roles["mona"] = Role.READ
    assert not asyncio.run(person.may_write(DIGITS))


def test_a_token_that_github_refuses_ends_the_session(sessions: Sessions) -> None:
    cookie, person = log_in(sessions, People(refused=True))
    with pytest.raises(LoginAgain):
        asyncio.run(person.may_read(DIGITS))
    assert sessions.viewer(cookie, key_is_enough=False) is None


@pytest.mark.parametrize(
    ("asked", "path"),
    [("/experiments/3?a=b", "/experiments/3?a=b"), ("//evil.example/", "/"), ("/\\evil.example", "/"), ("", "/"),
     ("https://evil.example", "/"), ("/a\r\nSet-Cookie: x", "/")],
)  # fmt: skip
def test_a_login_leads_to_a_path_of_ours(asked: str, path: str) -> None:
    assert local_path(asked) == path
