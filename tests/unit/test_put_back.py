"""Files of an earlier attempt come back whole, and only below the artifacts directory."""

import os
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


def test_no_link_is_followed(place: Place, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/file").write_text("theirs")
    (place.root / "way").symlink_to(tmp_path / "outside")
    (place.root / "end").symlink_to(tmp_path / "outside/file")
    with pytest.raises(NodeError, match="can't be put back") as caught:
        put(place, "way/x", b"x")
    assert caught.value.cause is Cause.ARTIFACTS_NOT_STORED
    put(place, "end", b"mine")
    assert not (place.root / "end").is_symlink()
    assert [path.name for path in (tmp_path / "outside").iterdir()] == ["file"]
    assert (tmp_path / "outside/file").read_text() == "theirs"


def test_a_directory_in_the_way_is_said(place: Place) -> None:
    (place.root / "x").mkdir()
    with pytest.raises(NodeError, match="can't be put back"):
        put(place, "x", b"x")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_files_and_their_folders_belong_to_the_command(tmp_path: Path) -> None:
    (tmp_path / "artifacts").mkdir()
    put(Place(tmp_path / "artifacts", tmp_path / "parts", uid=54321), "a/x", b"x")
    for name in ("a", "a/x"):
        assert (tmp_path / "artifacts" / name).stat().st_uid == 54321
