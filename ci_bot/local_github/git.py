"""The git commands behind the local GitHub; what can never change of an object is asked once and kept."""

import functools
import re
import shutil
import subprocess
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

GIT = shutil.which("git") or "/usr/bin/git"
ZERO_SHA = "0" * 40
EMPTY_TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
_SHA = re.compile(r"[0-9a-f]{7,40}")
_FULL_SHA = re.compile(r"[0-9a-f]{40}")
MOST_KEPT = 4096
_FORMAT = "%H%x00%T%x00%P%x00%an%x00%ae%x00%aI%x00%cn%x00%ce%x00%cI%x00%B%x01"


class GitError(Exception):
    """git refused; the text is what it said."""


@dataclass(frozen=True)
class Person:
    """Who wrote or committed, and when, as ISO 8601 with its offset."""

    name: str
    email: str
    at: str


@dataclass(frozen=True)
class Commit:
    """A commit object."""

    sha: str
    tree: str
    parents: tuple[str, ...]
    author: Person
    committer: Person
    message: str


_commits: dict[tuple[Path, str], Commit] = {}


@dataclass(frozen=True)
class Entry:
    """A line of a tree; `size` is None for what is not a blob."""

    mode: str
    type: str
    sha: str
    size: int | None
    path: str


@dataclass(frozen=True)
class Touched:
    """A file that differs between two trees; `previous` is its name before, where it was renamed or copied."""

    filename: str
    status: str
    sha: str
    previous: str | None


@dataclass(frozen=True)
class FileChange(Touched):
    """A file that differs between two trees, with its part of the patch."""

    additions: int
    deletions: int
    patch: str | None


def environment(extra: Mapping[str, str] = {}) -> dict[str, str]:
    """The variables git gets: no configuration of the user or the machine, no prompt."""
    return {
        "PATH": f"{Path(GIT).parent}:/usr/bin:/bin",
        "HOME": "/nonexistent",
        "LC_ALL": "C.UTF-8",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        **extra,
    }


def run(path: Path, *args: str, extra: Mapping[str, str] = {}, given: bytes = b"") -> bytes:
    """Run git in a bare repository and give what it wrote; `given` is what it reads.

    Raises:
        GitError: it ended with another code than 0.
    """
    argv = [GIT, "-c", "core.quotePath=false", "--git-dir", str(path), *args]
    done = subprocess.run(argv, input=given, capture_output=True, env=environment(extra), check=False)
    if done.returncode != 0:
        raise GitError(done.stderr.decode(errors="replace").strip() or f"git {args[0]}: code {done.returncode}")
    return done.stdout


def text(path: Path, *args: str) -> str:
    """Run git and give its words without the end of the line."""
    return run(path, *args).decode(errors="replace").strip()


def create(path: Path, default_branch: str) -> None:
    """Make an empty bare repository."""
    path.parent.mkdir(parents=True, exist_ok=True)
    run(path, "init", "--quiet", "--bare", "--template=", f"--initial-branch={default_branch}")
    _configure(path)


def copy(source: Path, path: Path) -> None:
    """Make a bare repository with the branches and tags of another: a fork."""
    path.parent.mkdir(parents=True, exist_ok=True)
    run(path, "init", "--quiet", "--bare", "--template=")
    run(path, "fetch", "--quiet", str(source), "+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")
    run(path, "symbolic-ref", "HEAD", text(source, "symbolic-ref", "HEAD"))
    _configure(path)


def _configure(path: Path) -> None:
    with (path / "config").open("a") as file:
        # a background gc would outlive the push that began it
        file.write("[receive]\n\tadvertisePushOptions = true\n\tautogc = false\n[gc]\n\tauto = 0\n")
    # a commit that a repository before this one had here may be none of this one's
    _commits.clear()


def fetch(path: Path, source: Path, sha: str, ref: str) -> None:
    """Bring a commit of another repository here, under a ref."""
    extra = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "uploadpack.allowAnySHA1InWant", "GIT_CONFIG_VALUE_0": "true"}
    run(path, "fetch", "--quiet", "--no-tags", str(source), f"+{sha}:{ref}", extra=extra)


