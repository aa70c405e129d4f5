"""What a commit's archive lacks is looked for once, and what can't be read is fetched again."""

import asyncio
import io
import tarfile
from pathlib import Path
from typing import Any, BinaryIO, cast

import pytest

from ci_bot.records import Experiment
from ci_bot.worker import source
from ci_bot.worker.fetching import SourceRefused, SourceUnavailable
from ci_bot.worker.source import SUBMODULES, GitHubSource, look_through
from launcher.archive import missing


def packed(*names: str, link: bool = False) -> bytes:
    """An archive as GitHub sends it, with these files."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as tar:
        for name in names:
            tar.addfile(tarfile.TarInfo(f"x/{name}"))
        if link:
            device = tarfile.TarInfo("x/device")
            device.type = tarfile.CHRTYPE
            tar.addfile(device)
    return data.getvalue()


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch) -> list[BinaryIO]:
    """Every archive that was looked through."""
    found: list[BinaryIO] = []

    def counted(archive: BinaryIO) -> tuple[bool, bool]:
        found.append(archive)
        return missing(archive)

    monkeypatch.setattr(source, "missing", counted)
    return found


def test_an_archive_is_looked_through_once_however_many_want_it(tmp_path: Path, looked: list[BinaryIO]) -> None:
    archive = tmp_path / "1-a.tar.gz"
    archive.write_bytes(packed("train.py", ".gitmodules"))
    assert [look_through(archive) for _ in range(3)] == [(SUBMODULES,)] * 3
    assert len(looked) == 1


def test_one_that_no_node_would_take_is_refused_to_all_and_looked_through_once(
    tmp_path: Path, looked: list[BinaryIO]
) -> None:
    archive = tmp_path / "1-a.tar.gz"
    archive.write_bytes(packed("train.py", link=True))
    said = set()
    for _ in range(3):
        with pytest.raises(SourceRefused) as refused:
            look_through(archive)
        said.add(str(refused.value))
    assert len(looked) == len(said) == 1


def test_another_archive_at_the_same_place_is_looked_through_anew(tmp_path: Path, looked: list[BinaryIO]) -> None:
    archive, next_one = tmp_path / "1-a.tar.gz", tmp_path / "part"
    archive.write_bytes(packed("train.py"))
    assert look_through(archive) == ()
    next_one.write_bytes(packed(".gitmodules"))
    next_one.replace(archive)
    assert look_through(archive) == (SUBMODULES,)


def test_a_damaged_archive_is_removed_and_what_comes_next_is_looked_through(tmp_path: Path) -> None:
    archive = tmp_path / "1-a.tar.gz"
    whole = packed("train.py", ".gitmodules")
    archive.write_bytes(whole[:40])
    with pytest.raises(SourceUnavailable, match="damaged"):
        look_through(archive)
    assert not archive.exists()
    archive.write_bytes(whole)
    assert look_through(archive) == (SUBMODULES,)


def test_an_archive_that_can_not_be_read_is_asked_for_again(tmp_path: Path, looked: list[BinaryIO]) -> None:
    with pytest.raises(SourceUnavailable, match="can't be read"):
        look_through(tmp_path / "none.tar.gz")
    directory = tmp_path / "1-a.tar.gz"
    directory.mkdir()
    with pytest.raises(SourceUnavailable, match="can't be read"):
        look_through(directory)


def test_a_disk_that_refuses_is_no_defect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*_: object, **__: object) -> bool:
        raise PermissionError("no")

    monkeypatch.setattr(Path, "exists", refuses)
    fetching = GitHubSource(cast("Any", None), "https://github.example")
    experiment = cast("Experiment", type("E", (), dict.fromkeys(("repository_id", "installation_id", "full_name"), 1)))
    with pytest.raises(SourceUnavailable, match="no"):
        asyncio.run(fetching.fetch(experiment, tmp_path / "1-a.tar.gz"))
