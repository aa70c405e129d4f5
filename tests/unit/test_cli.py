"""What the commands say when there is nothing to do it to."""

import os
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ci_bot.cli import app
from ci_bot.settings import SettingsError
from ci_bot.store.engine import migrate, open_engine
from ci_bot.up import Up
from launcher.ray_head import HeadError


@pytest.fixture(autouse=True)
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    monkeypatch.delenv("DATABASE_URL", raising=False)
    monkeypatch.setattr("ci_bot.logs.configure_logging", lambda level: None)
    return tmp_path


def good_file(path: Path, more: str = "") -> Path:
    """A configuration file without a problem, unless it is in the rest."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"version: 1\ntype: single\nworker:\n  command: python train.py\n{more}")
    return path


@pytest.mark.parametrize("left", [(), ("descent.db",)])
def test_cancelling_where_nothing_ever_ran_says_so_and_creates_nothing(data_dir: Path, left: tuple[str, ...]) -> None:
    for name in left:
        (data_dir / name).touch()
    result = CliRunner().invoke(app, ["cancel", "1"])
    words = f"There is no Descent in {data_dir}: no database is there. "
    assert (result.exit_code, result.stderr) == (2, f"{words}Set DATA_DIR or DATABASE_URL as `descent up` has it.\n")
    if not left:
        assert list(data_dir.iterdir()) == []


@pytest.mark.parametrize("number", ["abc", "1.5", "-1", "--all", "#1", "٣", ""])
def test_what_is_no_number_is_refused_in_one_sentence(data_dir: Path, number: str) -> None:
    result = CliRunner().invoke(app, ["cancel", number])
    words = f"An experiment's number is expected, as the dashboard shows it after #; got {number!r}.\n"
    assert (result.exit_code, result.stderr) == (2, words)


def test_a_number_beyond_the_databases_is_of_no_experiment(data_dir: Path) -> None:
    migrate(open_engine(f"sqlite:///{data_dir / 'descent.db'}"))
    result = CliRunner().invoke(app, ["cancel", "9" * 30])
    assert (result.exit_code, result.stderr) == (2, f"There is no experiment {'9' * 30} in {data_dir}.\n")


def test_cancelling_makes_no_data_directory(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA_DIR", str(data_dir / "none"))
    result = CliRunner().invoke(app, ["cancel", "1"])
    assert (result.exit_code, list(data_dir.iterdir())) == (2, [])
    assert result.stderr.startswith(f"There is no Descent in {data_dir / 'none'}: ")


def test_who_cancels_what_is_not_there_hears_where_it_was_looked_for(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    migrate(open_engine(f"sqlite:///{data_dir / 'descent.db'}"))
    result = CliRunner().invoke(app, ["cancel", "1"])
    assert (result.exit_code, result.stderr) == (2, f"There is no experiment 1 in {data_dir}.\n")
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{data_dir / 'descent.db'}")
    result = CliRunner().invoke(app, ["cancel", "1"])
    assert result.stderr == "There is no experiment 1 in the database of DATABASE_URL.\n"


@pytest.mark.parametrize("command", ["up", "web", "worker"])
def test_a_data_directory_that_can_not_be_made_is_a_sentence(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    (data_dir / "file").touch()
    monkeypatch.setenv("DATA_DIR", str(data_dir / "file"))
    with pytest.raises(SettingsError, match=f"^DATA_DIR: {data_dir / 'file'} takes no files"):
        CliRunner().invoke(app, [command], catch_exceptions=False)


def test_a_topology_that_there_is_not_is_named_with_those_that_there_are() -> None:
    result = CliRunner().invoke(app, ["demo", "--type", "nope"])
    said = " ".join(result.stderr.replace("│", " ").split())
    assert result.exit_code == 2
    assert "Value error" not in said
    assert (
        "Invalid value for '--type': 'nope' is not one of 'single', 'multi-grpc', 'multi-mpi', 'multi-torch'." in said
    )


def test_checking_a_good_file_says_ok_and_what_was_found(tmp_path: Path) -> None:
    path = good_file(tmp_path / "config.yaml", "experiment: digits\n")
    result = CliRunner().invoke(app, ["check", str(path)])
    assert result.exit_code == 0
    assert result.stdout == f"{path}: ok, 1 experiment\n{path}: digits: single (worker × 1)\n"


def test_a_ray_head_that_can_not_be_started_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(self: Any) -> int:
        raise HeadError("the Ray head did not start within 60 s: no room")

    monkeypatch.setattr(Up, "run", run)
    result = CliRunner().invoke(app, ["up"])
    assert (result.exit_code, result.stderr) == (2, "the Ray head did not start within 60 s: no room\n")


@pytest.mark.parametrize("written", [".ps_project/config.yaml", "config.yaml", "sub/../.descent/config.yaml"])
def test_a_checked_file_without_a_name_is_named_after_its_repositorys_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: str
) -> None:
    (tmp_path / "mine" / "sub").mkdir(parents=True)
    good_file(tmp_path / "mine" / written)
    monkeypatch.chdir(tmp_path / "mine")
    for path in (written, str(tmp_path / "mine" / written)):
        result = CliRunner().invoke(app, ["check", path])
        assert result.stdout == f"{path}: ok, 1 experiment\n{path}: mine: single (worker × 1)\n"
    monkeypatch.chdir((tmp_path / "mine" / written).parent)
    assert ": mine: single" in CliRunner().invoke(app, ["check", "config.yaml"]).stdout


def test_checking_says_what_a_terminal_does_not_know_in_escapes(tmp_path: Path) -> None:
    path = good_file(tmp_path / "config.yaml", "experiment: übung\n")
    result = CliRunner(charset="ascii").invoke(app, ["check", str(path)])
    assert (result.exit_code, result.exception) == (0, None)
    assert "\\xfcbung: single (worker \\xd7 1)" in result.stdout


def test_a_checked_file_may_have_a_name_that_is_no_text(tmp_path: Path) -> None:
    path = good_file(tmp_path / os.fsdecode(b"\xff.yaml"), "retries: many\n")
    result = CliRunner().invoke(app, ["check", str(path)])
    assert result.exit_code == 1
    assert "\\udcff.yaml:5:10: error: `retries`" in result.stdout


@pytest.mark.timeout(10)
def test_checking_what_has_no_end_or_is_no_file_is_refused_in_one_sentence(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, why in (("/dev/zero", "no regular file"), (tmp_path / "pipe", "no regular file"), (tmp_path, "a folder")):
        result = CliRunner().invoke(app, ["check", str(path)])
        assert (result.exit_code, result.stderr) == (2, f"{path} can't be read: it is {why}\n")


def test_of_a_large_file_no_more_is_read_than_what_shows_that_it_is_too_large(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    result = CliRunner().invoke(app, ["check", str(path)])
    assert result.exit_code == 1
    assert "the file has more than 262144 bytes" in result.stdout
