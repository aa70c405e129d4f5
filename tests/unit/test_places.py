"""Where a command finds its directories: every way of writing a path, enclosed or not."""

from dataclasses import replace
from pathlib import Path

import pytest

from launcher.node_types import NodeError, PrepareOrder
from launcher.places import Directories, Places, plan
from launcher.state import Cause

DIRECTORIES = Directories.of(Path("/node/attempts/k"), storage=Path("/node/storage/1"), cache=Path("/node/caches/1"))
ORDER = PrepareOrder("1-a", "1", True, "bubblewrap")


def planned(isolation: str = "bubblewrap", **fields: object) -> Places:
    return plan(replace(ORDER, isolation=isolation, **fields), DIRECTORIES)


def seen(places: Places) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for mounted in places.mounts:
        found.setdefault(mounted.real.name, []).append(mounted.seen)
    return found


def test_by_default_the_command_starts_in_the_workspace() -> None:
    assert planned().cwd == "/workspace"
    assert planned("none").cwd == "/node/attempts/k/workspace"


def test_all_that_a_command_may_write_to_is_its_own_or_its_repositorys() -> None:
    writable = {mounted.real for mounted in planned().mounts if mounted.writable}
    assert writable == {*DIRECTORIES.own, DIRECTORIES.storage, DIRECTORIES.cache}


def test_the_environment_shows_nothing_of_the_host() -> None:
    assert seen(planned())["env"] == ["/venv"]
    assert "/node" not in "".join(mounted.seen for mounted in planned().mounts)


@pytest.mark.parametrize(
    ("workdir", "cwd"),
    [
        (None, "/workspace"),
        ("", "/workspace"),
        (".", "/workspace"),
        ("./", "/workspace"),
        ("src", "/workspace/src"),
        ("./src//deep/", "/workspace/src/deep"),
        ("/workspace", "/workspace"),
        ("/workspace/src", "/workspace/src"),
        ("//workspace/src", "/workspace/src"),
        ("/paperspace", "/paperspace"),
        ("/home/paperspace", "/home/paperspace"),
        ("/mnt/code", "/mnt/code"),
    ],
)
def test_a_workdir_is_below_the_workspace_or_the_workspace_is_there(workdir: str | None, cwd: str) -> None:
    places = planned(workdir=workdir)
    assert places.cwd == cwd
    assert "/workspace" in seen(places)["workspace"]
    assert any(cwd.startswith(each) for each in seen(places)["workspace"])


@pytest.mark.parametrize(
    "path",
    [
        *("/", "/etc", "/usr/src", "/storage", "/storage/out", "/tmp", "/home", "/home/user", "/root", "/proc/x"),
        *("/dev/shm", "/generated", "/venv/x", "/data/set", "..", "a/../b", "/a/../etc", "a\0b"),
    ],
)
@pytest.mark.parametrize("key", ["workdir", "artifacts"])
def test_a_path_that_is_taken_is_refused_with_what_to_write(key: str, path: str) -> None:
    with pytest.raises(NodeError, match=f"paths.{key}") as caught:
        planned(**{key: path})
    assert caught.value.cause is Cause.NOT_SUPPORTED


@pytest.mark.parametrize(
    ("artifacts", "link", "mounts"),
    [
        (None, "", ["/artifacts"]),
        ("/artifacts", "", ["/artifacts"]),
        ("/artifacts/", "", ["/artifacts"]),
        ("results", "results", ["/artifacts"]),
        ("a/b", "a/b", ["/artifacts"]),
        ("/workspace/results", "results", ["/artifacts"]),
        ("/code/results", "results", ["/artifacts"]),
        ("/my/results", "", ["/artifacts", "/my/results"]),
    ],
)
def test_artifacts_are_mounted_or_linked(artifacts: str | None, link: str, mounts: list[str]) -> None:
    places = planned(artifacts=artifacts, workdir="/code")
    assert places.artifacts_link == link
    assert seen(places)["artifacts"] == mounts
    assert places.artifacts == "/artifacts"


def test_artifacts_cannot_hide_the_workspace() -> None:
    for path in ("/workspace", "/code"):
        with pytest.raises(NodeError, match="which is taken"):
            planned(workdir="/code", artifacts=path)


@pytest.mark.parametrize(("workdir", "artifacts"), [("/paperspace", None), (None, "/my/out")])
def test_absolute_paths_need_a_sandbox(workdir: str | None, artifacts: str | None) -> None:
    with pytest.raises(NodeError, match=r"without isolation .* write a path relative"):
        planned("none", workdir=workdir, artifacts=artifacts)


def test_the_workspaces_own_name_needs_none() -> None:
    places = planned("none", workdir="/workspace/src", artifacts="/artifacts")
    assert places.cwd == "/node/attempts/k/workspace/src"
    assert places.mounts == ()


def test_a_fork_is_refused_without_isolation() -> None:
    with pytest.raises(NodeError, match="only where commands can be isolated"):
        planned("none", trusted=False)
