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

Up = subprocess.Popen[str]


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Callable[..., Up]]:
    """Starts `descent up` without Ray and without an App: web serves, the worker waits for set-up."""
    started: list[Up] = []
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("GITHUB_", "RAY_"))}
    ours = {"DATA_DIR": str(tmp_path / "data"), "RAY_ADDRESS": "127.0.0.1:1", "PORT": "0", "LOG_LEVEL": "error"}

    def start(**more: str) -> Up:
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


def address(process: Up) -> str:
    """The address that it prints once it is up."""
    assert process.stdout is not None
    for line in process.stdout:
        if found := re.search(r"http://\S+", line):
            return found[0]
    raise AssertionError(process.stderr.read() if process.stderr else "")


def test_of_two_at_the_same_instant_one_is_up_and_the_other_says_where(up: Callable[..., Up], tmp_path: Path) -> None:
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


def test_it_says_that_it_stops_and_when_it_has_and_the_next_may_start(up: Callable[..., Up], tmp_path: Path) -> None:
    first = up()
    address(first)
    first.send_signal(signal.SIGINT)
    words, complaints = first.communicate(timeout=60)
    said = [line for line in words.splitlines() if line]
    assert (first.returncode, complaints) == (0, "")
    assert [said[0][:10], said[-1]] == ["Stopping …", "Stopped."]
    assert not (tmp_path / "data" / "up.json").exists()
    assert address(up()).startswith("http://127.0.0.1:")


def test_one_that_was_killed_leaves_no_lock(up: Callable[..., Up]) -> None:
    first = up()
    address(first)
    first.kill()
    first.wait()
    assert address(up()).startswith("http://127.0.0.1:")


@pytest.mark.parametrize("host", ["[::1]", "::"])
def test_it_serves_on_ipv6_and_prints_an_address_that_opens(up: Callable[..., Up], host: str) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError as error:
        pytest.skip(f"needs IPv6 on loopback: {error.strerror}")
    url = address(up(HOST=host))
    assert url.startswith("http://[::1]:")
    with httpx.Client(trust_env=False, timeout=20, headers={"Accept": "text/html"}) as client:
        assert client.get(url, follow_redirects=True).status_code == 200
        assert client.get(re.sub("/setup.*", "/healthz", url)).text == "alive\n"


def test_a_taken_ipv6_port_is_named(up: Callable[..., Up]) -> None:
    try:
        taken = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError as error:
        pytest.skip(f"needs IPv6 on loopback: {error.strerror}")
    with taken:
        port = taken.getsockname()[1]
        process = up(HOST="[::1]", PORT=str(port))
        words = process.communicate(timeout=60)[1]
    assert (process.returncode, words.partition(" can't")[0]) == (2, f"[::1]:{port}")