def resolve(path: Path, revision: str, kind: str = "commit") -> str | None:
    """The full object name of a SHA, branch, tag or ref, or None.

    A branch goes before a tag of the same name, and both before an abbreviated SHA, as on GitHub.
    """
    if not revision or revision.startswith("-") or "\x00" in revision or ".." in revision or "@{" in revision:
        return None
    names = [f"refs/heads/{revision}", f"refs/tags/{revision}"]
    if revision == "HEAD" or revision.startswith("refs/"):
        names = [revision]
    elif revision.startswith(("heads/", "tags/")):
        names.append(f"refs/{revision}")
    if _FULL_SHA.fullmatch(revision):
        names = [revision]
    elif _SHA.fullmatch(revision):
        names.append(revision)
    for name in names:
        try:
            if kind == "commit" and _FULL_SHA.fullmatch(name):
                return commit(path, name).sha
            return text(path, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{{kind}}}")
        except GitError:
            continue
    return None


def refs(path: Path) -> dict[str, str]:
    """Every ref and the object it names."""
    lines = text(path, "for-each-ref", "--format=%(refname) %(objectname)").splitlines()
    return dict(line.split(" ", 1) for line in lines)


def peeled(path: Path, names: list[str]) -> dict[str, str]:
    """The commits that objects are or, as tags, point at, in one question; what leads to none is left out."""
    asked = "".join(f"{name}^{{commit}}\n" for name in names).encode()
    lines = run(path, "cat-file", "--batch-check=%(objectname)", given=asked).decode().splitlines()
    return {name: line for name, line in zip(names, lines, strict=True) if _FULL_SHA.fullmatch(line)}


def commits(path: Path, *arguments: str, given: bytes = b"") -> list[Commit]:
    """The commits that `git log` lists for these arguments and what it reads; `commit` knows them then."""
    raw = run(path, "log", f"--format={_FORMAT}", *arguments, given=given).decode(errors="replace")
    found = []
    for record in raw.split("\x01"):
        if record.strip():
            sha, tree, parents, an, ae, at, cn, ce, ct, message = record.lstrip("\n").split("\x00")
            author, committer = Person(an, ae, at), Person(cn, ce, ct)
            found.append(Commit(sha, tree, tuple(parents.split()), author, committer, message.rstrip("\n")))
    if len(_commits) > MOST_KEPT:
        _commits.clear()
    _commits.update({(path, each.sha): each for each in found})
    return found


def commits_of(path: Path, revisions: Iterable[str], *flags: str) -> list[Commit]:
    """The same for any number of revisions; none of none."""
    given = "".join(f"{revision}\n" for revision in revisions).encode()
    return commits(path, *flags, "--stdin", given=given) if given else []


def commit(path: Path, sha: str) -> Commit:
    """One commit by its full SHA.

    Raises:
        GitError: there is none.
    """
    known = _commits.get((path, sha))
    return known or commits(path, "--max-count=1", "--end-of-options", f"{sha}^{{commit}}")[0]


def count(path: Path, *arguments: str) -> int:
    """How many commits `git rev-list` lists for these arguments."""
    return int(text(path, "rev-list", "--count", *arguments))


def is_ancestor(path: Path, older: str, newer: str) -> bool:
    """Whether one commit is in the history of another."""
    try:
        run(path, "merge-base", "--is-ancestor", older, newer)
    except GitError:
        return False
    return True


def merge_base(path: Path, one: str, other: str) -> str | None:
    """The commit where two histories part, or None."""
    try:
        return text(path, "merge-base", one, other)
    except GitError:
        return None


@functools.lru_cache(256)
def tree(path: Path, sha: str) -> tuple[Entry, ...]:
    """The entries of a tree by its SHA."""
    return _listed(path, sha)


def whole_tree(path: Path, sha: str) -> tuple[Entry, ...]:
    """The entries of a tree and of all within it, with the trees themselves, as GitHub lists them."""
    return _listed(path, sha, "-r", "-t")


def _listed(path: Path, sha: str, *flags: str) -> tuple[Entry, ...]:
    raw = run(path, "ls-tree", "-z", "--long", *flags, sha).decode(errors="surrogateescape")
    found = []
    for line in filter(None, raw.split("\x00")):
        facts, name = line.split("\t", 1)
        mode, kind, object_sha, size = facts.split()
        found.append(Entry(mode, kind, object_sha, None if size == "-" else int(size), name))
    return tuple(found)


