"""The post-receive hook of every repository, and what it tells the server."""

import os
import stat
import sys
from pathlib import Path
from urllib.parse import urlsplit

from ci_bot.local_github.pushes import Update
from ci_bot.local_github.state import Repository, World

ADDRESS_FILE = "server.address"
# every push waits for it: urllib and json alone take longer to import than all that it does
_SCRIPT = """#!{python} -IS
import os, socket, sys

count = int(os.environ.get("GIT_PUSH_OPTION_COUNT", "0"))
options = [os.environb[b"GIT_PUSH_OPTION_%d" % each] for each in range(count)]
told = b"\\0".join([os.getcwdb(), sys.stdin.buffer.read(), *options])
head = "POST /_local/post-receive HTTP/1.0", "Host: %s:%s", "Authorization: Bearer %s", "Content-Length: %d", "", ""
try:
    with open({address!r}) as file:
        host, port, token = file.read().split()
    with socket.create_connection((host, int(port)), timeout=30) as server:
        server.sendall(("\\r\\n".join(head) % (host, port, token, len(told))).encode() + told)
        answer = server.makefile("rb").readline().decode().strip()
    if " 200 " not in answer:
        raise OSError(answer or "no answer")
except (OSError, ValueError) as problem:
    print("The local GitHub was not told of this push:", problem)
"""


def write_address(root: Path, url: str, token: str) -> None:
    """Leave word of where the hooks reach the server, for nobody but its user."""
    file, server = root / ADDRESS_FILE, urlsplit(url)
    file.touch(mode=0o600)
    file.write_text(f"{server.hostname} {server.port} {token}\n")


def place(root: Path, repository: Path) -> None:
    """Give a bare repository its hook."""
    hook = repository / "hooks" / "post-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(_SCRIPT.format(python=sys.executable, address=str((root / ADDRESS_FILE).resolve())))
    hook.chmod(hook.stat().st_mode | stat.S_IXUSR)


def understand(world: World, told: bytes) -> tuple[Repository, list[Update], str | None] | None:
    """The repository, the moved refs and who pushed, of what a hook told; None for a stranger.

    Who pushed is the push option `user=<login>`, if it names an account.
    """
    where, lines, *given = os.fsdecode(told).split("\0")
    path = Path(where).resolve()
    repository = next((each for each in world.repositories.values() if each.path.resolve() == path), None)
    if repository is None:
        return None
    updates = [Update(*line.split(" ")) for line in lines.splitlines()]
    options = dict(option.partition("=")[::2] for option in given)
    named = world.accounts.get(options.get("user", "").lower())
    return repository, updates, named.login if named else None
