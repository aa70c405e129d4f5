"""What mpirun calls instead of ssh: has one command run on another node, and ends as it ends. Standard library only."""

from __future__ import annotations

import os
import sys
import time

from . import talk

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

RECONNECT_S = 30.0
"""How long the node agent's successor may take."""
PAUSE_S = 0.1
FAILED = 255
"""What ssh gives when it can't do its part."""
WITH_VALUE = ("-l", "-p", "-o")
"""The options of ssh that some mpirun gives, and that have a value."""


def understand(argv: list[str]) -> tuple[str, str] | None:
    """The host and the command of ssh's command line; None where it has none. Pure.

    A daemon that leaves its parent would leave the sandbox without a main process, so it isn't told to.
    """
    words = list(argv)
    while words and words[0].startswith("-"):
        if words.pop(0) in WITH_VALUE and words:
            del words[0]
    if len(words) < 2:
        return None
    host = words[0].rpartition("@")[2]
    command = " ".join(words[1:]).split(" ")  # as ssh joins them; the quotes inside are for the shell over there
    return host, " ".join(word for word in command if word != "--daemonize")


def main(argv: list[str], directory: str) -> int:
    """Ask the node agent, or its successor, until the command has ended; its exit code, 128 + a signal's number."""
    asked = understand(argv)
    if asked is None:
        print("descent: usage: agent [OPTION...] HOST COMMAND...", file=sys.stderr)
        return FAILED
    host, command = asked
    # Whoever is asked again knows the command by its id, and doesn't run it twice.
    request = {"op": "launch", "id": os.urandom(16).hex(), "host": host, "command": command}
    until = time.monotonic() + RECONNECT_S
    while time.monotonic() < until:
        heard, code = attend(directory, request)
        if code is not None:
            return code
        if heard:  # it ended, and a successor will listen
            until = time.monotonic() + RECONNECT_S
        time.sleep(PAUSE_S)
    print(f"descent: this node's agent has not answered for {RECONNECT_S:g} s", file=sys.stderr)
    return FAILED


def attend(directory: str, request: dict[str, Any]) -> tuple[bool, int | None]:
    """Ask over one connection and say what is to be said: whether we were heard, and the code to end with, if any."""
    heard = False
    try:
        with talk.connect(directory) as connection:
            talk.send(connection, request)
            for message in talk.messages(connection):
                heard = True
                if "say" in message:
                    print(message["say"], file=sys.stderr, flush=True)
                if "here" in message:  # mpirun did not know its own node by that name
                    os.execv("/bin/sh", ["sh", "-c", request["command"]])  # noqa: S606 - mpirun's own
                if "code" in message:
                    return True, int(message["code"])
    except (OSError, ValueError):
        pass  # as good as the end of it
    return heard, None
