"""Installation tokens: one request for each need, renewed in time, forgotten when told."""

import asyncio

import pytest

from ci_bot.github import tokens
from ci_bot.github.tokens import CHECKS, READ, Access, Token, Tokens
from tests.unit.github.fake import Clock

ONE = Access(11, 7, READ)


class Maker:
    """Makes tokens that hold for an hour."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.asked: list[Access] = []
        self.tokens = Tokens(self.create, self.clock)

    async def create(self, access: Access) -> Token:
        self.asked.append(access)
        await asyncio.sleep(0)
        return Token(f"ghs_{len(self.asked)}", self.clock.now + 3600)

    def get(self, access: Access = ONE) -> Token:
        return asyncio.run(self.tokens.get(access))


def test_a_token_is_asked_for_once() -> None:
    maker = Maker()
    assert maker.get() is maker.get()
    assert maker.asked == [ONE]


def test_many_tasks_at_once_ask_once() -> None:
    maker = Maker()

    async def many() -> set[str]:
        return {t.value for t in await asyncio.gather(*(maker.tokens.get(ONE) for _ in range(20)))}

    assert asyncio.run(many()) == {"ghs_1"}
    assert len(maker.asked) == 1


@pytest.mark.parametrize(
    "other", [Access(12, 7, READ), Access(11, 8, READ), Access(11, 7, CHECKS), Access(11, None, READ)]
)
def test_other_needs_get_other_tokens(other: Access) -> None:
    maker = Maker()
    assert maker.get() is not maker.get(other)


def test_a_token_is_renewed_before_it_expires() -> None:
    maker = Maker()
    first = maker.get()
    maker.clock.now += 3600 - 301
    assert maker.get() is first
    maker.clock.now += 2
    assert maker.get() is not first


def test_a_refused_token_is_replaced_once_however_many_noticed() -> None:
    maker = Maker()
    first = maker.get()
    maker.tokens.refused(ONE, first)
    second = maker.get()
    maker.tokens.refused(ONE, first)
    assert maker.get() is second


def test_a_removed_installation_leaves_no_token() -> None:
    maker = Maker()
    first, other = maker.get(), maker.get(Access(12, 9, READ))
    maker.tokens.drop(11)
    assert maker.get() is not first
    assert maker.get(Access(12, 9, READ)) is other


def test_a_failed_request_is_not_remembered() -> None:
    maker = Maker()

    async def broken(access: Access) -> Token:
        raise OSError("no")

    failing = Tokens(broken, maker.clock)
    for _ in range(2):
        with pytest.raises(OSError, match="no"):
            asyncio.run(failing.get(ONE))


def test_the_store_of_tokens_does_not_grow_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "MAX_SLOTS", 2)
    maker = Maker()
    for repository_id in (1, 2, 3, 1):
        maker.get(Access(11, repository_id, READ))
    assert [a.repository_id for a in maker.asked] == [1, 2, 3, 1]


def test_a_token_is_never_shown() -> None:
    assert "ghs_secret" not in repr(Token("ghs_secret", 0.0))


def test_a_request_names_repository_and_permissions() -> None:
    assert Access(11, 7, CHECKS).request() == {
        "repository_ids": [7],
        "permissions": {"checks": "write", "metadata": "read"},
    }
    assert "repository_ids" not in Access(11, None, CHECKS).request()
