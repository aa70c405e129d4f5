"""What of ours a command could read is found by where it really lies."""

import os
import sys
from pathlib import Path

import pytest

from launcher.host_files import exposed, own


@pytest.mark.parametrize("place", ["/opt", "/opt/descent/data", "/usr/local/descent", "/usr", "/etc/ssl/certs/token"])
def test_what_lies_where_every_command_reads_is_told_with_the_place_above(place: str) -> None:
    assert list(exposed({"DATA_DIR": Path(place)})) == ["DATA_DIR"]
    assert exposed({"DATA_DIR": Path("/opt/descent")})["DATA_DIR"].startswith("/opt/descent is below /opt, ")


@pytest.mark.parametrize("place", ["/", "/etc", "/etc/descent/token", "/optional", "/var/lib/descent", "/home/me"])
def test_everything_else_is_nobody_s_business(place: str) -> None:
    assert exposed({"DATA_DIR": Path(place)}) == {}


def test_links_are_followed_both_ways(tmp_path: Path) -> None:
    (tmp_path / "data").symlink_to("/opt/descent")
    assert "DATA_DIR" in exposed({"DATA_DIR": tmp_path / "data" / "deep"})
    assert exposed({"DATA_DIR": Path("/usr/..") / "var" / "lib"}) == {}


def test_the_interpreter_is_mounted_wherever_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "base_prefix", str(tmp_path / "python"))
    assert "HOME" in exposed({"HOME": tmp_path / "python" / "me"})
    assert exposed({"HOME": tmp_path}) == {}


def test_a_process_says_where_its_home_and_its_token_are() -> None:
    environ = {"HOME": "/home/me", "RAY_AUTH_TOKEN_PATH": "", "PATH": os.defpath}
    assert own(environ) == {"HOME": Path("/home/me")}
