"""A node's trees of commits: pieces arrive in any way, one tree comes out, the oldest makes room."""

import io
import os
import tarfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from launcher import trees
from launcher.code_cache import KEEP_S, CodeCache
from launcher.node_types import Extracted, NodeError
from launcher.state import Cause

KEY = "1-abc"
ROOM = 1 << 30


def packed(content: bytes = b"x" * 5000, name: str = "top/a") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", compresslevel=0) as tar:
        info = tarfile.TarInfo(name)
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


@pytest.fixture
def cache(tmp_path: Path) -> CodeCache:
    return CodeCache(tmp_path / "code", tmp_path / "locks")


def used(tmp_path: Path, key: str, seconds_ago: float) -> None:
    then = time.time() - seconds_ago
    os.utime(tmp_path / "code" / f"{key}.json", (then, then))


def test_pieces_become_a_tree(cache: CodeCache, tmp_path: Path) -> None:
    archive = packed()
    assert cache.offset(KEY) == 0
    assert cache.put(KEY, 0, archive[:1000], False) is None
    assert cache.offset(KEY) == 1000
    assert cache.put(KEY, 1000, archive[1000:], True) == Extracted(files=1, bytes=5000, submodules=False, lfs=False)
    assert cache.offset(KEY) == -1
    cache.take(KEY, tmp_path / "mine")
    assert (tmp_path / "mine/a").read_bytes() == b"x" * 5000


def test_a_piece_may_come_twice_and_overlap(cache: CodeCache) -> None:
    archive = packed()
    for start, end in ((0, 1000), (0, 1000), (500, 2000), (0, 300)):
        cache.put(KEY, start, archive[start:end], False)
    assert cache.offset(KEY) == 2000
    assert cache.put(KEY, 2000, archive[2000:], True)
    assert cache.put(KEY, 2000, archive[2000:], True) == cache.put(KEY, 0, b"junk", False)


def test_what_another_sender_left_longer_is_cut(cache: CodeCache) -> None:
    archive = packed()
    cache.put(KEY, 0, archive + b"junk", False)
    assert cache.put(KEY, 0, archive, True)


def test_a_missing_piece_is_said(cache: CodeCache) -> None:
    with pytest.raises(NodeError, match="begins at 10, but 0 bytes are here"):
        cache.put(KEY, 10, b"x", False)


def test_two_senders_at_once_make_one_tree(cache: CodeCache) -> None:
    archive, results = packed(), []

    def send() -> None:
        for start in range(0, len(archive), 1500):
            last = start + 1500 >= len(archive)
            results.append(cache.put(KEY, start, archive[start : start + 1500], last))

    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {each for each in results if each} == {Extracted(files=1, bytes=5000, submodules=False, lfs=False)}
    assert cache.offset(KEY) == -1


@pytest.mark.parametrize(
    ("archive", "cause"), [(packed(name="/etc/x"), Cause.REFUSED_ARCHIVE), (packed()[:-900], Cause.PREPARATION_FAILED)]
)
def test_what_is_refused_or_damaged_is_sent_anew(
    cache: CodeCache, tmp_path: Path, archive: bytes, cause: Cause
) -> None:
    with pytest.raises(NodeError) as caught:
        cache.put(KEY, 0, archive, True)
    assert caught.value.cause is cause
    assert cache.offset(KEY) == 0
    assert list((tmp_path / "code").iterdir()) == []


