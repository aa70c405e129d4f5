"""What a command finds and may do, with real commands."""

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from launcher.node import Node
from launcher.node_types import NodeError
from launcher.state import Cause
from tests.integration.node.conftest import (
    CODE,
    FILES,
    ISOLATIONS,
    Runner,
    log_of,
    needs_sandbox,
    order_of,
    packed,
    until,
)


@pytest.mark.parametrize("isolation", ISOLATIONS)
def test_the_command_starts_in_a_writable_copy_of_the_repository(runner: Runner, isolation: str) -> None:
    text = runner.printed("cat src/deep/x.txt; echo y > src/deep/x.txt; touch src/new; rm train.py; ls", isolation)
    assert text == "xresults\nsrc\n"
    assert runner.printed("cat src/deep/x.txt; ls", isolation) == "xresults\nsrc\ntrain.py\n"


@pytest.mark.parametrize("isolation", ISOLATIONS)
def test_directories_are_where_the_variables_say(runner: Runner, isolation: str) -> None:
    text = runner.printed(
        'for d in "$PS_JOBSPACE" "$ARTIFACTS_DIR" "$PS_MODEL_PATH" "$HOME" "$TMPDIR" "$PIP_CACHE_DIR" "$UV_CACHE_DIR" '
        '"$HOME/.cache"; do mkdir -p "$d" && touch "$d/x" || exit 1; done; cd && cd .cache/pip && ls',
        isolation,
    )
    assert text == "x\n"


@needs_sandbox
def test_the_sandbox_has_the_places_of_the_original(runner: Runner) -> None:
    environment = runner.environment("bubblewrap")
    assert environment["PS_JOBSPACE"] == "/storage"
    assert environment["ARTIFACTS_DIR"] == environment["PS_MODEL_PATH"] == "/artifacts"
    assert environment["PWD"] == "/workspace"
    assert environment["HOME"] == "/home/user"


@pytest.mark.parametrize("isolation", ISOLATIONS)
def test_nothing_of_the_agents_environment_shows(
    make_node: Callable[..., Node], tmp_path: Path, isolation: str
) -> None:
    node = make_node(environ={"RAY_TOKEN": "t", "SECRET": "s", "PIP_INDEX_URL": "https://mirror.example.org/simple"})
    node.put_code(CODE, 0, packed(FILES), True)
    environment = Runner(node, tmp_path / "node").environment(isolation, start={"env": {"A": "1"}})
    assert "SECRET" not in environment
    assert not [name for name in environment if name.startswith("RAY")]
    assert environment["PIP_INDEX_URL"] == "https://mirror.example.org/simple"
    assert environment["A"] == "1"
    assert environment["DESCENT_ATTEMPT"] == "exp-1-a1-n0"


@pytest.mark.parametrize("isolation", ISOLATIONS)
def test_storage_and_caches_stay_with_their_repository(runner: Runner, isolation: str) -> None:
    keep = "echo kept > $PS_JOBSPACE/a; mkdir -p $PIP_CACHE_DIR; echo kept > $PIP_CACHE_DIR/b"
    show = "cat $PS_JOBSPACE/* $PIP_CACHE_DIR/* 2>/dev/null; true"
    assert runner.printed(keep, isolation) == ""
    assert runner.printed(show, isolation) == "kept\nkept\n"
    assert runner.printed(show, isolation, storage_key="43") == ""


@needs_sandbox
def test_a_fork_shares_nothing_with_its_repository(runner: Runner) -> None:
    keep = "echo kept > $PS_JOBSPACE/a; mkdir -p $PIP_CACHE_DIR; echo kept > $PIP_CACHE_DIR/b; id -u"
    show = "cat $PS_JOBSPACE/* $PIP_CACHE_DIR/* 2>/dev/null; id -u"
    uid = runner.printed(keep, "bubblewrap")
    fork_uid = runner.printed(f"{show}; echo poison > $PS_JOBSPACE/a", "bubblewrap", trusted=False)
    assert os.geteuid() != 0 or fork_uid != uid
    assert fork_uid.strip().isdigit()
    assert runner.printed(show, "bubblewrap") == f"kept\nkept\n{uid}"


