"""Where Descent listens, and where one finds it."""

from pathlib import Path

import pytest

from ci_bot.settings import Settings, SettingsError


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("", "http://127.0.0.1:8000"),
        ("0.0.0.0", "http://127.0.0.1:8000"),
        ("10.1.2.3", "http://10.1.2.3:8000"),
        ("::1", "http://[::1]:8000"),
        ("[::1]", "http://[::1]:8000"),
        ("[0:0:0:0:0:0:0:1]", "http://[::1]:8000"),
        ("2001:DB8::7", "http://[2001:db8::7]:8000"),
        ("::", "http://[::1]:8000"),
        ("Gpu-Box.lan", "http://gpu-box.lan:8000"),
    ],
)
def test_an_address_to_listen_on_becomes_one_to_open(tmp_path: Path, host: str, url: str) -> None:
    settings = Settings.from_env({"DATA_DIR": str(tmp_path), "HOST": host})
    assert settings.local_url == settings.dashboard_url == url
    assert "[" not in settings.host


def test_people_are_led_to_the_public_address() -> None:
    assert Settings(data_dir=Path(), public_url="https://descent.example").dashboard_url == "https://descent.example"


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("", ""),
        ("https://CI.example.org/", "https://ci.example.org"),
        ("https://ci.example.org:443", "https://ci.example.org"),
        ("http://ci.example.org:80", "http://ci.example.org"),
        ("https://ci.example.org:80", "https://ci.example.org:80"),
        ("https://[2001:db8::7]:8443", "https://[2001:db8::7]:8443"),
    ],
)
def test_the_public_address_is_taken_as_browsers_write_it(tmp_path: Path, given: str, meant: str) -> None:
    assert Settings.from_env({"DATA_DIR": str(tmp_path), "PUBLIC_URL": given}).public_url == meant


@pytest.mark.parametrize("given", ["https://h/descent", "https://h?a=1", "https://me@h", "h", "https://h:99999"])
def test_a_public_address_that_nobody_could_open_is_refused(tmp_path: Path, given: str) -> None:
    with pytest.raises(SettingsError, match="PUBLIC_URL: "):
        Settings.from_env({"DATA_DIR": str(tmp_path), "PUBLIC_URL": given})


@pytest.mark.parametrize("host", ["127.0.0.1:9000", "http://here", "[::1", "[::1]:9000", "a b"])
def test_a_host_that_is_more_than_an_address_is_refused(tmp_path: Path, host: str) -> None:
    with pytest.raises(SettingsError, match="HOST: expected a host's name or address without a port"):
        Settings.from_env({"DATA_DIR": str(tmp_path), "HOST": host})
