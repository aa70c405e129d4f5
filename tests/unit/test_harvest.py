"""Artifacts: regular files and nothing else, within bounds."""

import os
from pathlib import Path

import pytest

from launcher import harvest
from launcher.node_types import Artifact, NodeError
from launcher.state import Cause


def test_files_are_listed_by_path(tmp_path: Path) -> None:
    (tmp_path / "b/c").mkdir(parents=True)
    (tmp_path / "b/c/x").write_text("12")
    (tmp_path / "a").write_text("1")
    assert harvest.artifacts(tmp_path) == [Artifact("a", 1), Artifact("b/c/x", 2)]
    assert harvest.read(tmp_path, "b/c/x", 1, 10) == b"2"
    assert harvest.read(tmp_path, "b/c/x", 2, 10) == b""


def test_no_directory_means_no_artifacts(tmp_path: Path) -> None:
    assert harvest.artifacts(tmp_path / "absent") == []


def test_links_and_pipes_are_no_artifacts(tmp_path: Path) -> None:
    root = tmp_path / "artifacts"
    root.mkdir()
    (tmp_path / "secret").write_text("s")
    (root / "file").symlink_to(tmp_path / "secret")
    (root / "folder").symlink_to(tmp_path)
    os.mkfifo(root / "pipe")
    assert harvest.artifacts(root) == []
    for path in ("file", "folder/secret", "pipe", "../secret", ".", "", "/etc/passwd", "a\0b"):
        with pytest.raises(NodeError) as caught:
            harvest.read(root, path, 0, 1)
        assert caught.value.cause is Cause.ARTIFACTS_NOT_STORED


@pytest.mark.parametrize(("limit", "value"), [("MAX_FILES", 2), ("MAX_BYTES", 5), ("MAX_DEPTH", 1)])
def test_more_than_can_be_kept_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, value: int) -> None:
    (tmp_path / "d/e").mkdir(parents=True)
    for name in ("a", "b", "d/c"):
        (tmp_path / name).write_text("12")
    assert len(harvest.artifacts(tmp_path)) == 3
    monkeypatch.setattr(harvest, limit, value)
    with pytest.raises(NodeError) as caught:
        harvest.artifacts(tmp_path)
    assert caught.value.cause is Cause.ARTIFACTS_NOT_STORED


def test_a_sparse_file_cannot_fill_the_workers_disk(tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(100 << 30)
    with pytest.raises(NodeError, match="sparse"):
        harvest.artifacts(tmp_path)


def test_a_name_that_cannot_be_told_is_said(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"d\xff")).mkdir()
    (tmp_path / os.fsdecode(b"d\xff") / "x").write_text("x")
    with pytest.raises(NodeError, match="not UTF-8"):
        harvest.artifacts(tmp_path)
