"""A nudge reaches whoever listens, and troubles nobody when it can't."""

import asyncio
import socket
import stat
from pathlib import Path

import pytest

from ci_bot.nudge import Listener, Nudge, listen


async def wait_for_nudge(path: Path, *nudges: Nudge) -> int:
    """How many callbacks the nudges of one moment made, the first of them awaited."""
    heard = asyncio.Event()
    calls = 0

    def callback() -> None:
        nonlocal calls
        calls += 1
        heard.set()

    listener = listen(path, callback)
    for nudge in nudges:
        nudge.send()
    async with asyncio.timeout(5):
        await heard.wait()
    await asyncio.sleep(0)
    listener.close()
    return calls


@pytest.mark.parametrize("depth", [0, 3], ids=["short path", "path longer than a socket's address"])
def test_nudges_that_come_together_are_heard_as_one(tmp_path: Path, depth: int) -> None:
    directory = tmp_path.joinpath(*["d" * 60] * depth)
    directory.mkdir(parents=True, exist_ok=True)
    nudge = Nudge(directory / "nudge.sock")
    assert asyncio.run(wait_for_nudge(directory / "nudge.sock", nudge, nudge, nudge)) == 1
    nudge.close()


def test_a_nudge_that_nobody_hears_is_no_error(tmp_path: Path) -> None:
    nudge = Nudge(tmp_path / "missing" / "nudge.sock")
    nudge.send()
    nudge.close()
    nudge.send()


def test_a_nudge_never_blocks_when_the_listener_hangs(tmp_path: Path) -> None:
    hanging = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    hanging.bind(str(tmp_path / "nudge.sock"))
    nudge = Nudge(tmp_path / "nudge.sock")
    for _ in range(10_000):
        nudge.send()
    nudge.close()
    hanging.close()


def test_a_listener_takes_the_place_of_one_that_was_killed(tmp_path: Path) -> None:
    path = tmp_path / "nudge.sock"
    killed = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    killed.bind(str(path))
    killed.close()  # its file stays
    nudge = Nudge(path)
    nudge.send()
    assert asyncio.run(wait_for_nudge(path, nudge)) == 1
    nudge.close()
    assert not path.exists()


def test_who_was_replaced_does_not_remove_its_successor(tmp_path: Path) -> None:
    path = tmp_path / "nudge.sock"

    async def replace() -> bool:
        old: Listener = listen(path, lambda: None)
        new = listen(path, lambda: None)
        old.close()
        there = path.exists()
        new.close()
        return there

    assert asyncio.run(replace())
    assert list(tmp_path.iterdir()) == []


def test_only_the_owner_may_nudge(tmp_path: Path) -> None:
    async def mode() -> int:
        listener = listen(tmp_path / "nudge.sock", lambda: None)
        found = stat.S_IMODE((tmp_path / "nudge.sock").stat().st_mode)
        listener.close()
        return found

    assert asyncio.run(mode()) == 0o600


def test_a_missing_directory_is_an_error_of_who_listens(tmp_path: Path) -> None:
    async def start() -> None:
        listen(tmp_path / "missing" / "nudge.sock", lambda: None)

    with pytest.raises(FileNotFoundError):
        asyncio.run(start())
