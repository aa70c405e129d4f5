"""Pull requests: their operations, their JSON and what happens to them."""

from dataclasses import replace
from typing import Any

from ci_bot.local_github import commits, git, shapes, webhooks
from ci_bot.local_github.calls import Answer, Call, Refusal, invalid, not_found, paged
from ci_bot.local_github.shapes import stamp, stamp_or_none
from ci_bot.local_github.state import Json, PullRequest, Repository, World

MOST_FILES = 3000


def _end(world: World, repository_id: int, ref: str, sha: str) -> Json:
    repository = world.repositories.get(repository_id)
    owner = None if repository is None else shapes.person(world, repository.owner)
    return {
        "label": f"{repository.owner}:{ref}" if repository else ref,
        "ref": ref,
        "sha": sha,
        "user": owner,
        # null where the fork was deleted
        "repo": None if repository is None else shapes.repository(world, repository),
    }


def simple_shape(world: World, pull: PullRequest) -> Json:
    """A "simple pull request", as listings carry it."""
    repository = world.repositories[pull.repository_id]
    api = shapes.repository_url(world, repository)
    url, issue = f"{api}/pulls/{pull.number}", f"{api}/issues/{pull.number}"
    html = f"{world.html_url}/{repository.full_name}/pull/{pull.number}"
    links = {
        "self": url,
        "html": html,
        "issue": issue,
        "comments": f"{issue}/comments",
        "review_comments": f"{url}/comments",
        "review_comment": f"{api}/pulls/comments{{/number}}",
        "commits": f"{url}/commits",
        "statuses": f"{api}/statuses/{pull.head_sha}",
    }
    return {
        "url": url,
        "id": pull.id,
        "node_id": shapes.node_id("PullRequest", pull.id),
        "html_url": html,
        "diff_url": f"{html}.diff",
        "patch_url": f"{html}.patch",
        **{f"{name}_url": href for name, href in links.items() if name not in ("self", "html")},
        "number": pull.number,
        "state": pull.state,
        "locked": False,
        "title": pull.title,
        "user": shapes.person(world, pull.user),
        "body": pull.body,
        **dict.fromkeys(("milestone", "active_lock_reason", "assignee", "auto_merge")),
        **{name: [] for name in ("labels", "assignees", "requested_reviewers", "requested_teams")},
        "created_at": stamp(pull.created_at),
        "updated_at": stamp(pull.updated_at),
        "closed_at": stamp_or_none(pull.closed_at),
        "merged_at": stamp_or_none(pull.merged_at),
        "merge_commit_sha": pull.merge_commit_sha,
        "head": _end(world, pull.head_repository_id, pull.head_ref, pull.head_sha),
        "base": _end(world, pull.repository_id, pull.base_ref, pull.base_sha),
        "_links": {name: {"href": href} for name, href in links.items()},
        "author_association": _association(repository, pull.user),
        "draft": pull.draft,
    }


def _association(repository: Repository, login: str) -> str:
    if login == repository.owner:
        return "OWNER"
    return "COLLABORATOR" if login in repository.roles else "NONE"


def shape(world: World, pull: PullRequest) -> Json:
    """A "pull request", whole."""
    repository = world.repositories[pull.repository_id]
    parting = git.merge_base(repository.path, pull.base_sha, pull.head_sha) or git.EMPTY_TREE
    changed = git.changes(repository.path, parting, pull.head_sha)
    talk = [
        each for each in world.comments.values() if (each.repository_id, each.number) == (repository.id, pull.number)
    ]
    mergeable = pull.merge_commit_sha is not None
    return simple_shape(world, pull) | {
        "merged": pull.merged_at is not None,
        "mergeable": None if pull.state == "closed" else mergeable,
        "rebaseable": None if pull.state == "closed" else mergeable,
        "mergeable_state": "unknown" if pull.state == "closed" else ("clean" if mergeable else "dirty"),
        "merged_by": shapes.person(world, pull.merged_by),
        "comments": len(talk),
        "review_comments": 0,
        "maintainer_can_modify": False,
        "commits": git.count(repository.path, pull.head_sha, f"^{pull.base_sha}"),
        "additions": sum(each.additions for each in changed),
        "deletions": sum(each.deletions for each in changed),
        "changed_files": len(changed),
    }


