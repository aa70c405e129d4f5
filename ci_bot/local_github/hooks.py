"""The post-receive hook of every repository, and what it tells the server."""

import json
import stat
import sys
from pathlib import Path

from ci_bot.local_github import git
from ci_bot.local_github.pushes import Update
from ci_bot.local_github.state import Json, Repository, World

ADDRESS_FILE = "server.json"
_SCRIPT = '''#!{python} -IS
"""Tell the local GitHub what was pushed."""
import json, os, sys, urllib.request

lines = [line.split() for line in sys.stdin.read().splitlines()]
count = int(os.environ.get("GIT_PUSH_OPTION_COUNT", "0"))
told = {{
    "path": os.getcwd(),
    "updates": lines,
    "options": [os.environ["GIT_PUSH_OPTION_%d" % each] for each in range(count)],
}}
try:
    with open({address!r}) as file:
        server = json.load(file)
    request = urllib.request.Request(server["url"], json.dumps(told).encode())
    request.add_header("Authorization", "Bearer " + server["token"])
    urllib.request.build_opener(urllib.request.ProxyHandler({{}})).open(request, timeout=30).close()
except (OSError, ValueError) as problem:
    print("The local GitHub was not told of this push:", problem)
'''


def write_address(root: Path, url: str, token: str) -> None:
    """Leave word of where the hooks reach the server, for nobody but its user."""
    file = root / ADDRESS_FILE
    file.touch(mode=0o600)
    file.write_text(json.dumps({"url": f"{url}/_local/post-receive", "token": token}))


def place(root: Path, repository: Path) -> None:
    """Give a bare repository its hook."""
    hook = repository / "hooks" / "post-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(_SCRIPT.format(python=sys.executable, address=str((root / ADDRESS_FILE).resolve())))
    hook.chmod(hook.stat().st_mode | stat.S_IXUSR)


def understand(world: World, told: Json) -> tuple[Repository, list[Update], str] | None:
    """The repository, the moved refs and the login of who pushed, of what a hook told; None for a stranger.

    The login is the push option `user=<login>`, else whose address the newest commit bears, else the owner.
    """
    path = Path(told["path"]).resolve()
    repository = next((each for each in world.repositories.values() if each.path.resolve() == path), None)
    if repository is None:
        return None
    updates = [Update(*line) for line in told["updates"]]
    options = dict(option.partition("=")[::2] for option in told["options"])
    named = world.accounts.get(options.get("user", "").lower())
    return repository, updates, named.login if named else _committer(world, repository, updates)


def _committer(world: World, repository: Repository, updates: list[Update]) -> str:
    for update in updates:
        sha = None if update.deleted else git.resolve(repository.path, update.new)
        if sha is not None:
            email = git.commit(repository.path, sha).committer.email.lower()
            found = next((each for each in world.accounts.values() if each.email.lower() == email), None)
            if found is not None:
                return found.login
    return repository.owner
