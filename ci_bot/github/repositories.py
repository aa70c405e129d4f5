"""Reading a repository: its files at a commit, branches, pull requests, people. Each call uses a token for it alone."""

import base64
import binascii
from pathlib import Path
from typing import Any, Protocol

from ci_bot.github import answers
from ci_bot.github.answers import Commit, Pull, Role
from ci_bot.github.errors import Gone, Rejected, TooLarge, Unavailable
from ci_bot.github.session import Session
from ci_bot.github.tokens import LIST, READ, Access, Permissions
from ci_bot.records import Repository

MAX_CONTENTS_BYTES = 1_000_000  # above that the contents API leaves the content out
MAX_LISTING_BYTES = 16 * 1024 * 1024
TARBALL_TIMEOUT_S = 900.0


class Place(Protocol):
    """A repository with the installation to reach it by: events.RepositoryRef, records.Repository."""

    @property
    def id(self) -> int: ...

    @property
    def installation_id(self) -> int: ...

    @property
    def full_name(self) -> str: ...


class RepositoryCalls:
    """What GitHub can be asked about one repository."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def repository(self, repo: Place) -> Repository:
        """The repository as it is now, under its present name."""
        return await self._session.get(
            access(repo), "/repos/{owner}/{repo}", lambda a: answers.repository(a, repo.installation_id), **names(repo)
        )

    async def installation_repositories(self, installation_id: int) -> tuple[Repository, ...]:
        """All repositories that an installation covers."""
        return await self._session.list(
            Access(installation_id, None, LIST),
            "/installation/repositories{?per_page}",
            lambda a: answers.repository(a, installation_id),
            key="repositories",
        )

    async def root_tree(self, repo: Place, sha: str) -> tuple[str, ...]:
        """The names in the root directory of a commit; Gone when there is no such commit."""
        url = "/repos/{owner}/{repo}/git/trees/{sha}"
        return await self._session.get(
            access(repo), url, answers.tree_names, max_bytes=MAX_LISTING_BYTES, sha=sha, **names(repo)
        )

    async def read_file(self, repo: Place, path: str, sha: str, max_bytes: int = MAX_CONTENTS_BYTES) -> bytes | None:
        """A file at a commit, or None when the commit has no file of that name.

        Raises:
            Gone: there is no such commit.
            TooLarge: the file has more than `max_bytes` (or a million, GitHub's own limit here).
        """
        found = await self._contents(repo, path, sha)
        if not isinstance(found, dict) or found.get("type") != "file":
            return None
        size = found.get("size")
        if not isinstance(size, int) or size > max_bytes:
            raise TooLarge(f"{path} at {sha[:7]} has {size} bytes, more than {max_bytes}")
        if found.get("encoding") != "base64":
            # A submodule is called a file too, but has no content; nor has anything above GitHub's limit.
            if not found.get("download_url"):
                return None
            raise TooLarge(f"{path} at {sha[:7]} has {size} bytes, more than GitHub gives at once")
        try:
            content = base64.b64decode(str(found.get("content", "")))
        except (ValueError, binascii.Error):
            raise Unavailable(f"{path} at {sha[:7]}: GitHub's answer is no base64") from None
        if len(content) > max_bytes:
            raise TooLarge(f"{path} at {sha[:7]} has {len(content)} bytes, more than {max_bytes}")
        return content

    async def _contents(self, repo: Place, path: str, sha: str) -> Any:
        """A file's or a directory's description; None when there is neither."""
        segments = path.split("/")
        if any(segment in {"", ".", ".."} for segment in segments):
            return None  # no such path in a git tree, and an address must not climb
        url = "/repos/{owner}/{repo}/contents{/segments*}{?ref}"
        try:
            return await self._session.get_json(access(repo), url, segments=segments, ref=sha, **names(repo))
        except Gone as error:
            if "no commit found" in str(error).lower():
                raise
            return None

    async def ref_head(self, repo: Place, ref: str) -> str | None:
        """What a branch or tag (refs/heads/… or refs/tags/…) points to now: a commit, or an annotated tag's own object.

        None when there is no such ref; Gone without the repository.
        """
        url = "/repos/{owner}/{repo}/git/ref{/segments*}"
        segments = ref.split("/")[1:]
        try:
            return await self._session.get(access(repo), url, answers.ref_sha, segments=segments, **names(repo))
        except Gone:
            await self.repository(repo)  # raises Gone when it is the repository that is missing
            return None
        except Rejected as error:
            if error.status == 409:  # an empty repository has no branches
                return None
            raise

    async def commit(self, repo: Place, sha: str) -> Commit:
        """A commit's message and author; Gone when there is no such commit."""
        # per_page bounds the list of changed files, which we don't want.
        url = "/repos/{owner}/{repo}/commits/{sha}{?per_page}"
        return await self._session.get(access(repo), url, answers.commit, sha=sha, per_page=1, **names(repo))

    async def pull_request(self, repo: Place, number: int) -> Pull:
        """A pull request as it is now."""
        url = "/repos/{owner}/{repo}/pulls/{number}"
        return await self._session.get(access(repo), url, answers.pull, number=number, **names(repo))

    async def pulls_for_commit(self, repo: Place, sha: str) -> tuple[Pull, ...]:
        """The pull requests that a commit is in."""
        url = "/repos/{owner}/{repo}/commits/{sha}/pulls{?per_page}"
        return await self._session.list(access(repo), url, answers.pull, sha=sha, **names(repo))

    async def permission(self, repo: Place, login: str, user_id: int | None = None) -> Role:
        """What a person may do in the repository, asked now: names and old answers prove nothing.

        After a renaming another may have the login, who is not the one of that id.
        """
        url = "/repos/{owner}/{repo}/collaborators/{login}/permission"
        try:
            role, whose = await self._session.get(access(repo), url, answers.role, login=login, **names(repo))
        except Gone:
            return Role.NONE
        return role if user_id in {None, whose} else Role.NONE

    async def tarball(
        self, repo: Place, sha: str, destination: Path, max_bytes: int, *, timeout_s: float = TARBALL_TIMEOUT_S
    ) -> int:
        """The commit's files as .tar.gz in `destination`, which appears only when complete; gives its size in bytes.

        Raises:
            Gone: there is no such commit.
            TooLarge: the archive has more than `max_bytes`; nothing is left of it.
        """
        url = "/repos/{owner}/{repo}/tarball/{sha}"
        return await self._session.download(
            access(repo), url, destination, max_bytes=max_bytes, timeout_s=timeout_s, sha=sha, **names(repo)
        )


def access(repo: Place, permissions: Permissions = READ) -> Access:
    """A token for one repository."""
    return Access(repo.installation_id, repo.id, permissions)


def names(repo: Place) -> dict[str, Any]:
    """The owner and repository of an address."""
    owner, _, name = repo.full_name.partition("/")
    return {"owner": owner, "repo": name}
