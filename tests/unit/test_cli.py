"""What the commands say when there is nothing to do it to."""

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
    path = tmp_path / "config.yaml"
    path.write_text("version: 1\nexperiment: digits\ntype: single\nworker:\n  command: python train.py\n")
    result = CliRunner().invoke(app, ["check", str(path)])
    assert result.exit_code == 0
    assert result.stdout == f"{path}: ok, 1 experiment\n{path}: digits: single (worker × 1)\n"


def test_a_ray_head_that_can_not_be_started_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(self: Any) -> int:
        raise HeadError("the Ray head did not start within 60 s: no room")

    monkeypatch.setattr(Up, "run", run)
    result = CliRunner().invoke(app, ["up"])
    assert (result.exit_code, result.stderr) == (2, "the Ray head did not start within 60 s: no room\n")