@needs_sandbox
def test_the_sandbox_shows_nothing_of_the_node(runner: Runner) -> None:
    other = runner.begin("sleep 600", "bubblewrap", storage_key="43")
    text = runner.printed(f"LC_ALL=C.UTF-8 find {runner.root}; pgrep -a sleep; true", "bubblewrap")
    runner.node.stop(other, 0)
    until(runner.node, other, "ended")
    assert text.splitlines() == [f"find: ‘{runner.root}’: No such file or directory"]


@pytest.mark.parametrize("isolation", ISOLATIONS)
def test_a_relative_workdir_is_below_the_workspace_and_made_where_missing(runner: Runner, isolation: str) -> None:
    assert runner.printed("cat x.txt", isolation, workdir="./src/deep") == "x"
    assert runner.printed("ls", isolation, workdir="new/er") == ""


@pytest.mark.parametrize("isolation", ISOLATIONS)
def test_a_relative_artifacts_path_leads_to_the_artifacts(runner: Runner, isolation: str) -> None:
    key, _ = runner.run("mkdir -p results; cat results/old.txt; echo n > results/new", isolation, artifacts="results")
    assert log_of(runner.node, key) == "old"
    assert [each.path for each in runner.node.artifacts(key)] == ["new", "old.txt"]


@needs_sandbox
def test_absolute_paths_are_there_in_the_sandbox(runner: Runner) -> None:
    key, _ = runner.run(
        "pwd; ls; echo n > /paperspace/out/new",
        "bubblewrap",
        workdir="/paperspace",
        artifacts="/paperspace/out",
    )
    assert log_of(runner.node, key).startswith("/paperspace\nout\nresults\n")
    assert [each.path for each in runner.node.artifacts(key)] == ["new"]
    key, _ = runner.run("echo n > /my/out/new", "bubblewrap", artifacts="/my/out")
    assert [each.path for each in runner.node.artifacts(key)] == ["new"]


def test_absolute_paths_without_isolation_are_refused_with_the_way_out(runner: Runner) -> None:
    with pytest.raises(NodeError, match="write a path relative to the repository") as caught:
        runner.node.prepare("exp-9-a1-n0", order_of("none", workdir="/paperspace"))
    assert caught.value.cause is Cause.NOT_SUPPORTED


def test_a_file_where_artifacts_should_be_is_said(runner: Runner) -> None:
    with pytest.raises(NodeError, match=r"train\.py in the repository is no directory"):
        runner.node.prepare("exp-9-a1-n0", order_of("none", artifacts="train.py"))


@pytest.mark.parametrize("isolation", ISOLATIONS)
def test_gpus_are_hidden_or_named(runner: Runner, isolation: str) -> None:
    assert runner.environment(isolation)["CUDA_VISIBLE_DEVICES"] == ""
    given = {"gpu_ids": ("1", "3"), "env": {"CUDA_VISIBLE_DEVICES": "0,1,2,3"}}
    assert runner.environment(isolation, start=given)["CUDA_VISIBLE_DEVICES"] == "1,3"


