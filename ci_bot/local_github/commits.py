"""Commits, branches, refs, comparisons and files of pull requests, as GitHub shows them."""

from urllib.parse import quote

from ci_bot.local_github import git, shapes
from ci_bot.local_github.calls import Answer, Call, Refusal, not_found, page_numbers, paged
from ci_bot.local_github.state import Json, Repository, World

FILES_SHOWN = 300
COMMITS_SHOWN = 250


def find(call: Call, revision: str) -> str:
    """The SHA of the commit that a revision names.

    Raises:
        Refusal: 422, as GitHub answers where no commit is found; 409 where there is none at all.
    """
    sha = locate(call, revision)
    if sha is None:
        if not git.refs(call.repository.path):
            raise Refusal(409, "Git Repository is empty.")
        raise Refusal(422, f"No commit found for SHA: {revision}")
    return sha


def locate(call: Call, revision: str) -> str | None:
    """The SHA of the commit that a revision names, as of the time that the call sees, or None."""
    repository, world = call.repository, call.world
    if call.as_of is None:
        return git.resolve(repository.path, revision)
    bare = revision.removeprefix("refs/").removeprefix("heads/").removeprefix("tags/")
    for ref in (f"refs/heads/{bare}", f"refs/tags/{bare}"):
        known = world.refs.get((repository.id, ref), call.as_of)
        if known is not None:
            return git.resolve(repository.path, known)
    sha = git.resolve(repository.path, revision)
    late = sha is not None and world.arrived.get((repository.id, sha), 0.0) > call.as_of
    return None if late else sha


def author(world: World, person: git.Person) -> Json | None:
    """The account with a person's address, or null."""
    for account in list(world.accounts.values()):
        if account.email and account.email.lower() == person.email.lower():
            return shapes.account(world, account)
    return None


def shape(world: World, repository: Repository, commit: git.Commit) -> Json:
    """A "commit", without its files."""
    api = shapes.repository_url(world, repository)
    html = f"{world.html_url}/{repository.full_name}/commit"
    people = {
        role: {"name": who.name, "email": who.email, "date": shapes.stamp(shapes.moment(who.at))}
        for role, who in (("author", commit.author), ("committer", commit.committer))
    }
    return {
        "url": f"{api}/commits/{commit.sha}",
        "sha": commit.sha,
        "node_id": shapes.node_id("Commit", int(commit.sha[:12], 16)),
        "html_url": f"{html}/{commit.sha}",
        "comments_url": f"{api}/commits/{commit.sha}/comments",
        "commit": {
            "url": f"{api}/git/commits/{commit.sha}",
            **people,
            "message": commit.message,
            "comment_count": 0,
            "tree": {"sha": commit.tree, "url": f"{api}/git/trees/{commit.tree}"},
            "verification": {
                "verified": False,
                "reason": "unsigned",
                **dict.fromkeys(("payload", "signature", "verified_at")),
            },
        },
        "author": author(world, commit.author) or {},
        "committer": author(world, commit.committer) or {},
        "parents": [{"sha": sha, "url": f"{api}/commits/{sha}", "html_url": f"{html}/{sha}"} for sha in commit.parents],
    }


def file_change(world: World, repository: Repository, change: git.FileChange, sha: str) -> Json:
    """A "diff entry"."""
    name, html = quote(change.filename), f"{world.html_url}/{repository.full_name}"
    entry: Json = {
        "sha": change.sha,
        "filename": change.filename,
        "status": change.status,
        "additions": change.additions,
        "deletions": change.deletions,
        "changes": change.additions + change.deletions,
        "blob_url": f"{html}/blob/{sha}/{name}",
        "raw_url": f"{html}/raw/{sha}/{name}",
        "contents_url": f"{shapes.repository_url(world, repository)}/contents/{name}?ref={sha}",
    }
    if change.patch is not None:
        entry["patch"] = change.patch
    if change.previous is not None:
        entry["previous_filename"] = change.previous
    return entry


def simple(commit: git.Commit) -> Json:
    """A "simple commit", as suites and webhooks carry it."""
    return {
        "id": commit.sha,
        "tree_id": commit.tree,
        "message": commit.message,
        "timestamp": commit.committer.at,
        "author": {"name": commit.author.name, "email": commit.author.email},
        "committer": {"name": commit.committer.name, "email": commit.committer.email},
    }


def _parent(commit: git.Commit) -> str:
    return commit.parents[0] if commit.parents else git.EMPTY_TREE


def get_commit(call: Call) -> Answer:
    """`repos/get-commit`: JSON, or the SHA, diff or patch alone."""
    repository = call.repository
    commit = git.commit(repository.path, find(call, call.path["ref"]))
    if "sha" in call.accept:
        return Answer(commit.sha, media_type="application/vnd.github.sha; charset=utf-8")
    if "diff" in call.accept or "patch" in call.accept:
        return _text(call, _parent(commit), commit.sha)
    changed = git.changes(repository.path, _parent(commit), commit.sha)
    added, deleted = sum(each.additions for each in changed), sum(each.deletions for each in changed)
    page, size = page_numbers({"per_page": str(FILES_SHOWN), **call.query})
    body = shape(call.world, repository, commit)
    body["stats"] = {"additions": added, "deletions": deleted, "total": added + deleted}
    shown = changed[(page - 1) * size : page * size]
    body["files"] = [file_change(call.world, repository, each, commit.sha) for each in shown]
    return Answer(body)


