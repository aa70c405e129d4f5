"""What a push makes happen: its webhooks, pull requests brought up to date, check suites begun, the merge queue."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ci_bot.local_github import checks, commits, git, pulls, shapes, webhooks
from ci_bot.local_github.access import granted
from ci_bot.local_github.calls import Refusal, not_found
from ci_bot.local_github.state import Json, MergeGroup, PullRequest, Repository, World

# https://docs.github.com/webhooks/webhook-events-and-payloads#push
MOST_TAGS = 3
MOST_BRANCHES = 5000
MOST_COMMITS = 2048


@dataclass(frozen=True)
class Update:
    """A ref that a push moved; forty zeros stand for nothing."""

    old: str
    new: str
    ref: str

    @property
    def created(self) -> bool:
        """The ref is new."""
        return self.old == git.ZERO_SHA

    @property
    def deleted(self) -> bool:
        """The ref is gone."""
        return self.new == git.ZERO_SHA


def record(world: World, repository: Repository, updates: list[Update], user: str) -> None:
    """Take note of a push that git has done, and let follow what follows on GitHub.

    What git is asked for it is asked without the lock: a push of hundreds of branches keeps nobody waiting.
    """
    with world.lock:
        repository = replace(repository, pushed_at=world.clock())
        world.repositories[repository.id] = repository
        for update in updates:
            world.refs.put((repository.id, update.ref), None if update.deleted else update.new)
    commits_at = git.peeled(repository.path, [update.new for update in updates if not update.deleted])
    with world.lock:
        for update in updates:
            if not update.deleted:
                sha = commits_at.get(update.new, update.new)
                world.arrived.setdefault((repository.id, sha), world.clock())
    refs = git.refs(repository.path)
    tags = sum(update.ref.startswith("refs/tags/") for update in updates)
    branches = sum(update.ref.startswith("refs/heads/") for update in updates)
    for update in updates:
        tag = update.ref.startswith("refs/tags/")
        silent = tags > MOST_TAGS if tag else branches > MOST_BRANCHES
        if tag or update.ref.startswith("refs/heads/"):
            after = commits_at.get(update.new)
            told = None if silent else payload(world, repository, update, user, after, refs)
            with world.lock:
                _follow(world, repository, update, user, told)


def _follow(world: World, repository: Repository, update: Update, user: str, told: Json | None) -> None:
    if told is not None:
        webhooks.emit(world, repository, "push", told)
        if update.created or update.deleted:
            _tell_ref(world, repository, update, user)
    if update.ref.startswith("refs/heads/"):
        branch = update.ref.removeprefix("refs/heads/")
        if not update.deleted:
            _begin_suites(world, repository, update, user)
        pulls.base_pushed(world, repository, branch, update.new, user)
        pulls.head_pushed(world, repository, branch, update.new, user)


def _tell_ref(world: World, repository: Repository, update: Update, user: str) -> None:
    kind, name = update.ref.removeprefix("refs/").split("/", 1)
    told = {
        "ref": name,
        "ref_type": "tag" if kind == "tags" else "branch",
        "pusher_type": "user",
        "sender": shapes.person(world, user),
    }
    if update.created:
        told |= {"master_branch": repository.default_branch, "description": None}
    webhooks.emit(world, repository, "create" if update.created else "delete", told)


def _begin_suites(world: World, repository: Repository, update: Update, user: str) -> None:
    """A suite for each App that may write checks, as GitHub makes them by itself."""
    known = {(suite.app_id, suite.head_sha) for suite in world.suites.values()}
    for installation in list(world.installations.values()):
        may = granted(installation.permissions, [("checks", "write")]) and installation.suspended_at is None
        if may and world.covers(installation, repository) and (installation.app_id, update.new) not in known:
            suite = checks.suite_for(world, installation.app_id, repository, update.new, update.old)
            checks.tell_suite(world, suite, "requested", user)


def payload(
    world: World, repository: Repository, update: Update, user: str, after: str | None, refs: Mapping[str, str]
) -> Json:
    """The `push` event, without repository and installation.

    Args:
        world: knows who pushed.
        repository: where.
        update: what moved.
        user: the login of who pushed.
        after: the commit that the ref names now, if it is one.
        refs: all refs and the objects they name.
    """
    path, html = repository.path, f"{world.html_url}/{repository.full_name}"
    new = _new_commits(path, update, after, refs) if after else []
    shown = [_commit(world, repository, each) for each in new[-MOST_COMMITS:]]
    head = next((each for each in shown if each["id"] == after), None)
    if head is None and after:
        head = _commit(world, repository, git.commit(path, after))
    forward = any(update.old in each.parents for each in new)
    forced = not (update.created or update.deleted or forward or git.is_ancestor(path, update.old, update.new))
    who = world.account(user)
    return {
        "ref": update.ref,
        "before": update.old,
        "after": update.new,
        "created": update.created,
        "deleted": update.deleted,
        "forced": forced,
        "base_ref": _base_ref(update, refs) if update.created else None,
        "compare": f"{html}/compare/{update.old[:12]}...{update.new[:12]}",
        "commits": shown if update.ref.startswith("refs/heads/") else [],
        "head_commit": head,
        "pusher": {"name": who.login, "email": who.email},
        "sender": shapes.account(world, who),
    }


def _new_commits(path: Path, update: Update, after: str, refs: Mapping[str, str]) -> list[git.Commit]:
    """What the push brought, oldest first: since the old head, or reachable from no other branch."""
    if update.created:
        others = {sha for ref, sha in refs.items() if ref.startswith("refs/heads/") and ref != update.ref}
        return git.commits(path, "--reverse", "--topo-order", after, *(f"^{sha}" for sha in sorted(others)))
    head = git.commit(path, after)
    if head.parents == (update.old,):
        return [head]
    return git.commits(path, "--reverse", "--topo-order", after, f"^{update.old}")


def _base_ref(update: Update, refs: Mapping[str, str]) -> str | None:
    """The branch from which a new ref begins, where it begins at a branch's head."""
    heads = [ref for ref, sha in refs.items() if sha == update.new and ref.startswith("refs/heads/")]
    return next((ref for ref in heads if ref != update.ref), None)


