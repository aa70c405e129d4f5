"""What the commands say when there is nothing to do it to."""

import os
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ci_bot.cli import app
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
    assert (result.exit_code, result.stderr) == (2, "There is no experiment 1.\n")
    if not left:
        assert list(data_dir.iterdir()) == []


@pytest.mark.parametrize("number", ["abc", "1.5", "#1", "٣", ""])
def test_what_is_no_number_is_refused_in_one_sentence(data_dir: Path, number: str) -> None:
    result = CliRunner().invoke(app, ["cancel", number])
    words = f"An experiment's number is expected, as the dashboard shows it after #; got {number!r}.\n"
    assert (result.exit_code, result.stderr) == (2, words)


def test_a_number_beyond_the_databases_is_of_no_experiment(data_dir: Path) -> None:
    (data_dir / "descent.db").touch()
    result = CliRunner().invoke(app, ["cancel", "9" * 30])
    assert (result.exit_code, result.stderr) == (2, f"There is no experiment {'9' * 30}.\n")


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
