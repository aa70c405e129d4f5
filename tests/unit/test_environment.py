"""The variables of a command, and scripts that move with their environment."""

import errno
from pathlib import Path

import pytest

from launcher.environment import CARRIED, _body, _copy_files, _move_scripts, _shebang, carry_configuration, variables
from launcher.node_types import PrepareOrder
from launcher.places import Directories, plan

DIRECTORIES = Directories.of(Path("/node/attempts/k"), storage=Path("/node/storage/1"), cache=Path("/node/caches/1"))
ENCLOSED = plan(PrepareOrder("1-a", "1", True, "bubblewrap"), DIRECTORIES)
PLAIN = plan(PrepareOrder("1-a", "1", True, "none"), DIRECTORIES)


def test_a_command_in_a_sandbox_sees_the_places_of_the_original() -> None:
    found = variables(ENCLOSED, env={}, gpu_ids=(), node={})
    assert found["PS_JOBSPACE"] == "/storage"
    assert found["PS_MODEL_PATH"] == found["ARTIFACTS_DIR"] == "/artifacts"
    assert found["HOME"] == "/home/user"
    assert found["TMPDIR"] == "/tmp"
    assert found["PIP_CACHE_DIR"] == "/home/user/.cache/pip"
    assert found["UV_CACHE_DIR"] == "/home/user/.cache/uv"


def test_a_plain_command_is_told_the_real_directories() -> None:
    found = variables(PLAIN, env={}, gpu_ids=(), node={})
    assert found["PS_JOBSPACE"] == "/node/storage/1"
    assert found["ARTIFACTS_DIR"] == "/node/attempts/k/artifacts"
    assert found["PIP_CACHE_DIR"] == "/node/caches/1/pip"


def test_the_environments_programs_come_first() -> None:
    found = variables(ENCLOSED, env={}, gpu_ids=(), node={"PATH": "/ray/bin"})
    assert found["PATH"].startswith("/venv/bin:")
    assert "/ray" not in found["PATH"]
    assert found["VIRTUAL_ENV"] == "/venv"


def test_output_is_live_and_packages_are_copied() -> None:
    found = variables(ENCLOSED, env={}, gpu_ids=(), node={})
    assert found["PYTHONUNBUFFERED"] == "1"
    assert found["UV_LINK_MODE"] == "copy"
    assert found["LANG"] == "C.UTF-8"


def test_only_named_variables_of_the_node_are_carried() -> None:
    node = {name: f"value of {name}" for name in CARRIED} | {
        "RAY_ADDRESS": "x",
        "GITHUB_WEBHOOK_SECRET": "x",
        "LD": "x",
    }
    found = variables(ENCLOSED, env={}, gpu_ids=(), node=node)
    assert {name: value for name, value in found.items() if value.startswith("value of")} == {
        name: node[name] for name in CARRIED
    }
    assert "x" not in found.values()


def test_the_experiments_own_variables_win() -> None:
    found = variables(ENCLOSED, env={"PATH": "/mine", "PIP_INDEX_URL": "mine"}, gpu_ids=(), node={"PIP_INDEX_URL": "n"})
    assert found["PATH"] == "/mine"
    assert found["PIP_INDEX_URL"] == "mine"


@pytest.mark.parametrize(("gpu_ids", "seen"), [((), ""), (("0",), "0"), (("1", "5"), "1,5")])
def test_an_experiment_cannot_take_other_gpus(gpu_ids: tuple[str, ...], seen: str) -> None:
    found = variables(ENCLOSED, env={"CUDA_VISIBLE_DEVICES": "0,1,2"}, gpu_ids=gpu_ids, node={})
    assert found["CUDA_VISIBLE_DEVICES"] == seen


def test_a_short_path_to_python_stands_in_the_first_line() -> None:
    assert _shebang(Path("/a/bin/python")) == b"#!/a/bin/python\n"


@pytest.mark.parametrize("path", ["/" + "a" * 130, "/a b/python"])
def test_a_path_that_the_kernel_cannot_read_goes_through_sh(path: str) -> None:
    assert _shebang(Path(path)) == f"#!/bin/sh\n'''exec' \"{path}\" \"$0\" \"$@\"\n' '''\n".encode()


@pytest.mark.parametrize("path", ["/a/python", "/" + "a" * 130])
def test_a_script_is_the_same_but_for_how_python_is_found(path: str) -> None:
    assert _body(_shebang(Path(path)) + b"import sys\n#!x\n") == b"import sys\n#!x\n"


def test_scripts_name_the_environment_they_moved_to(tmp_path: Path) -> None:
    scripts = tmp_path / "bin"
    scripts.mkdir()
    (scripts / "pip").write_text("#!/old/bin/python\nbody\n")
    (scripts / "pip").chmod(0o755)
    (scripts / "activate").write_text("VIRTUAL_ENV='/old'\n")
    (scripts / "python").symlink_to("/old/python")
    _move_scripts(scripts, Path("/old"), Path("/new"))
    assert (scripts / "pip").read_text() == "#!/new/bin/python\nbody\n"
    assert (scripts / "pip").stat().st_mode & 0o111
    assert (scripts / "activate").read_text() == "VIRTUAL_ENV='/new'\n"
    assert (scripts / "python").readlink() == Path("/old/python")


def test_the_nodes_settings_of_pip_come_along(tmp_path: Path) -> None:
    (tmp_path / "node/.config/pip").mkdir(parents=True)
    (tmp_path / "node/.config/pip/pip.conf").write_text("[global]\n")
    (tmp_path / "node/.netrc").write_text("secret")
    (tmp_path / "home").mkdir()
    carry_configuration(tmp_path / "node", tmp_path / "home")
    files = [
        path.relative_to(tmp_path / "home").as_posix() for path in (tmp_path / "home").rglob("*") if path.is_file()
    ]
    assert files == [".config/pip/pip.conf"]


def test_the_copy_of_an_environment_keeps_links_and_modes_and_leaves_the_packages_out(tmp_path: Path) -> None:
    source, packages = tmp_path / "source", tmp_path / "source/lib/site-packages"
    packages.mkdir(parents=True)
    (packages / "pip.py").touch()
    (source / "lib64").symlink_to("lib")
    (source / "pip").write_text("#!")
    (source / "pip").chmod(0o755)
    _copy_files(source, tmp_path / "copy", besides=packages)
    found = sorted(str(path.relative_to(tmp_path / "copy")) for path in (tmp_path / "copy").rglob("*"))
    assert found == ["lib", "lib/site-packages", "lib64", "pip"]
    assert (tmp_path / "copy/lib64").readlink() == Path("lib")
    assert (tmp_path / "copy/pip").stat().st_mode & 0o777 == 0o755


def test_a_full_disk_is_told_as_one_by_the_copy_of_an_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "source").mkdir()
    (tmp_path / "source/pip").touch()
    monkeypatch.setattr("shutil.copy2", full)
    with pytest.raises(OSError, match="No space left") as caught:
        _copy_files(tmp_path / "source", tmp_path / "copy", besides=tmp_path)
    assert caught.value.errno == errno.ENOSPC
