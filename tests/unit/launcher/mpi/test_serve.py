"""What of a worker's command is its preparation, and how what it started has ended."""

import errno
import os
from pathlib import Path

import pytest

from launcher.mpi import serve
from launcher.mpi.serve import end_of, preparation


@pytest.mark.parametrize(
    "command",
    [
        *("", "  ", "sleep infinity", "exec sleep inf", "sleep 1d", "sleep 3600;", "sleep 0.5h &", "wait"),
        *("tail -f /dev/null", "tail -F /dev/null", "/usr/sbin/sshd -D", "sshd -D -p 2222 -o 'A=b'"),
        *("while true; do sleep 30; done", "while :; do sleep 1; done;", "service ssh start; sleep infinity"),
        *("service ssh start && tail -f /dev/null", "sudo /usr/sbin/sshd -D", "\nsleep infinity\n"),
        *("/bin/sleep infinity", "sleep 1h 30m", "sleep $((60*60))", "sleep $(( 24 * 3600 ))", "sleep $WAIT_S"),
        *("sleep infinity # wait", "sleep infinity;# wait\n# for mpirun\n\n", "timeout 1h sleep infinity"),
        *("timeout -k 5 --signal=KILL 60m /usr/bin/tail -f /dev/null", "exec nohup sleep 1d &", "/usr/bin/env sleep 9"),
        *("while true\ndo\n  sleep 10\ndone", "until false; do sleep 1; done", "while sleep 60; do :; done"),
        *("while :; do sleep 30 & wait $!; done", "while [ 1 ]\ndo sleep 1; wait; done # ever", "sleep 9 & wait $!"),
        *("bash -c 'sleep infinity'", "sh -c 'while true; do sleep 1; done'", '/bin/bash -lc "tail -f /dev/null"'),
        *("exec sh -c 'service ssh start; sleep infinity & wait'", "bash -c 'sleep infinity # wait';"),
    ],
)
def test_a_command_that_only_waits_needs_no_preparation(command: str) -> None:
    assert preparation(command) == ""


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("pip install mpi4py && sleep infinity", "pip install mpi4py&& true"),
        ("pip install mpi4py; sleep infinity", "pip install mpi4py; true"),
        ("pip install mpi4py\nsleep infinity\n", "pip install mpi4py\n true"),
        ("a && service ssh start && sleep infinity", "a&& true"),
        ("a; mkdir -p /run/sshd && /usr/sbin/sshd -D", "a; mkdir -p /run/sshd&& true"),
        ("python server.py & sleep infinity", "python server.py& true"),
        ("python server.py & wait", "python server.py& true"),
        ("trap : TERM; sleep infinity & wait", "trap : TERM; true"),
        ("pip install a && bash -c 'sleep infinity'  # wait", "pip install a&& true"),
        ("pip install a\nwhile true\ndo\n  sleep 10\ndone\n", "pip install a\n true"),
        ("echo it's; sleep infinity # for mpirun", "echo it's; true"),
    ],
)
def test_what_stands_before_the_wait_is_run_and_fails_as_it_did(command: str, expected: str) -> None:
    assert preparation(command) == expected


@pytest.mark.parametrize(
    "command",
    [
        *("python train.py", "./configure || sleep infinity", "echo sleep infinity", "sleep 10; python train.py"),
        *(
            "bash -c 'a; sleep infinity'",
            "if a; then sleep infinity; fi",
            "tail -f log.txt",
            "asleep 5",
            "a # ; sleepy",
        ),
        *("sleep 5 >&2", "cat >& sleep", "sleep infinity\npython train.py", "sleep 5 # a\npython train.py"),
        *("while true; do python step.py; sleep 1; done", "while true; do sleep 1; python step.py; done"),
        *("until false; do sleep 1; done && python train.py", "until python ready.py; do sleep 1; done"),
        *("bash wait.sh", "bash -c 'sleep 5; python train.py'", "bash -c 'python train.py' 'sleep 5'"),
        *("python -c 'a; sleep 5 # b'", 'bash -c "pip install a; sleep infinity # wait"', "/opt/my sleep 5"),
    ],
)
def test_all_else_is_the_preparation_as_it_stands(command: str) -> None:
    assert preparation(command) == command


@pytest.mark.parametrize(
    ("code", "end"),
    [
        *((0, (0, None)), (7, (7, None)), (128, (128, None)), (205, (205, None)), (255, (255, None))),
        *((-9, (None, "SIGKILL")), (137, (None, "SIGKILL")), (143, (None, "SIGTERM")), (168, (None, "signal 40"))),
    ],
)
def test_a_signal_is_told_as_one_whether_the_shell_became_the_command_or_waited_for_it(
    code: int, end: tuple[int | None, str | None]
) -> None:
    assert end_of(code) == end


def test_a_daemon_that_can_not_be_started_is_told_as_ended(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object, **__: object) -> int:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    server, told = serve.Server(str(tmp_path)), []
    monkeypatch.setattr(os, "posix_spawn", full)
    monkeypatch.setattr(server, "_tell", told.append)
    server._start({"id": "d1", "name": "orted", "command": "orted"})
    (message,) = told
    assert (message["ended"]["id"], message["ended"]["exit_code"]) == ("d1", serve.CANNOT_START)
    assert "orted could not be started: [Errno 11] Resource temporarily unavailable" in capsys.readouterr().out


def test_a_command_that_no_process_can_have_is_told_as_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    server, told = serve.Server(str(tmp_path)), []
    monkeypatch.setattr(server, "_tell", told.append)
    for number, command in enumerate(("a\0b", "\ud800")):
        server._start({"id": str(number), "name": "orted", "command": command})
    assert [message["ended"]["exit_code"] for message in told] == [serve.CANNOT_START] * 2
