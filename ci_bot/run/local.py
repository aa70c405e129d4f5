"""A local git repository: a commit's name, files and archive, asked of git. Blocks."""

import asyncio
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from ci_bot import config
from ci_bot.records import Experiment
from ci_bot.worker.launch import SourceRefused
from ci_bot.worker.source import look_through


class NoCommit(Exception):
    """There is no such repository, or no such commit in it; the text says what to give instead."""


@dataclass(frozen=True)
class Commit:
    """A commit of a repository on this host; `ref` is its full name where one was given, else the SHA."""

    repository: Path
    sha: str
    ref: str
    title: str

    @property
    def name(self) -> str:
        """What the repository is called: its folder's name."""
        return self.repository.name.removesuffix(".git") or "repository"

    @property
    def url(self) -> str:
        """The repository's address."""
        return self.repository.as_uri()

    def read(self, path: str) -> bytes | None:
        """A file of the commit; None when it has no file of that name."""
        done = git(self.repository, "cat-file", "blob", f"{self.sha}:{path}")
        return done.stdout if done.returncode == 0 else None

    def configuration(self) -> tuple[str, bytes] | None:
        """The path and the bytes of the commit's configuration file."""
        for path in config.SEARCH_ORDER:
            source = self.read(path)
            if source is not None and (path != config.BARE or config.is_ours(source)):
                return path, source
        return None

    def has_uncommitted_changes(self) -> bool:
        """Whether the working tree holds what the commit does not."""
        return bool(git(self.repository, "status", "--porcelain", "--untracked-files=normal").stdout.strip())


def find(place: Path, ref: str) -> Commit:
    """A commit of the repository that a directory lies in.

    Raises:
        NoCommit: git finds no repository there, or no such commit.
    """
    top = git(place, "rev-parse", "--path-format=absolute", "--show-toplevel")
    if top.returncode:  # a bare repository has no working tree
        top = git(place, "rev-parse", "--path-format=absolute", "--git-dir")
    if top.returncode:
        raise NoCommit(f"{place} is in no git repository: {_said(top)}")
    repository = Path(os.fsdecode(top.stdout.rstrip(b"\n")))
    found = git(repository, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}")
    if found.returncode:
        raise NoCommit(f"{repository} has no commit {ref!r}; give a branch, a tag or a SHA of it, or commit something")
    sha = found.stdout.decode().strip()
    full = git(repository, "rev-parse", "--symbolic-full-name", "--end-of-options", ref).stdout.decode().split()
    named = full[-1] if full and full[-1].startswith("refs/") else sha
    title = git(repository, "log", "-1", "--format=%s", sha).stdout.decode("utf-8", "replace").strip()
    return Commit(repository, sha, named, title)


@dataclass(frozen=True)
class LocalSource:
    """The code of a commit, from the repository on this host."""

    commit: Commit

    async def fetch(self, experiment: Experiment, destination: Path) -> tuple[str, ...]:
        """Put the archive there and say what it lacks."""
        return await asyncio.to_thread(self._fetch, destination)

    def repository_url(self, experiment: Experiment) -> str:
        """The repository's address."""
        return self.commit.url

    def _fetch(self, destination: Path) -> tuple[str, ...]:
        if not destination.exists():
            part = destination.with_name(f"{destination.name}.part")
            # One folder above everything, as in GitHub's archives.
            argv = ("archive", "--format=tar.gz", "--prefix=x/", f"--output={part}", self.commit.sha)
            done = git(self.commit.repository, *argv)
            if done.returncode:
                raise SourceRefused(f"git archive failed: {_said(done)}")
            part.replace(destination)
        return look_through(destination)


def git(place: Path, *arguments: str) -> "subprocess.CompletedProcess[bytes]":
    """git in a directory, whatever another git around us may have set."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        return subprocess.run(["git", "-C", place, *arguments], capture_output=True, env=kept, check=False)
    except FileNotFoundError as error:
        raise NoCommit("git is not installed, or not on PATH") from error


def _said(done: "subprocess.CompletedProcess[bytes]") -> str:
    lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
    return lines[0] if lines else f"git ended with {done.returncode}"