@pytest.mark.parametrize("isolation", ISOLATIONS)
def test_requirements_are_installed_and_imported(
    make_node: Callable[..., Node], full_seed: Path, tmp_path: Path, isolation: str
) -> None:
    """`pip install -r requirements.txt && python train.py`, with the user's own settings of pip and no network."""
    wheels, home = tmp_path / "wheels", tmp_path / "home"
    wheels.mkdir()
    with zipfile.ZipFile(wheels / "tiny-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny.py", "answer = 42\n")
        wheel.writestr("tiny-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
        wheel.writestr("tiny-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("tiny-1.0.dist-info/RECORD", "")
    (home / ".config/pip").mkdir(parents=True)
    (home / ".config/pip/pip.conf").write_text("[install]\nfind-links = wheels\nno-index = yes\n")
    (tmp_path / "node/seed").unlink()
    (tmp_path / "node/seed").symlink_to(full_seed)
    files = {"requirements.txt": "tiny==1.0\n", "train.py": "import tiny; print(tiny.answer)\n"}
    node = make_node(environ={"HOME": str(home)})
    node.put_code(CODE, 0, packed(files), True)
    key = "exp-1-a1-n0"
    node.prepare(key, order_of(isolation))
    workspace = tmp_path / "node/attempts" / key / "workspace"
    subprocess.run(["cp", "-R", wheels, workspace / "wheels"], check=True)
    runner = Runner(node, tmp_path / "node")
    text = runner.printed("pip install -q -r requirements.txt && python train.py && which pip python", isolation)
    assert text.splitlines()[0] == "42"
    env = "/venv" if isolation == "bubblewrap" else f"{tmp_path}/node/attempts/{key}/env"
    assert text.splitlines()[1:] == [f"{env}/bin/pip", f"{env}/bin/python"]


@needs_sandbox
def test_the_packages_that_all_begin_with_are_nobodys_to_change_and_give_way_to_an_attempts_own(
    make_node: Callable[..., Node], full_seed: Path, tmp_path: Path
) -> None:
    with zipfile.ZipFile(tmp_path / "pip-999-py3-none-any.whl", "w") as wheel:
        wheel.writestr("pip/__init__.py", "__version__ = '999'\n")
        wheel.writestr("pip-999.dist-info/METADATA", "Metadata-Version: 2.1\nName: pip\nVersion: 999\n")
        wheel.writestr("pip-999.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("pip-999.dist-info/RECORD", "")
    (tmp_path / "node/seed").unlink()
    (tmp_path / "node/seed").symlink_to(full_seed)
    node = make_node()
    node.put_code(CODE, 0, packed(FILES), True)
    node.prepare("exp-1-a1-n0", order_of("bubblewrap"))
    shutil.copy(tmp_path / "pip-999-py3-none-any.whl", tmp_path / "node/attempts/exp-1-a1-n0/workspace")
    version = "python -c 'import pip; print(pip.__version__)'"
    theirs = f"pip install -q --no-index ./pip-999-py3-none-any.whl && {version}"
    change = "python -c 'import pip; open(pip.__file__, \"a\")' 2>&1 | tail -1"
    runner = Runner(node, tmp_path / "node")
    refused = runner.printed(f"{change}; {theirs}", "bubblewrap").splitlines()[0]
    assert "Permission denied" in refused or "Read-only file system" in refused
    assert log_of(node, "exp-1-a1-n0").splitlines()[-1] == "999"
    assert runner.printed(version, "bubblewrap") != "999\n"


@pytest.mark.parametrize("isolation", ISOLATIONS)
def test_the_python_is_the_nodes(runner: Runner, isolation: str) -> None:
    asked = "python -c 'import sys; print(sys.version, sys.prefix != sys.base_prefix)'"
    assert runner.printed(asked, isolation) == f"{sys.version} True\n"


@pytest.mark.parametrize("isolation", ISOLATIONS)
def test_memory_over_the_limit_is_the_experiments_end(runner: Runner, isolation: str) -> None:
    hungry = "python -c 'import time; x = bytearray(300 << 20); time.sleep(600)'"
    key, status = runner.run(hungry, isolation, start={"memory_bytes": 100 << 20})
    assert status.exit is not None
    assert status.exit.cause is Cause.OUT_OF_MEMORY
    assert runner.node.clean(key).empty


@needs_sandbox
def test_links_among_artifacts_lead_nowhere(runner: Runner, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s")
    key, _ = runner.run(
        f"cd /artifacts; ln -s {tmp_path}/secret leak; ln -s {tmp_path} all; mkfifo pipe; echo ok > file", "bubblewrap"
    )
    assert [each.path for each in runner.node.artifacts(key)] == ["file"]
    for path in ("leak", "all/secret", "pipe", "../prepared.json", "/etc/passwd", "file/x", "absent", ""):
        with pytest.raises(NodeError) as caught:
            runner.node.read_artifact(key, path, 0, 10)
        assert caught.value.cause is Cause.ARTIFACTS_NOT_STORED