def _text(call: Call, old: str, new: str) -> Answer:
    patch = "patch" in call.accept
    kind = "patch" if patch else "diff"
    return Answer(
        git.diff(call.repository.path, old, new, patch), media_type=f"application/vnd.github.{kind}; charset=utf-8"
    )


def list_commits(call: Call) -> Answer:
    """`repos/list-commits`: the history of a revision, newest first."""
    query = call.query
    sha = locate(call, query.get("sha") or call.repository.default_branch)
    if sha is None:
        if not git.refs(call.repository.path):
            raise Refusal(409, "Git Repository is empty.")
        raise not_found()
    options = [f"--{name}={query[name]}" for name in ("since", "until", "author", "committer") if query.get(name)]
    path = ["--", query["path"]] if query.get("path") else []
    found = git.commits(call.repository.path, *options, "--end-of-options", sha, *path)
    return paged(call, [shape(call.world, call.repository, each) for each in found])


def get_branch(call: Call) -> Answer:
    """`repos/get-branch`."""
    name, repository = call.path["branch"], call.repository
    sha = locate(call, f"refs/heads/{name}")
    if sha is None:
        raise Refusal(404, "Branch not found")
    url = f"{shapes.repository_url(call.world, repository)}/branches/{quote(name)}"
    body = {
        "name": name,
        "commit": shape(call.world, repository, git.commit(repository.path, sha)),
        "_links": {"self": url, "html": f"{call.world.html_url}/{repository.full_name}/tree/{quote(name)}"},
        "protected": False,
        "protection": {
            "enabled": False,
            "required_status_checks": {"enforcement_level": "off", "contexts": [], "checks": []},
        },
        "protection_url": f"{url}/protection",
    }
    return Answer(body)


def get_ref(call: Call) -> Answer:
    """`git/get-ref`: a branch or tag by its full name, never by a part of it."""
    ref, repository = f"refs/{call.path['ref']}", call.repository
    known = git.refs(repository.path).get(ref)
    if call.as_of is not None:
        known = call.world.refs.get((repository.id, ref), call.as_of)
    if known is None:
        raise not_found()
    kind = git.text(repository.path, "cat-file", "-t", known)
    url = shapes.repository_url(call.world, repository)
    target = {"type": kind, "sha": known, "url": f"{url}/git/{kind}s/{known}"}
    node = shapes.node_id("Ref", repository.id)
    return Answer({"ref": ref, "node_id": node, "url": f"{url}/git/{quote(ref)}", "object": target})


def compare(call: Call) -> Answer:
    """`repos/compare-commits-with-basehead`: base...head, with the merge base, 250 commits and 300 files."""
    base_name, dots, head_name = call.path["basehead"].partition("...")
    base, head = locate(call, _local(call, base_name)), locate(call, _local(call, head_name))
    path = call.repository.path
    parting = git.merge_base(path, base, head) if base and head else None
    if not dots or base is None or head is None or parting is None:
        raise not_found()
    if "diff" in call.accept or "patch" in call.accept:
        return _text(call, parting, head)
    ahead = git.commits(path, "--reverse", "--topo-order", f"{base}..{head}")
    behind = git.count(path, f"{head}..{base}")
    status = ("diverged" if behind else "ahead") if ahead else ("behind" if behind else "identical")
    html = f"{call.world.html_url}/{call.repository.full_name}/compare/{base_name}...{head_name}"
    page, size = page_numbers({"per_page": str(COMMITS_SHOWN), **call.query})
    body: Json = {
        "url": call.url,
        "html_url": html,
        "permalink_url": f"{call.world.html_url}/{call.repository.full_name}/compare/{base}...{head}",
        "diff_url": f"{html}.diff",
        "patch_url": f"{html}.patch",
        "base_commit": shape(call.world, call.repository, git.commit(path, base)),
        "merge_base_commit": shape(call.world, call.repository, git.commit(path, parting)),
        "status": status,
        "ahead_by": len(ahead),
        "behind_by": behind,
        "total_commits": len(ahead),
        "commits": [shape(call.world, call.repository, each) for each in ahead[(page - 1) * size : page * size]],
    }
    if page == 1:
        changed = git.changes(path, parting, head)[:FILES_SHOWN]
        body["files"] = [file_change(call.world, call.repository, each, head) for each in changed]
    return Answer(body)


def _local(call: Call, name: str) -> str:
    """`owner:branch` of this network; a fork's branch is only here if a pull request brought it."""
    owner, colon, branch = name.partition(":")
    if not colon:
        return name
    for other in call.world.repositories.values():
        related = other.id == call.repository.id or other.fork_of == call.repository.id
        if related and other.owner.lower() == owner.lower():
            return git.resolve(other.path, branch) or ""
    return ""