def find(world: World, repository: Repository, number: int, as_of: float | None = None) -> PullRequest | None:
    """A pull request by its number, now or as it was at a time."""
    for pull in world.pulls.values(as_of):
        if (pull.repository_id, pull.number) == (repository.id, number):
            return pull
    return None


def tell(world: World, pull: PullRequest, action: str, sender: str, **more: Any) -> None:
    """Send a `pull_request` event."""
    payload = {
        "action": action,
        "number": pull.number,
        "pull_request": shape(world, pull),
        **more,
        "sender": shapes.person(world, sender),
    }
    webhooks.emit(world, world.repositories[pull.repository_id], "pull_request", payload)


def _with_head(world: World, pull: PullRequest, sha: str) -> PullRequest:
    """The pull request with a new head, brought here from the fork, and its trial merge."""
    base, head = world.repositories[pull.repository_id], world.repositories[pull.head_repository_id]
    git.fetch(base.path, head.path, sha, f"refs/pull/{pull.number}/head")
    world.arrived.setdefault((base.id, sha), world.clock())
    base_sha = git.resolve(base.path, f"refs/heads/{pull.base_ref}") or pull.base_sha
    merged = git.merge(base.path, base_sha, sha, f"Merge {sha} into {base_sha}")
    if merged is not None:
        git.set_ref(base.path, f"refs/pull/{pull.number}/merge", merged)
    changed = replace(pull, head_sha=sha, base_sha=base_sha, merge_commit_sha=merged, updated_at=world.clock())
    world.pulls.put(pull.id, changed)
    return changed


def _refused(words: str) -> Refusal:
    return Refusal(422, "Validation Failed", [{"resource": "PullRequest", "code": "custom", "message": words}])


def open_pull(world: World, base: Repository, wanted: Json, user: str) -> PullRequest:
    """Open a pull request.

    Args:
        world: everything.
        base: where it is to go.
        wanted: head ("branch" or "owner:branch"), base (branch), title, body, draft.
        user: the login that opens it.

    Raises:
        Refusal: 422 where a branch is missing, nothing differs, or one is open already.
    """
    owner, colon, branch = str(wanted["head"]).rpartition(":")
    head = base if not colon or owner.lower() == base.owner.lower() else fork_of(world, base, owner)
    head_sha = None if head is None else git.resolve(head.path, f"refs/heads/{branch}")
    base_ref = wanted.get("base") or base.default_branch
    base_sha = git.resolve(base.path, f"refs/heads/{base_ref}")
    if head is None or head_sha is None:
        raise invalid("PullRequest", "head", "invalid")
    if base_sha is None:
        raise invalid("PullRequest", "base", "invalid")
    here = head.id == base.id
    if here and git.is_ancestor(base.path, head_sha, base_sha):
        raise _refused(f"No commits between {base_ref} and {branch}")
    with world.lock:
        mine = [each for each in world.pulls.values() if each.repository_id == base.id]
        same = (head.id, branch, base_ref, "open")
        if any((each.head_repository_id, each.head_ref, each.base_ref, each.state) == same for each in mine):
            raise _refused(f"A pull request already exists for {head.owner}:{branch}.")
        number = 1 + max((each.number for each in mine), default=0)
        now = world.clock()
        pull = PullRequest(
            world.next_id(),
            number,
            base.id,
            head.id,
            branch,
            head_sha,
            base_ref,
            base_sha,
            wanted.get("title") or branch,
            wanted.get("body"),
            user,
            now,
            now,
            draft=bool(wanted.get("draft")),
        )
        pull = _with_head(world, pull, head_sha)
        tell(world, pull, "opened", user)
        return pull


def fork_of(world: World, base: Repository, owner: str) -> Repository | None:
    """The fork of a repository that belongs to an account, or None."""
    forks = [each for each in world.repositories.values() if each.fork_of == base.id]
    return next((each for each in forks if each.owner.lower() == owner.lower()), None)


def close(world: World, pull: PullRequest, user: str) -> PullRequest:
    """Close a pull request without merging it."""
    now = world.clock()
    changed = replace(pull, state="closed", closed_at=now, updated_at=now)
    world.pulls.put(pull.id, changed)
    tell(world, changed, "closed", user)
    return changed


