"""Files of an earlier attempt come back whole, and only below the artifacts directory."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher.node_types import NodeError
from launcher.put_back import Place, put_back
from launcher.state import Cause


@pytest.fixture
def place(tmp_path: Path) -> Place:
    (tmp_path / "artifacts").mkdir()
    return Place(tmp_path / "artifacts", tmp_path / "parts")


def put(place: Place, path: str, text: bytes, *, offset: int = 0, last: bool = True) -> None:
    put_back(place, path, offset=offset, data=text, last=last)


def test_a_file_is_there_with_its_last_piece(place: Place) -> None:
    put(place, "a/b/model", b"one", last=False)
    assert not list(place.root.iterdir())
    put(place, "a/b/model", b"two", offset=3)
    assert (place.root / "a/b/model").read_bytes() == b"onetwo"
    assert (place.root / "a/b/model").stat().st_mode & 0o777 == 0o644


def test_every_piece_may_come_again(place: Place) -> None:
    for offset, text, last in ((0, b"one", False), (0, b"one", False), (3, b"two", False), (3, b"two", False)):
        put(place, "x", text, offset=offset, last=last)
    for _ in range(2):
        put(place, "x", b"end", offset=6)
    assert (place.root / "x").read_bytes() == b"onetwoend"
    for _ in range(2):
        put(place, "empty", b"")
    assert (place.root / "empty").read_bytes() == b""


def test_a_file_that_comes_anew_has_nothing_of_the_interrupted_one(place: Place) -> None:
    put(place, "x", b"longer", last=False)
    put(place, "x", b"one")
    assert (place.root / "x").read_bytes() == b"one"


def test_two_files_may_come_at_once(place: Place) -> None:
    for name in ("x", "y"):
        put(place, name, name.encode(), last=False)
    for name in ("x", "y"):
        put(place, name, b"!", offset=1)
    assert [(place.root / name).read_bytes() for name in ("x", "y")] == [b"x!", b"y!"]


def test_a_missing_piece_is_said(place: Place) -> None:
    put(place, "x", b"12", last=False)
    with pytest.raises(NodeError, match="does not follow the 2 bytes"):
        put(place, "x", b"45", offset=3)
    with pytest.raises(NodeError, match="does not follow"):
        put(place, "never-begun", b"45", offset=3)


def test_what_the_repository_has_there_gives_way(place: Place) -> None:
    (place.root / "x").write_text("the repository's")
    put(place, "x", b"mine")
    assert (place.root / "x").read_bytes() == b"mine"


@pytest.mark.parametrize("path", ["", "/etc/x", "../x", "a/../x", "a//x", "./x", "a/", "a\0b"])
def test_a_path_that_is_none_is_refused(place: Place, path: str) -> None:
    with pytest.raises(NodeError, match="is no path"):
        put(place, path, b"x")


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """A folder that links lead to; it is afterwards as it was."""
    found = tmp_path / "outside"
    found.mkdir()
    (found / "file").write_text("theirs")
    yield found
    assert [path.name for path in found.iterdir()] == ["file"]
    assert (found / "file").read_text() == "theirs"


def test_a_link_gives_way_and_is_not_followed(place: Place, outside: Path) -> None:
    (place.root / "way").symlink_to(outside)
    (place.root / "end").symlink_to(outside / "file")
    (place.root / "folder").symlink_to(outside)
    (place.root / "dangling").symlink_to("nowhere")
    for path in ("way/deep/x", "end", "folder", "dangling/x"):
        put(place, path, b"mine")
        assert (place.root / path).read_bytes() == b"mine"
    assert [path for path in place.root.rglob("*") if path.is_symlink()] == []


def test_a_link_gives_way_below_a_folder_too(place: Place, outside: Path) -> None:
    (place.root / "a").mkdir()
    (place.root / "a/b").symlink_to(outside)
    put(place, "a/b/file", b"mine")
    assert (place.root / "a/b/file").read_bytes() == b"mine"


def test_what_is_no_folder_gives_way_to_one(place: Place) -> None:
    (place.root / "file").write_text("the repository's")
    os.mkfifo(place.root / "pipe")
    for name in ("file", "pipe"):
        put(place, f"{name}/x", b"mine")
        assert (place.root / name / "x").read_bytes() == b"mine"


def test_a_folder_gives_way_to_a_file_with_all_that_is_in_it(place: Place, outside: Path) -> None:
    (place.root / "x/deep").mkdir(parents=True)
    (place.root / "x/deep/file").write_text("the repository's")
    (place.root / "x/deep").chmod(0o500)
    (place.root / "x/link").symlink_to(outside)
    (place.root / "empty").mkdir()
    for name in ("x", "empty"):
        put(place, name, b"mine")
        assert (place.root / name).read_bytes() == b"mine"
    assert list(place.parts.iterdir()) == []


def test_a_folder_of_any_depth_gives_way(place: Place) -> None:
    handle = os.open(place.root, os.O_RDONLY)
    for name in ("x", *(["d"] * 1500)):
        os.mkdir(name, dir_fd=handle)
        deeper = os.open(name, os.O_RDONLY, dir_fd=handle)
        os.close(handle)
        handle = deeper
    os.close(handle)
    put(place, "x", b"mine")
    assert (place.root / "x").read_bytes() == b"mine"


def test_what_was_put_back_before_gives_way(place: Place) -> None:
    put(place, "x", b"first")
    put(place, "x/y", b"second")
    assert (place.root / "x/y").read_bytes() == b"second"
    put(place, "x", b"third")
    assert (place.root / "x").read_bytes() == b"third"


def test_a_file_behind_a_link_is_not_taken_for_one_that_came_before(place: Place, outside: Path) -> None:
    (place.root / "way").symlink_to(outside)
    with pytest.raises(NodeError, match="does not follow"):
        put(place, "way/file", b"irs", offset=3)


def test_artifacts_that_are_a_link_themselves_are_refused(place: Place, outside: Path) -> None:
    place.root.rmdir()
    place.root.symlink_to(outside)
    with pytest.raises(NodeError, match="can't be put back") as caught:
        put(place, "file", b"mine")
    assert caught.value.cause is Cause.ARTIFACTS_NOT_STORED


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_files_and_their_folders_belong_to_the_command(tmp_path: Path) -> None:
    (tmp_path / "artifacts").mkdir()
    (tmp_path / "artifacts/b").write_text("in the way")
    for path in ("a/x", "b/x"):
        put(Place(tmp_path / "artifacts", tmp_path / "parts", uid=54321), path, b"x")
    for name in ("a", "a/x", "b", "b/x"):
        assert (tmp_path / "artifacts" / name).stat().st_uid == 54321
