"""What mpirun calls instead of ssh: has one command run on another node, and ends as it ends. Standard library only."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import sys
import time

from . import talk

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

RECONNECT_S = 30.0
"""How long the node agent's successor may take."""
PAUSE_S = 0.1
FAILED = 255
"""What ssh gives when it can't do its part."""
WITH_VALUE = ("-l", "-p", "-o")
"""The options of ssh that some mpirun gives, and that have a value."""
STAY = "--leave-session-attached"


def understand(argv: list[str]) -> tuple[str, str] | None:
    """The host and the command of ssh's command line; None where it has none. Pure.

    A daemon that leaves its parent would leave the sandbox without a main process, so it isn't told to. Open MPI 5's
    would still put a process of its own between, which tells every signal as code 255, were it not told to stay.

    Source: prted.c of PRRTE 3 (wait_dvm).
    """
    words = list(argv)
    while words and words[0].startswith("-"):
        if words.pop(0) in WITH_VALUE and words:
            del words[0]
    if len(words) < 2:
        return None
    host = words[0].rpartition("@")[2]
    command = " ".join(words[1:]).split(" ")  # as ssh joins them; the quotes inside are for the shell over there
    return host, " ".join(_staying(word) for word in command if word != "--daemonize")


def _staying(word: str) -> str:
    is_prted = word.strip('"').rpartition("/")[2] == "prted" and "=" not in word
    return f"{word} {STAY}" if is_prted else word


def main(argv: list[str], directory: str) -> int:
    """Ask the node agent, or its successor, until the command has ended; its exit code, 128 + a signal's number."""
    asked = understand(argv)
    if asked is None:
        print("descent: usage: agent [OPTION...] HOST COMMAND...", file=sys.stderr)
        return FAILED
    host, command = asked
    mpirun = watched(os.getppid())
    # Whoever is asked again knows the command by its id, and doesn't run it twice.
    request = {"op": "launch", "id": os.urandom(16).hex(), "host": host, "command": command}
    until = time.monotonic() + RECONNECT_S
    while time.monotonic() < until:
        heard, code = attend(directory, request, mpirun)
        if code is not None:
            return code
        if heard:  # it ended, and a successor will listen
            until = time.monotonic() + RECONNECT_S
        time.sleep(PAUSE_S)
    print(f"descent: this node's agent has not answered for {RECONNECT_S:g} s", file=sys.stderr)
    return FAILED


def watched(pid: int) -> int | None:
    """A descriptor that can be read once a process has gone; None where the kernel has none."""
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None


def _gone(pidfd: int) -> bool:
    ready = select.poll()
    ready.register(pidfd, select.POLLIN)
    return bool(ready.poll(0))


def attend(directory: str, request: dict[str, Any], mpirun: int | None) -> tuple[bool, int | None]:
    """Ask over one connection and say what is to be said: whether we were heard, and the code to end with, if any.

    When our mpirun has gone we go too: by that the node agent knows it.
    """
    heard = False
    try:
        with talk.connect(directory) as connection:
            talk.send(connection, request)
            for message in messages(connection, mpirun):
                heard = True
                if "say" in message:
                    print(message["say"], file=sys.stderr, flush=True)
                if "here" in message:  # mpirun did not know its own node by that name
                    os.execv("/bin/sh", ["sh", "-c", request["command"]])  # noqa: S606 - mpirun's own
                if "code" in message:
                    with contextlib.suppress(OSError):  # a refusal waits for no word
                        talk.send(connection, {"mpirun": mpirun is None or not _gone(mpirun)})
                    return True, int(message["code"])
    except ProcessLookupError:
        return heard, FAILED
    except (OSError, ValueError):
        pass  # as good as the end of it
    return heard, None


def messages(connection: socket.socket, mpirun: int | None) -> Iterator[dict[str, Any]]:
    """What the node agent says, to its end.

    Raises:
        ProcessLookupError: our mpirun has gone.
        OSError: the connection broke.
        ValueError: what came is no message.
    """
    lines, ready = talk.Lines(), select.poll()
    for each in (connection.fileno(), mpirun):
        if each is not None:
            ready.register(each, select.POLLIN)
    while True:
        readable = dict(ready.poll())
        if connection.fileno() not in readable:
            raise ProcessLookupError
        if not (data := connection.recv(65536)):
            return
        yield from lines.take(data)
