"""The configuration file of a commit, read from GitHub."""

import asyncio
from collections.abc import Callable

from ci_bot import config
from ci_bot.decide import Read
from ci_bot.github.client import GitHub
from ci_bot.github.errors import TooLarge
from ci_bot.records import Repository

MAX_FILE_BYTES = 1 << 20


async def read_configuration(github: GitHub, repository: Repository, sha: str) -> Read | None:
    """The configuration file at a commit, if it has one: one look at the root, then one file."""
    root = await github.root_tree(repository, sha)
    for path in config.SEARCH_ORDER:
        if path.split("/", 1)[0] not in root:
            continue
        source = await _file(github, repository, path, sha)
        if source is None or (path == config.BARE and not config.is_ours(source)):
            continue
        parsed = await asyncio.to_thread(
            config.parse,
            source,
            path=path,
            repository_name=repository.full_name.split("/", 1)[1],
            read_params=_reader(github, repository, sha),
        )
        return Read(path, source.decode("utf-8", "replace"), parsed, sha)
    return None


async def _file(github: GitHub, repository: Repository, path: str, sha: str) -> bytes | None:
    """A file; of one that is too large just enough for the parser to say so."""
    try:
        return await github.read_file(repository, path, sha, MAX_FILE_BYTES)
    except TooLarge:
        return b"#" * MAX_FILE_BYTES


def _reader(github: GitHub, repository: Repository, sha: str) -> Callable[[str], bytes | None]:
    """Reads a parameters file for the parser, which runs in a thread."""
    loop = asyncio.get_running_loop()

    def read_params(path: str) -> bytes | None:
        reading = _file(github, repository, path, sha)
        return asyncio.run_coroutine_threadsafe(reading, loop).result()

    return read_params
