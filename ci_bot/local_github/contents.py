"""Files, trees and archives of a commit."""

import base64
import functools
import hashlib
import hmac
import posixpath
import secrets
from urllib.parse import quote, urlencode

from ci_bot.local_github import commits, git, shapes
from ci_bot.local_github.calls import Answer, Call, Refusal, not_found
from ci_bot.local_github.state import Json, Repository, World

# https://docs.github.com/rest/repos/contents, https://docs.github.com/rest/git/trees
LARGEST_IN_JSON = 1024 * 1024
LARGEST = 100 * 1024 * 1024
MOST_IN_DIRECTORY = 1000
MOST_IN_TREE = 100_000
ARCHIVE_LINK_S = 300
_LINKS_FOLLOWED = 8
# a configuration file is the same in many commits
_small_blob = functools.lru_cache(32)(git.blob)


def _kind(entry: git.Entry) -> str:
    return {"040000": "dir", "160000": "submodule", "120000": "symlink"}.get(entry.mode, "file")


def _item(call: Call, entry: git.Entry, ref: str) -> Json:
    """What the JSON forms of files, directories, links and submodules share."""
    api = shapes.repository_url(call.world, call.repository)
    html = f"{call.world.html_url}/{call.repository.full_name}"
    kind, path = _kind(entry), quote(entry.path)
    objects = "trees" if kind == "dir" else "blobs"
    url = f"{api}/contents/{path}?ref={quote(ref)}"
    git_url: str | None = f"{api}/git/{objects}/{entry.sha}"
    html_url: str | None = f"{html}/{'tree' if kind == 'dir' else 'blob'}/{quote(ref)}/{path}"
    if kind == "submodule":
        git_url = html_url = None
    return {
        "type": kind,
        "size": entry.size or 0,
        "name": posixpath.basename(entry.path),
        "path": entry.path,
        "sha": entry.sha,
        "url": url,
        "git_url": git_url,
        "html_url": html_url,
        "download_url": f"{html}/raw/{quote(ref)}/{path}" if kind == "file" else None,
        "_links": {"self": url, "git": git_url, "html": html_url},
    }


def get_content(call: Call) -> Answer:
    """`repos/get-content`: a file, a directory, a symbolic link or a submodule, as JSON, object or raw bytes."""
    ref = call.query.get("ref") or call.repository.default_branch
    sha = commits.locate(call, ref)
    if sha is None:
        none_at_all = not git.refs(call.repository.path)
        raise Refusal(404, "This repository is empty." if none_at_all else f"No commit found for the ref {ref}")
    path = call.path.get("path", "").strip("/")
    if any(part in (".", "..") for part in path.split("/")):
        raise Refusal(400, "Invalid path: it must not contain . or ..")
    entry = git.entry(call.repository.path, sha, path) if path else git.Entry("040000", "tree", sha, None, "")
    if entry is None:
        raise not_found()
    if entry.mode == "120000":
        return _symlink(call, entry, sha, ref)
    if entry.mode == "160000":
        return Answer(_item(call, entry, ref) | {"submodule_git_url": _submodule_url(call, sha, entry.path)})
    return _directory(call, entry, ref) if entry.type == "tree" else _file(call, entry, ref)


def _submodule_url(call: Call, sha: str, path: str) -> str:
    text = git.text(call.repository.path, "config", "--blob", f"{sha}:.gitmodules", "--list")
    values = dict(line.split("=", 1) for line in text.splitlines())
    names = [key.rsplit(".", 1)[0] for key, value in values.items() if key.endswith(".path") and value == path]
    return values.get(f"{names[0]}.url", "") if names else ""


def _directory(call: Call, entry: git.Entry, ref: str) -> Answer:
    found = git.tree(call.repository.path, entry.sha)[:MOST_IN_DIRECTORY]
    prefix = f"{entry.path}/" if entry.path else ""
    inside = [git.Entry(each.mode, each.type, each.sha, each.size, prefix + each.path) for each in found]
    items = [_item(call, each, ref) for each in sorted(inside, key=lambda each: each.path)]
    if "object" in call.accept:
        return Answer(_item(call, entry, ref) | {"entries": items}, media_type="application/vnd.github.object+json")
    # a directory lists submodules as files, for the sake of old clients
    return Answer([item | {"type": "file"} if item["type"] == "submodule" else item for item in items])


