"""Who asks for much waits behind itself alone."""

import asyncio

import pytest

from launcher.ray_backend.turns import Turns
from tests.fakes import play


def test_of_one_kind_only_so_many_have_their_turn_and_nobody_else_stands_behind_them() -> None:
    turns, busy, most = Turns(64), {"greedy": 0, "modest": 0}, {"greedy": 0, "modest": 0}
    ended: list[tuple[str, float]] = []

    async def call(key: str) -> None:
        async with turns.of(key):
            busy[key] += 1
            most[key] = max(most[key], busy[key])
            await asyncio.sleep(5)
            busy[key] -= 1
        ended.append((key, asyncio.get_running_loop().time()))

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(1000):
                group.create_task(call("greedy"))
            group.create_task(call("modest"))

    play(main())
    assert most == {"greedy": 64, "modest": 1}
    assert dict(ended)["greedy"] == 5 * 16
    assert [at for key, at in ended if key == "modest"] == [5]
    assert len(turns) == 0


def test_a_turn_that_fails_or_is_given_up_is_another_s() -> None:
    turns = Turns(1)

    async def hold() -> None:
        async with turns.of("a"):
            await asyncio.sleep(5)

    async def main() -> None:
        with pytest.raises(ZeroDivisionError):
            async with turns.of("a"):
                raise ZeroDivisionError
        has, waits, next_one = (asyncio.ensure_future(hold()) for _ in range(3))
        await asyncio.sleep(1)
        waits.cancel()
        has.cancel()
        await asyncio.gather(has, waits, return_exceptions=True)
        assert len(turns) == 1
        await next_one
        assert asyncio.get_running_loop().time() == 6

    play(main())
    assert len(turns) == 0