def reopen(world: World, pull: PullRequest, user: str) -> PullRequest:
    """Open a closed pull request again, at whatever its branch now is."""
    head = world.repositories.get(pull.head_repository_id)
    sha = None if head is None else git.resolve(head.path, f"refs/heads/{pull.head_ref}")
    if sha is None or pull.merged_at is not None:
        raise invalid("PullRequest", "state", "invalid", "state cannot be changed. The branch is gone or merged.")
    changed = _with_head(world, replace(pull, state="open", closed_at=None), sha)
    tell(world, changed, "reopened", user)
    return changed


def head_pushed(world: World, repository: Repository, branch: str, sha: str, user: str) -> None:
    """Bring open pull requests from a branch to its new head, or close them where it was deleted."""
    for pull in list(world.pulls.values()):
        if (pull.head_repository_id, pull.head_ref, pull.state) != (repository.id, branch, "open"):
            continue
        if sha == git.ZERO_SHA:
            close(world, pull, user)
        elif sha != pull.head_sha:
            changed = _with_head(world, pull, sha)
            tell(world, changed, "synchronize", user, before=pull.head_sha, after=sha)


def base_pushed(world: World, repository: Repository, branch: str, sha: str, user: str) -> None:
    """Call those pull requests merged whose head is now in their base branch."""
    for pull in list(world.pulls.values()):
        here = (pull.repository_id, pull.base_ref, pull.state) == (repository.id, branch, "open")
        if here and sha != git.ZERO_SHA and git.is_ancestor(repository.path, pull.head_sha, sha):
            now = world.clock()
            changed = replace(
                pull,
                state="closed",
                closed_at=now,
                merged_at=now,
                merged_by=user,
                merge_commit_sha=sha,
                updated_at=now,
            )
            world.pulls.put(pull.id, changed)
            tell(world, changed, "closed", user)


def list_pulls(call: Call) -> Answer:
    """`pulls/list`."""
    query, found = call.query, []
    for pull in call.world.pulls.values(call.as_of):
        head = call.world.repositories.get(pull.head_repository_id)
        label = f"{head.owner if head else ''}:{pull.head_ref}"
        fits = (
            pull.repository_id == call.repository.id
            and query.get("state", "open") in (pull.state, "all")
            and query.get("base", pull.base_ref) == pull.base_ref
            and query.get("head", label).lower() == label.lower()
        )
        if fits:
            found.append(pull)
    key = {"updated": "updated_at"}.get(query.get("sort", "created"), "number")
    down = query.get("direction", "desc" if query.get("sort", "created") == "created" else "asc") == "desc"
    found.sort(key=lambda pull: getattr(pull, key), reverse=down)
    return paged(call, [simple_shape(call.world, pull) for pull in found])


def _pull(call: Call) -> PullRequest:
    pull = find(call.world, call.repository, call.number("pull_number"), call.as_of)
    if pull is None:
        raise not_found()
    return pull


def get_pull(call: Call) -> Answer:
    """`pulls/get`."""
    return Answer(shape(call.world, _pull(call)))


def list_files(call: Call) -> Answer:
    """`pulls/list-files`: 3000 at most."""
    pull, path = _pull(call), call.repository.path
    parting = git.merge_base(path, pull.base_sha, pull.head_sha) or git.EMPTY_TREE
    changed = git.changes(path, parting, pull.head_sha)[:MOST_FILES]
    return paged(call, [commits.file_change(call.world, call.repository, each, pull.head_sha) for each in changed])


def list_for_commit(call: Call) -> Answer:
    """`repos/list-pull-requests-associated-with-commit`: open ones that contain it, merged ones that brought it."""
    sha = commits.find(call, call.path["commit_sha"])
    path, found = call.repository.path, []
    for pull in call.world.pulls.values(call.as_of):
        if pull.repository_id != call.repository.id or (pull.state == "closed" and pull.merged_at is None):
            continue
        inside = git.is_ancestor(path, sha, pull.head_sha) and not git.is_ancestor(path, sha, pull.base_sha)
        if inside or sha == pull.merge_commit_sha:
            found.append(simple_shape(call.world, pull))
    return paged(call, found)
