"""A port's lock has one holder, and their file is there only while there is any, and only ours."""

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from launcher import port_locks
from launcher.node_types import NodeError

PORT = 20000


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(port_locks, "DIRECTORY", tmp_path)
    return tmp_path / f"descent-ports-{os.geteuid()}"


@pytest.fixture
def held() -> Iterator[list[int]]:
    """Locks to be given back at the end."""
    locks: list[int] = []
    yield locks
    for lock in locks:
        port_locks.give_back(lock)


def taken(port: int) -> int:
    lock = port_locks.take(port)
    assert lock is not None
    return lock


def test_a_port_has_one_holder_until_it_is_given_back(held: list[int]) -> None:
    lock = taken(PORT)
    held.append(taken(PORT + 1))
    assert port_locks.take(PORT) is None
    port_locks.give_back(lock)
    held.append(taken(PORT))


def test_the_file_is_empty_and_goes_with_its_last_user(place: Path) -> None:
    first, last = taken(PORT), taken(PORT + 1)
    assert place.stat().st_size == 0
    port_locks.give_back(first)
    assert port_locks.take(PORT + 1) is None
    port_locks.give_back(last)
    assert not place.exists()


def test_nobody_else_can_open_the_file(place: Path, held: list[int]) -> None:
    held.append(taken(PORT))
    assert place.stat().st_mode & 0o777 == 0o600


def test_what_a_killed_agent_left_is_used_and_removed(place: Path) -> None:
    place.touch(0o600)
    port_locks.give_back(taken(PORT))
    assert not place.exists()


def test_a_file_that_was_removed_after_it_was_opened_is_not_used(
    place: Path, held: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, files = port_locks._opened, []

    def too_early() -> int:
        files.append(opened())
        if len(files) == 1:
            place.unlink()
        return files[-1]

    monkeypatch.setattr(port_locks, "_opened", too_early)
    held.append(taken(PORT))
    assert len(files) == 2
    assert port_locks.take(PORT) is None


def test_a_file_that_is_not_ours_any_more_is_left_alone(place: Path, held: list[int]) -> None:
    old = taken(PORT)
    place.unlink()  # whoever clears old files away
    held.append(taken(PORT))
    port_locks.give_back(old)
    assert place.exists()
    assert port_locks.take(PORT) is None


def test_many_at_once_never_have_the_same_port_and_always_get_one_that_is_free(place: Path) -> None:
    having, times = threading.Lock(), 300

    def shared(_: int) -> int:
        found = 0
        for _ in range(times):
            lock = port_locks.take(PORT)
            if lock is not None:
                assert having.acquire(blocking=False)
                found += 1
                having.release()
                port_locks.give_back(lock)
        return found

    def own(number: int) -> int:
        for _ in range(times):
            port_locks.give_back(taken(PORT + 1 + number))
        return times

    with ThreadPoolExecutor(6) as pool:
        met = [*pool.map(lambda number: (own if number % 2 else shared)(number), range(6))]
    assert all(met[::2])
    assert met[1::2] == [times] * 3
    assert not place.exists()


def test_a_link_or_a_folder_in_its_place_is_refused(place: Path, tmp_path: Path) -> None:
    (tmp_path / "theirs").touch()
    place.symlink_to(tmp_path / "theirs")
    with pytest.raises(NodeError, match=f"{place} must be a file of ours"):
        port_locks.take(PORT)
    place.unlink()
    place.mkdir()
    with pytest.raises(NodeError, match=f"{place} must be a file of ours"):
        port_locks.take(PORT)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_of_somebody_else_is_refused(place: Path) -> None:
    place.touch(0o666)
    os.chown(place, 65534, 65534)
    with pytest.raises(NodeError, match="belongs to another user"):
        port_locks.take(PORT)
    assert place.exists()
