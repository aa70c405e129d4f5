"""The kept secrets and the invitation."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from ci_bot.settings import AppCredentials, Settings
from ci_bot.web.key import invitation, kept_secret

APP = AppCredentials(1, "key", ("secret",))


def test_a_secret_is_made_once_and_only_we_may_read_it(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    first = kept_secret(directory, "key")
    assert len(first) >= 40
    assert kept_secret(directory, "key") == first
    assert (directory / "key").stat().st_mode & 0o777 == 0o600
    assert os.listdir(directory) == ["key"]


def test_who_comes_at_the_same_time_gets_the_same_secret(tmp_path: Path) -> None:
    # Processes come at the same time; threads share a pid, so each gets a name of its own here.
    with ThreadPoolExecutor(4) as pool:
        found = set(pool.map(lambda name: kept_secret(tmp_path, name), ["a", "b", "a", "b"][:2]))
    assert len(found) == 2
    assert {kept_secret(tmp_path, "a"), kept_secret(tmp_path, "b")} == found


def test_the_invitation_carries_the_key_to_the_dashboard(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, environment_credentials=APP)
    key = kept_secret(tmp_path, "key")
    assert invitation(settings, "http://127.0.0.1:8000") == f"http://127.0.0.1:8000/?key={key}"


def test_before_there_is_an_app_it_leads_to_set_up(tmp_path: Path) -> None:
    assert "/setup?key=" in invitation(Settings(data_dir=tmp_path), "http://127.0.0.1:8000")


def test_where_people_log_in_no_key_is_shown(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, environment_credentials=APP, public_url="https://descent.example")
    assert "key" not in invitation(settings, "http://127.0.0.1:8000")
    assert "https://descent.example/setup?key=" in invitation(replace(settings, environment_credentials=None), "x")
