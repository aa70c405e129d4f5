"""The local GitHub as a process: it says where it listens, and ends cleanly."""

import json
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2 as httpx
import pytest

from ci_bot.local_github.control import Control, ControlError


def started(*arguments: str) -> subprocess.Popen[str]:
    argv = [sys.executable, "-m", "ci_bot.local_github", *arguments]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture
def process(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    with started("--root", str(tmp_path / "root"), "--control-token-file", str(tmp_path / "token")) as made:
        yield made
        made.kill()


def test_it_says_in_one_line_where_it_is_and_ends_on_sigterm(process: subprocess.Popen[str], tmp_path: Path) -> None:
    assert process.stdout is not None
    said = json.loads(process.stdout.readline())
    assert said == {
        "url": f"http://127.0.0.1:{said['port']}",
        "api_url": f"http://127.0.0.1:{said['port']}/api/v3",
        "port": said["port"],
    }
    token = tmp_path / "token"
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "root" / "server.address").stat().st_mode) == 0o600
    with Control(said["url"], token.read_text()) as control:
        clone = control.create_repository("octo/demo")
        assert clone == tmp_path / "root" / "octo" / "demo.git"
        with pytest.raises(ControlError, match="exists already"):
            control.create_repository("octo/demo")
        for wrong in ("demo", "octo/../demo", "octo/a/b", "octo/"):
            with pytest.raises(ControlError, match=r"owner/name|cannot"):
                control.create_repository(wrong)
        held = httpx.Client(base_url=said["url"], trust_env=False)
        assert held.get("/api/v3/meta").status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=10) == 0
        held.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", said["port"]), timeout=1).close()


def test_it_uses_the_token_and_the_port_that_it_is_given(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("chosen\n")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    arguments = ("--root", str(tmp_path / "root"), "--port", str(port))
    with started(*arguments, "--control-token-file", str(tmp_path / "token")) as process:
        assert process.stdout is not None
        said = json.loads(process.stdout.readline())
        with Control(said["url"], "chosen") as control:
            assert control.create_user("someone")["login"] == "someone"
        process.terminate()
        assert (process.wait(timeout=10), said["port"]) == (0, port)
