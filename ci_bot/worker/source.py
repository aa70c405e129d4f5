"""Where the code of a commit comes from: GitHub's archive, looked through before any node sees it."""

import asyncio
import time
from functools import lru_cache
from pathlib import Path

from ci_bot.github.client import GitHub
from ci_bot.github.errors import GitHubError, Gone, TooLarge
from ci_bot.records import Experiment, Repository
from ci_bot.worker.fetching import SourceGone, SourceRefused, SourceUnavailable
from launcher.archive import DamagedArchive, RefusedArchive, missing

MAX_ARCHIVE_BYTES = 2 << 30
MOST_REMEMBERED = 1024
LAG_S = 60.0
SUBMODULES = "The repository has submodules; GitHub's archive does not contain them, so their directories are empty."
LFS = "The repository has Git LFS files; GitHub's archive contains their pointers, not their contents."


class GitHubSource:
    """Commits from GitHub."""

    def __init__(self, github: GitHub, url: str) -> None:
        self.github = github
        self.url = url

    async def fetch(self, experiment: Experiment, destination: Path) -> tuple[str, ...]:
        """Put the archive there and say what it lacks."""
        repository = Repository(
            experiment.repository_id, experiment.installation_id, experiment.full_name, default_branch=""
        )
        try:
            if not await asyncio.to_thread(destination.exists):
                await self.github.tarball(repository, experiment.head_sha, destination, MAX_ARCHIVE_BYTES)
        except Gone as error:
            if time.time() - experiment.created_at < LAG_S:
                raise SourceUnavailable(str(error)) from error  # GitHub may not have it everywhere yet
            raise SourceGone(str(error)) from error
        except TooLarge as error:
            raise SourceRefused(str(error)) from error
        except (GitHubError, OSError) as error:
            raise SourceUnavailable(str(error)) from error
        return await asyncio.to_thread(look_through, destination)

    def repository_url(self, experiment: Experiment) -> str:
        """The target repository's address, for forks too."""
        return f"{self.url}/{experiment.full_name}"


def look_through(archive: Path) -> tuple[str, ...]:
    """What an archive lacks, in sentences.

    Raises:
        SourceRefused: no node would take it.
        SourceUnavailable: it must be fetched once more, or could not be read.
    """
    try:
        state = archive.stat()
        notes, refusal = _found(archive, (state.st_ino, state.st_size, state.st_mtime_ns))
    except DamagedArchive as error:
        raise SourceUnavailable(f"the archive came damaged: {error}") from error
    except OSError as error:
        raise SourceUnavailable(f"the archive can't be read: {error}") from error
    if refusal:
        raise SourceRefused(refusal)
    return notes


@lru_cache(MOST_REMEMBERED)
def _found(archive: Path, _identity: tuple[int, int, int]) -> tuple[tuple[str, ...], str]:
    """What this very file lacks, and why it is refused: to unpack it again for each experiment of a commit is slow.

    Only what was seen to its end is remembered, and nothing beyond this process.
    """
    try:
        with archive.open("rb") as file:
            submodules, lfs = missing(file)
    except RefusedArchive as error:
        return (), str(error)
    except DamagedArchive:
        archive.unlink(missing_ok=True)
        raise
    return tuple(note for note, seen in ((SUBMODULES, submodules), (LFS, lfs)) if seen), ""