def _commit(world: World, repository: Repository, commit: git.Commit) -> Json:
    """A commit as the `push` event carries it."""
    parent = commit.parents[0] if commit.parents else git.EMPTY_TREE
    files: dict[str, list[str]] = {"added": [], "removed": [], "modified": []}
    for change in git.touched(repository.path, parent, commit.sha):
        if change.status == "renamed":
            files["added"].append(change.filename)
            files["removed"].append(change.previous or "")
        else:
            files[change.status if change.status in files else "modified"].append(change.filename)
    shape = commits.simple(commit)
    for role, person in (("author", commit.author), ("committer", commit.committer)):
        account = commits.author(world, person)
        if account is not None:
            shape[role] = {**shape[role], "username": account["login"]}
    url = f"{world.html_url}/{repository.full_name}/commit/{commit.sha}"
    return {**shape, "distinct": True, "url": url, **files}


def server_push(world: World, repository: Repository, ref: str, new: str | None, user: str) -> None:
    """Move a ref by the server's own hand (a merge, the merge queue); it counts as a push."""
    old = git.refs(repository.path).get(ref, git.ZERO_SHA)
    git.set_ref(repository.path, ref, new)
    record(world, repository, [Update(old, new or git.ZERO_SHA, ref)], user)


def merge_pull(world: World, pull: PullRequest, user: str) -> str:
    """Merge a pull request into its base branch; the SHA of the merge.

    Raises:
        Refusal: 405 where it conflicts or is closed.
    """
    repository = world.repositories[pull.repository_id]
    base = git.resolve(repository.path, f"refs/heads/{pull.base_ref}") or pull.base_sha
    message = f"Merge pull request #{pull.number} from {pull.head_ref}\n\n{pull.title}"
    merged = git.merge(repository.path, base, pull.head_sha, message) if pull.state == "open" else None
    if merged is None:
        raise Refusal(405, "Pull Request is not mergeable")
    server_push(world, repository, f"refs/heads/{pull.base_ref}", merged, user)
    return merged


def _tell_group(world: World, group: MergeGroup, action: str, user: str, reason: str | None = None) -> None:
    repository = world.repositories[group.repository_id]
    head = commits.simple(git.commit(repository.path, group.head_sha))
    names = ("head_sha", "head_ref", "base_sha", "base_ref")
    told: Json = {"action": action, "merge_group": {name: getattr(group, name) for name in names}}
    told["merge_group"]["head_commit"] = head
    if reason is not None:
        told["reason"] = reason
    webhooks.emit(world, repository, "merge_group", told | {"sender": shapes.person(world, user)})


def queue(world: World, pull: PullRequest, user: str) -> MergeGroup:
    """Put a pull request into the merge queue: a group of its own, whose checks are requested."""
    repository = world.repositories[pull.repository_id]
    base = git.resolve(repository.path, f"refs/heads/{pull.base_ref}") or pull.base_sha
    merged = git.merge(repository.path, base, pull.head_sha, f"Merge pull request #{pull.number} from {pull.head_ref}")
    if merged is None:
        raise Refusal(405, "Pull Request is not mergeable")
    ref = f"refs/heads/gh-readonly-queue/{pull.base_ref}/pr-{pull.number}-{base}"
    group = MergeGroup(repository.id, ref, merged, f"refs/heads/{pull.base_ref}", base)
    with world.lock:
        world.merge_groups[ref] = group
        server_push(world, repository, ref, merged, user)
        _tell_group(world, group, "checks_requested", user)
    return group


def leave_queue(world: World, head_ref: str, reason: str, user: str) -> None:
    """End a merge group: "merged" moves the base branch to it, "invalidated" and "dequeued" drop it."""
    with world.lock:
        group = world.merge_groups.pop(head_ref, None)
        if group is None:
            raise not_found()
        repository = world.repositories[group.repository_id]
        _tell_group(world, group, "destroyed", user, reason)
        if reason == "merged":
            server_push(world, repository, group.base_ref, group.head_sha, user)
        server_push(world, repository, head_ref, None, user)
