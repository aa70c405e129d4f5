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


@pytest.mark.parametrize("port", ["-1", "65536", "99999", "many"])
def test_a_port_that_there_is_not_is_refused(tmp_path: Path, port: str) -> None:
    with pytest.raises(SettingsError, match=rf"^PORT: expected a whole number from 0 to 65535, got '{port}'$"):
        Settings.from_env({"DATA_DIR": str(tmp_path), "PORT": port})


@pytest.mark.parametrize("address", ["", "head:6379", "10.0.0.1:6379", "[::1]:6379", "gpu-1.example.org:65535"])
def test_ray_is_looked_for_at_a_host_and_a_port(tmp_path: Path, address: str) -> None:
    assert Settings.from_env({"DATA_DIR": str(tmp_path), "RAY_ADDRESS": address}).ray_address == address


@pytest.mark.parametrize(
    "address", ["foo", "auto", ":6379", "h:0", "h:65536", "ray://h:10001", "http://h:1", "::1:6379"]
)
def test_a_ray_address_without_a_host_and_a_port_is_refused(tmp_path: Path, address: str) -> None:
    with pytest.raises(SettingsError, match=r"^RAY_ADDRESS: expected the host:port of the cluster's head, such as"):
        Settings.from_env({"DATA_DIR": str(tmp_path), "RAY_ADDRESS": address})


@pytest.mark.parametrize("more", [{}, {"PORT": "many"}, {"GITHUB_WEBHOOK_SECRET": "s"}])
def test_everything_that_an_apps_credentials_lack_is_named_at_once(tmp_path: Path, more: dict[str, str]) -> None:
    with pytest.raises(SettingsError) as refused:
        Settings.from_env({"DATA_DIR": str(tmp_path), "GITHUB_APP_ID": "abc", **more})
    named = [line.partition(":")[0] for line in str(refused.value).splitlines()]
    missing = [] if "GITHUB_WEBHOOK_SECRET" in more else ["GITHUB_WEBHOOK_SECRET"]
    assert named == [*(["PORT"] if "PORT" in more else []), "GITHUB_APP_ID", "GITHUB_PRIVATE_KEY", *missing]


def test_a_key_file_that_can_not_be_read_is_named_once(tmp_path: Path) -> None:
    given = {"GITHUB_APP_ID": "1", "GITHUB_WEBHOOK_SECRET": "s", "GITHUB_PRIVATE_KEY_PATH": str(tmp_path / "none")}
    with pytest.raises(SettingsError, match=r"^GITHUB_PRIVATE_KEY_PATH: .*$"):
        Settings.from_env({"DATA_DIR": str(tmp_path), **given})


@pytest.mark.parametrize("place", ["file", "file/below", "/proc/descent-nobody", "/proc"])
def test_a_data_dir_that_takes_no_files_is_refused_with_what_to_write(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    settings = Settings.from_env({"DATA_DIR": str(tmp_path / place)})
    with pytest.raises(SettingsError, match=rf"^DATA_DIR: .*{place} takes no files .*; set it to a directory"):
        settings.make_data_dir()


def test_the_data_dir_is_made_for_us_alone(tmp_path: Path) -> None:
    Settings(data_dir=tmp_path / "a" / "b").make_data_dir()
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700
    assert list((tmp_path / "a" / "b").iterdir()) == []