def _file(call: Call, entry: git.Entry, ref: str) -> Answer:
    size = entry.size or 0
    if size > LARGEST:
        error = {"resource": "Blob", "field": "data", "code": "too_large"}
        raise Refusal(403, "This API returns blobs up to 100 MB in size.", [error])
    if "raw" in call.accept:
        return Answer(git.blob(call.repository.path, entry.sha), media_type="application/vnd.github.raw; charset=utf-8")
    item = _item(call, entry, ref)
    if size > LARGEST_IN_JSON:
        return Answer(item | {"content": "", "encoding": "none"})
    text = base64.b64encode(_small_blob(call.repository.path, entry.sha)).decode()
    lines = "".join(f"{text[at : at + 60]}\n" for at in range(0, len(text), 60))
    return Answer(item | {"content": lines, "encoding": "base64"})


def _symlink(call: Call, entry: git.Entry, sha: str, ref: str) -> Answer:
    """The file that a link leads to, where that is a file of the repository; else the link itself."""
    store, here = call.repository.path, entry
    for _ in range(_LINKS_FOLLOWED):
        target = git.blob(store, here.sha).decode(errors="replace")
        path = posixpath.normpath(posixpath.join(posixpath.dirname(here.path), target))
        found = None if target.startswith("/") or path.startswith("..") else git.entry(store, sha, path)
        if found is None or found.mode not in ("120000", "100644", "100755"):
            break
        if found.mode != "120000":
            return _file(call, git.Entry(found.mode, found.type, found.sha, found.size, entry.path), ref)
        here = found
    return Answer(_item(call, entry, ref) | {"target": git.blob(store, entry.sha).decode(errors="replace")})


def get_tree(call: Call) -> Answer:
    """`git/get-tree`: by the SHA of a tree or commit, or by the name of a ref."""
    wanted, store = call.path["tree_sha"], call.repository.path
    commit = git.resolve(store, wanted)
    sha = git.commit(store, commit).tree if commit else git.resolve(store, wanted, "tree")
    if sha is None:
        raise not_found()
    # whatever value it has: https://docs.github.com/rest/git/trees
    entries = git.whole_tree(store, sha) if "recursive" in call.query else git.tree(store, sha)
    api = f"{shapes.repository_url(call.world, call.repository)}/git"
    shown = []
    for each in entries[:MOST_IN_TREE]:
        line: Json = {"path": each.path, "mode": each.mode, "type": each.type, "sha": each.sha}
        if each.type != "commit":
            line["url"] = f"{api}/{each.type}s/{each.sha}"
        if each.size is not None:
            line["size"] = each.size
        shown.append(line)
    truncated = len(entries) > MOST_IN_TREE
    return Answer({"sha": sha, "url": f"{api}/trees/{sha}", "tree": shown, "truncated": truncated})


def _mark(world: World, path: str, expires: int, once: str) -> str:
    return hmac.new(world.signing_key, f"{path} {expires} {once}".encode(), hashlib.sha256).hexdigest()


def get_tarball(call: Call) -> Answer:
    """`repos/download-tarball-archive`: 302 to another host, where a signed link is good for one fetch."""
    world, ref = call.world, call.path.get("ref") or call.repository.default_branch
    sha = commits.locate(call, ref)
    if sha is None:
        raise not_found()
    # the other name of this machine: a client that forwards its token to another host is found out
    other = "127.0.0.1" if call.host.startswith("localhost") else "localhost"
    port = world.html_url.rpartition(":")[2]
    path = f"/_codeload/{call.repository.full_name}/legacy.tar.gz/{sha}"
    expires, once = int(world.clock()) + ARCHIVE_LINK_S, secrets.token_hex(8)
    query = urlencode({"expires": expires, "once": once, "token": _mark(world, path, expires, once)})
    return Answer(None, 302, {"Location": f"http://{other}:{port}{path}?{query}"})


class Archives:
    """The other host: gives archives to whoever holds a link of `get_tarball`."""

    def __init__(self, world: World) -> None:
        """No link was used yet."""
        self._world = world
        self._used: set[str] = set()

    def open(self, path: str, query: dict[str, str]) -> tuple[Repository, str]:
        """The repository and commit that a link opens, once.

        Raises:
            Refusal: 404 for a link that is wrong, late or used.
        """
        expires, once = query.get("expires", ""), query.get("once", "")
        _, _, owner, name, _, sha = path.split("/", 5)
        repository = self._world.repository(owner, name)
        good = expires.isdecimal() and hmac.compare_digest(
            _mark(self._world, path, int(expires), once), query.get("token", "")
        )
        with self._world.lock:
            if not good or repository is None or int(expires) < self._world.clock() or once in self._used:
                raise not_found()
            self._used.add(once)
        return repository, sha


def folder(repository: Repository, sha: str) -> str:
    """The one folder at the top of an archive."""
    return f"{repository.owner}-{repository.name}-{sha[:7]}"
