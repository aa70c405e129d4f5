"""Disk use is counted as the disk counts it, and who fills it up is told from who only suffers."""

import os
from pathlib import Path

import pytest

from launcher.guardian import tree
from launcher.guardian.watch import DiskWatch, Members, TreeWatch, usage


def total(*paths: Path) -> int:
    *_, last = usage([str(path) for path in paths])
    return last


def fill(path: Path, count: int) -> None:
    path.write_bytes(os.urandom(count))


def test_files_count_once_however_often_they_are_linked(tmp_path: Path) -> None:
    (tmp_path / "deep/er").mkdir(parents=True)
    before = total(tmp_path)
    fill(tmp_path / "deep/er/file", 1 << 20)
    os.link(tmp_path / "deep/er/file", tmp_path / "again")
    assert 1 << 20 <= total(tmp_path) - before < (1 << 20) + 65536


def test_a_symlink_leads_nowhere(tmp_path: Path) -> None:
    (tmp_path / "inside").mkdir()
    (tmp_path / "outside").mkdir()
    fill(tmp_path / "outside/file", 1 << 20)
    (tmp_path / "inside/link").symlink_to(tmp_path / "outside")
    assert total(tmp_path / "inside") < 1 << 20


def test_a_missing_directory_counts_nothing(tmp_path: Path) -> None:
    assert total(tmp_path / "none") == 0


def test_the_limit_is_told_in_its_own_unit(tmp_path: Path) -> None:
    fill(tmp_path / "file", 3 << 20)
    breach = DiskWatch([str(tmp_path)], 2 << 20, 0).look(float("inf"))
    assert breach is not None
    assert (breach.cause, breach.detail["used"], breach.detail["limit"]) == ("disk limit", "3", "2 MiB")


def test_a_walk_may_pause_anywhere_even_at_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / "file", 3 << 20)
    monkeypatch.setattr("launcher.guardian.watch._SLICE_S", -1.0)
    watch = DiskWatch([str(tmp_path)], None, 0)
    looks = 1
    watch.look(1e12)
    while watch.in_a_hurry:
        watch.look(1e12)
        looks += 1
    assert looks > 2
    assert watch.used == total(tmp_path)


@pytest.mark.parametrize(
    ("free", "grown", "cause"),
    [
        (1000, 0, None),
        (90, 0, None),
        (90, 500, "disk limit"),
        (40, 0, "disk full"),
        (40, 300, "disk full"),
        (40, 500, "disk limit"),
    ],
)
def test_below_the_floor_whoever_took_the_space_ends_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, grown: int, cause: str | None
) -> None:
    frees, used = [1000, 1000, free], iter([[7], [7 + grown]])
    monkeypatch.setattr(DiskWatch, "_free", lambda _: frees.pop(0))
    monkeypatch.setattr("launcher.guardian.watch.usage", lambda _: iter(next(used)))
    watch = DiskWatch([str(tmp_path)], None, 100)
    far = 1e12
    assert watch.look(far) is None
    breach = watch.look(far * 2)
    assert (breach and breach.cause) == cause


def test_too_many_processes_are_too_many() -> None:
    def watch(count: int) -> TreeWatch:
        return TreeWatch(lambda: Members([0] * count), lambda: 0, memory_limit=None, pids_limit=3)

    assert watch(4).look() is None
    breach = watch(5).look()
    assert breach is not None
    assert (breach.cause, breach.detail["hint"]) == ("command killed", " (it started more than 3 processes)")


def test_files_in_memory_count() -> None:
    watch = TreeWatch(lambda: Members([]), lambda: 2 << 20, memory_limit=1 << 20, pids_limit=None)
    breach = watch.look()
    assert breach is not None
    assert (breach.detail["used"], breach.detail["limit"]) == ("2", "1 MiB")


def test_shared_memory_counts_once() -> None:
    """Counted for each of its sharers it would be over the limit, as the cheap first look says."""
    own = os.getpid()
    several = [own] * 4
    assert tree.resident_bytes(several) == pytest.approx(4 * tree.resident_bytes([own]), rel=0.2)
    assert 0 < tree.proportional_bytes([own]) <= tree.resident_bytes([own]) * 1.2


def test_a_process_is_known_by_its_start() -> None:
    found = tree.process(os.getpid())
    assert found is not None
    assert tree.same(found.pid, found.start)
    assert not tree.same(found.pid, found.start + 1)
    assert tree.process(2**22 + 1) is None
