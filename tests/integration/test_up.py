"""`descent up` as a person starts it: one for a directory, on any address, and it says when it ends."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2 as httpx
import pytest

from ci_bot.settings import Settings, SettingsError
from ci_bot.up import Up

Process = subprocess.Popen[str]


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Starts `descent up` without Ray and without an App: web serves, the worker waits for set-up."""
    started: list[Process] = []
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("GITHUB_", "RAY_"))}
    ours = {"DATA_DIR": str(tmp_path / "data"), "RAY_ADDRESS": "127.0.0.1:1", "PORT": "0", "LOG_LEVEL": "error"}

    def start(**more: str) -> Process:
        argv = [sys.executable, "-m", "ci_bot.cli", "up"]
        pipe = subprocess.PIPE
        process = subprocess.Popen(argv, env=kept | ours | more, stdout=pipe, stderr=pipe, text=True)
        started.append(process)
        return process

    yield start
    for process in started:
        process.terminate()
    for process in started:
        process.communicate(timeout=60)


def refusal(command: str, environment: dict[str, str]) -> tuple[int, str]:
    """How a command that should not start ends, and what it says."""
    argv = [sys.executable, "-m", "ci_bot.cli", command]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stderr


def address(process: Process) -> str:
    """The address that it prints once it is up."""
    assert process.stdout is not None
    for line in process.stdout:
        if found := re.search(r"http://\S+", line):
            return found[0]
    raise AssertionError(process.stderr.read() if process.stderr else "")


def test_of_two_at_the_same_instant_one_is_up_and_the_other_says_where(
    up: Callable[..., Process], tmp_path: Path
) -> None:
    first, second = up(), up()
    while first.poll() is None and second.poll() is None:
        for process in (first, second):
            try:
                process.wait(0.05)
                break
            except subprocess.TimeoutExpired:
                pass
    loser, winner = (first, second) if second.poll() is None else (second, first)
    words = loser.communicate(timeout=60)[1]
    url = address(winner).partition("/setup")[0]
    assert loser.returncode == 2
    assert words == f"descent up runs already (pid {winner.pid}) on {url}, for {tmp_path / 'data'}.\n"
    record = json.loads((tmp_path / "data" / "up.json").read_text())
    assert record["up"]["pid"] == winner.pid


def test_it_says_that_it_stops_and_when_it_has_and_the_next_may_start(
    up: Callable[..., Process], tmp_path: Path
) -> None:
    first = up()
    address(first)
    first.send_signal(signal.SIGINT)
    words, complaints = first.communicate(timeout=60)
    said = [line for line in words.splitlines() if line]
    assert (first.returncode, complaints) == (0, "")
    assert [said[0][:10], said[-1]] == ["Stopping …", "Stopped."]
    assert not (tmp_path / "data" / "up.json").exists()
    assert address(up()).startswith("http://127.0.0.1:")


def test_one_that_was_killed_leaves_no_lock(up: Callable[..., Process]) -> None:
    first = up()
    address(first)
    first.kill()
    first.wait()
    assert address(up()).startswith("http://127.0.0.1:")


@pytest.mark.parametrize("host", ["[::1]", "::"])
def test_it_serves_on_ipv6_and_prints_an_address_that_opens(up: Callable[..., Process], host: str) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError as error:
        pytest.skip(f"needs IPv6 on loopback: {error.strerror}")
    url = address(up(HOST=host))
    assert url.startswith("http://[::1]:")
    with httpx.Client(trust_env=False, timeout=20, headers={"Accept": "text/html"}) as client:
        assert client.get(url, follow_redirects=True).status_code == 200
        assert client.get(re.sub("/setup.*", "/healthz", url)).text == "alive\n"


def test_a_taken_ipv6_port_is_named(up: Callable[..., Process]) -> None:
    try:
        taken = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError as error:
        pytest.skip(f"needs IPv6 on loopback: {error.strerror}")
    with taken:
        port = taken.getsockname()[1]
        process = up(HOST="[::1]", PORT=str(port))
        words = process.communicate(timeout=60)[1]
    assert (process.returncode, words.partition(" can't")[0]) == (2, f"[::1]:{port}")


@pytest.mark.parametrize("command", ["up", "worker"])
@pytest.mark.parametrize("name", ["HOME", "RAY_AUTH_TOKEN_PATH", "STORAGE_DIR"])
def test_what_every_command_could_read_is_refused_with_what_to_write(tmp_path: Path, command: str, name: str) -> None:
    environment = {"PATH": os.environ["PATH"], "DATA_DIR": str(tmp_path / "data"), "RAY_ADDRESS": "127.0.0.1:1"}
    code, words = refusal(command, environment | {"HOST": "256.0.0.1", name: "/opt/descent-nobody"})
    assert (code, words.splitlines()[1:]) == (
        2,
        [
            f"{name}: /opt/descent-nobody is below /opt, which every command can read; keep it elsewhere, or set "
            "ISOLATION=none if you trust every repository with this machine"
        ],
    )


def test_a_data_directory_that_every_command_could_read_is_not_even_made() -> None:
    place = Path("/opt/descent-nobody/data")
    up = Up(Settings(place, ray_address="127.0.0.1:1"), {}, announce=print)
    with pytest.raises(SettingsError, match=r"^DATA_DIR: /opt/descent-nobody/data is below /opt"):
        up.start()
    assert not place.parent.exists()


def test_where_no_command_is_isolated_nothing_is_hidden_and_it_serves(up: Callable[..., Process]) -> None:
    assert address(up(HOME="/opt/descent-nobody", ISOLATION="none")).startswith("http://127.0.0.1:")


def test_web_alone_prints_an_address_that_opens_and_under_up_it_is_printed_once(
    up: Callable[..., Process], tmp_path: Path
) -> None:
    environment = {"PATH": os.environ["PATH"], "DATA_DIR": str(tmp_path / "web"), "PORT": "0", "LOG_LEVEL": "error"}
    argv = [sys.executable, "-m", "ci_bot.cli", "web"]
    with subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, text=True) as web:
        try:
            found = address(web)
            code = httpx.get(found, trust_env=False).status_code
        finally:
            web.terminate()
    assert (web.returncode, "/setup?key=" in found, code) == (0, True, 303)
    process = up()
    address(process)
    process.terminate()
    assert "http" not in process.communicate(timeout=60)[0]


def test_web_alone_says_that_its_port_is_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, words = refusal("web", {"DATA_DIR": str(tmp_path / "data"), "PORT": str(port)})
    expected = f"127.0.0.1:{port} can't be listened on (Address already in use); set HOST or PORT to another\n"
    assert (code, words) == (2, expected)