def entry(path: Path, sha: str, file: str) -> Entry | None:
    """The entry of a path in a commit, or None."""
    found = Entry("040000", "tree", commit(path, sha).tree, None, "")
    for name in file.split("/"):
        inside = tree(path, found.sha) if found.type == "tree" else ()
        each = next((each for each in inside if each.path == name), None)
        if each is None:
            return None
        found = each
    return replace(found, path=file)


def blob(path: Path, sha: str) -> bytes:
    """The bytes of a blob."""
    return run(path, "cat-file", "blob", sha)


def archive(path: Path, sha: str, prefix: str) -> Iterator[bytes]:
    """A .tar.gz of a commit, piece by piece; the process ends with the last piece or with its reader."""
    argv = [GIT, "--git-dir", str(path), "archive", "-1", "--format=tar.gz", f"--prefix={prefix}/", sha]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, env=environment()) as process:
        assert process.stdout is not None  # noqa: S101 - PIPE was asked for
        try:
            while piece := process.stdout.read(65536):
                yield piece
        finally:
            process.kill()


def merge(path: Path, ours: str, theirs: str, message: str) -> str | None:
    """A new commit that merges two, attached to no ref, or None where they conflict."""
    try:
        merged = text(path, "merge-tree", "--write-tree", ours, theirs).splitlines()[0]
    except GitError:
        return None
    who = {"NAME": "GitHub", "EMAIL": "noreply@localhost"}
    extra = {f"GIT_{role}_{key}": value for role in ("AUTHOR", "COMMITTER") for key, value in who.items()}
    made = run(path, "commit-tree", merged, "-p", ours, "-p", theirs, "-m", message, extra=extra)
    return made.decode().strip()


def set_ref(path: Path, ref: str, sha: str | None) -> None:
    """Point a ref at a commit, or delete it; no hook runs."""
    run(path, "update-ref", *(["-d", ref] if sha is None else [ref, sha]))


def changes(path: Path, old: str, new: str) -> list[FileChange]:
    """The files that differ between two commits or trees, renames found, with the patch of each."""
    told = _diff(path, "--raw", "--numstat", "--patch", "--no-color", old, new)
    found, numbers = list(_touched(told)), {}
    while told and told[0]:
        added, deleted, name = told.popleft().split("\t")
        # of a renamed file both names follow
        name = name or (told.popleft(), told.popleft())[1]
        numbers[name] = (0, 0) if added == "-" else (int(added), int(deleted))
    patches = _patches("\x00".join(told).lstrip("\x00"))
    return [
        FileChange(**vars(each), additions=counts[0], deletions=counts[1], patch=patches.get(each.filename))
        for each in found
        for counts in (numbers.get(each.filename, (0, 0)),)
    ]


def touched(path: Path, old: str, new: str) -> list[Touched]:
    """The files that differ between two commits or trees, renames found, by name alone."""
    return list(_touched(_diff(path, "--raw", old, new)))


def _diff(path: Path, *arguments: str) -> deque[str]:
    whole = run(path, "diff", "-z", "-M", "--no-abbrev", *arguments)
    return deque(whole.decode(errors="replace").split("\x00"))


def _touched(told: deque[str]) -> Iterator[Touched]:
    """Take from the front what `--raw` wrote."""
    words = {"A": "added", "D": "removed", "M": "modified", "R": "renamed", "C": "copied", "T": "changed"}
    while told[0].startswith(":"):
        _, _, before, after, letter = told.popleft().split(" ")
        previous = told.popleft() if letter[0] in "RC" else None
        yield Touched(told.popleft(), words[letter[0]], before if letter[0] == "D" else after, previous)


def _patches(whole: str) -> dict[str, str]:
    found = {}
    for part in re.split(r"(?m)^diff --git ", whole)[1:]:
        head, mark, hunks = part.partition("\n@@ ")
        name = re.search(r"(?m)^\+\+\+ b/(.*?)\t?$", head) or re.search(r"(?m)^--- a/(.*?)\t?$", head)
        if mark and name:
            found[name[1]] = "@@ " + hunks.rstrip("\n")
    return found


def diff(path: Path, old: str, new: str, patch: bool) -> bytes:
    """The difference as `git diff` writes it, or as a series of mails (`git format-patch`)."""
    if patch:
        return run(path, "format-patch", "--stdout", f"{old}..{new}")
    return run(path, "diff", old, new)