def test_a_tree_whose_record_was_never_written_does_not_count(cache: CodeCache, tmp_path: Path) -> None:
    (tmp_path / "code" / KEY / "half").mkdir(parents=True)
    assert cache.offset(KEY) == 0
    with pytest.raises(NodeError, match="was not sent"):
        cache.take(KEY, tmp_path / "mine")
    cache.put(KEY, 0, packed(), True)
    cache.take(KEY, tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["a"]


def test_everyone_who_takes_a_tree_has_one_of_their_own(cache: CodeCache, tmp_path: Path) -> None:
    cache.put(KEY, 0, packed(), True)
    cache.take(KEY, tmp_path / "first")
    (tmp_path / "first/a").write_text("changed")
    cache.take(KEY, tmp_path / "second")  # nobody has made one ahead
    for _ in range(2):
        cache.make_ahead(KEY, ROOM)  # twice is no harm
    cache.take(KEY, tmp_path / "third")
    assert [(tmp_path / name / "a").stat().st_size for name in ("first", "second", "third")] == [7, 5000, 5000]
    assert len({(tmp_path / name / "a").stat().st_ino for name in ("first", "second", "third")}) == 3


def test_a_tree_made_ahead_is_moved_and_not_copied(cache: CodeCache, tmp_path: Path) -> None:
    cache.put(KEY, 0, packed(), True)
    made = (tmp_path / "code" / KEY / "a").stat().st_ino
    cache.take(KEY, tmp_path / "mine")
    assert (tmp_path / "mine/a").stat().st_ino == made
    assert cache.offset(KEY) == -1


def test_many_who_take_at_once_have_each_a_whole_tree(cache: CodeCache, tmp_path: Path) -> None:
    cache.put(KEY, 0, packed(), True)
    with ThreadPoolExecutor(8) as pool:
        taken = [pool.submit(cache.take, KEY, tmp_path / f"{number}") for number in range(16)]
        made = [pool.submit(cache.make_ahead, KEY, ROOM) for _ in range(4)]
        for each in (*taken, *made):
            each.result()
    assert {(tmp_path / f"{number}/a").stat().st_size for number in range(16)} == {5000}


def test_an_archive_that_was_damaged_since_is_sent_anew(cache: CodeCache, tmp_path: Path) -> None:
    cache.put(KEY, 0, packed(), True)
    (tmp_path / "code" / f"{KEY}.tar.gz").write_bytes(packed()[:-900])
    cache.take(KEY, tmp_path / "first")
    with pytest.raises(NodeError):
        cache.take(KEY, tmp_path / "second")
    assert cache.offset(KEY) == 0
    cache.put(KEY, 0, packed(), True)
    cache.take(KEY, tmp_path / "second")


def test_of_what_was_given_up_nothing_is_made_ahead(cache: CodeCache, tmp_path: Path) -> None:
    cache.put(KEY, 0, packed(), True)
    used(tmp_path, KEY, 2 * KEEP_S)
    cache.evict(set(), everything=True)
    cache.make_ahead(KEY, ROOM)
    assert list((tmp_path / "code").iterdir()) == []


def test_the_least_recently_used_makes_room(tmp_path: Path) -> None:
    cache = CodeCache(tmp_path / "code", tmp_path / "locks", max_bytes=45_000)
    for age, key in enumerate(["1-new", "1-old", "1-older-in-use"]):
        cache.put(key, 0, packed(), True)
        used(tmp_path, key, KEEP_S * (age + 2))
    cache.evict({"1-older-in-use"})
    assert [cache.offset(key) for key in ("1-new", "1-old", "1-older-in-use")] == [-1, 0, -1]
    assert not (tmp_path / "code/1-old").exists()


def test_nothing_is_given_up_below_the_limit_or_just_after_its_use(cache: CodeCache, tmp_path: Path) -> None:
    for key in ("1-a", "1-b"):
        cache.put(key, 0, packed(), True)
    used(tmp_path, "1-a", 10 * KEEP_S)
    cache.evict(set())
    assert cache.offset("1-a") == -1  # which is a use
    cache.evict(set(), everything=True)
    assert (cache.offset("1-a"), cache.offset("1-b")) == (-1, -1)


def test_everything_unused_is_given_up_when_room_is_needed(cache: CodeCache, tmp_path: Path) -> None:
    cache.put("1-a", 0, packed(), True)
    used(tmp_path, "1-a", 2 * KEEP_S)
    cache.evict(set(), everything=True)
    assert cache.offset("1-a") == 0


def test_pieces_that_nobody_sends_any_more_go(cache: CodeCache, tmp_path: Path) -> None:
    for key, seconds_ago in (("1-a", 2 * KEEP_S), ("1-b", 0.0)):
        cache.put(key, 0, b"x", False)
        then = time.time() - seconds_ago
        os.utime(tmp_path / "code" / f"{key}.part", (then, then))
    cache.evict(set())
    assert (cache.offset("1-a"), cache.offset("1-b")) == (0, 1)


def test_what_goes_while_others_are_given_up_is_no_error(cache: CodeCache, tmp_path: Path) -> None:
    for name in ("1-a.part", "1-b.json"):
        (tmp_path / "code" / name).symlink_to("gone")  # listed, and not there any more
    cache.evict(set(), everything=True)


def test_nothing_is_made_ahead_that_would_take_the_room_of_others(cache: CodeCache, tmp_path: Path) -> None:
    cache.put(KEY, 0, packed(), True)
    cache.take(KEY, tmp_path / "mine")
    cache.make_ahead(KEY, 5000)  # its 5000 bytes take more than that
    assert not (tmp_path / "code" / KEY).exists()
    cache.make_ahead(KEY, 10_000)
    assert (tmp_path / "code" / KEY).exists()


def test_trees_made_ahead_go_first_when_room_is_needed_also_of_what_is_in_use(cache: CodeCache, tmp_path: Path) -> None:
    cache.put(KEY, 0, packed(), True)
    cache.evict({KEY}, everything=True)
    assert not (tmp_path / "code" / KEY).exists()
    assert cache.offset(KEY) == -1
    cache.take(KEY, tmp_path / "mine")


def test_what_was_never_finished_goes(cache: CodeCache, tmp_path: Path) -> None:
    cache.put(KEY, 0, packed(), True)
    code, old = tmp_path / "code", time.time() - 2 * KEEP_S
    left = [code / name for name in ("2-b", "2-b.tree", "3-c.ahead.tree", "4-d.tar.gz", "5-e.new")]
    for path in left:
        path.mkdir()
        os.utime(path, (old, old))
    (code / "6-young.ahead.tree").mkdir()
    cache.evict(set())
    assert sorted(path.name for path in code.iterdir()) == [KEY, f"{KEY}.json", f"{KEY}.tar.gz", "6-young.ahead.tree"]


def test_whoever_dies_while_giving_up_leaves_what_the_next_one_finds(
    cache: CodeCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.put(KEY, 0, packed(), True)
    used(tmp_path, KEY, 2 * KEEP_S)
    removed = iter([True, False])

    def dying(path: Path) -> None:
        if not next(removed):
            raise KeyboardInterrupt
        trees_remove(path)

    trees_remove = trees.remove
    with monkeypatch.context() as patch:
        patch.setattr(trees, "remove", dying)
        with pytest.raises(KeyboardInterrupt):
            cache._give_up(KEY)
    cache.evict(set(), everything=True)
    assert list((tmp_path / "code").iterdir()) == []
