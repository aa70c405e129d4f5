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


@dataclass(frozen=True)
class Seen:
    """What git says of a repository after a push."""

    refs: Mapping[str, str]
    """All of them, and the objects they name."""
    commits_at: Mapping[str, str]
    """The commit that each object is or, as a tag, points at."""
    of_new_branches: Mapping[str, list[git.Commit]]
    """By ref, those that are reachable from no other branch, oldest first."""


def _look(path: Path, updates: list[Update]) -> Seen:
    """Ask git what a push brought, in as few questions for hundreds of branches as for one."""
    refs = git.refs(path)
    commits_at = git.peeled(path, [update.new for update in updates if not update.deleted])
    git.commits_of(path, dict.fromkeys(commits_at.values()), "--no-walk=unsorted")  # `git.commit` knows them then
    there = [each for each in updates if each.created and not each.deleted]
    new = {each.ref: each.new for each in there if each.ref.startswith("refs/heads/")}
    old = {sha for ref, sha in refs.items() if ref.startswith("refs/heads/") and ref not in new}
    found = git.commits_of(path, [*new.values(), *(f"^{sha}" for sha in old)], "--topo-order") if new else []
    reached_by: dict[str, str] = {}  # "" stands for several branches
    for ref, sha in new.items():
        reached_by[sha] = "" if sha in reached_by else ref
    for each in found:  # children before their parents
        whose = reached_by[each.sha]
        for parent in each.parents:
            reached_by[parent] = whose if reached_by.get(parent, whose) == whose else ""
    own: dict[str, list[git.Commit]] = {}
    for each in reversed(found):
        own.setdefault(reached_by[each.sha], []).append(each)
    return Seen(refs, commits_at, own)


def record(world: World, repository: Repository, updates: list[Update], user: str | None) -> None:
    """Take note of a push that git has done, and let follow what follows on GitHub.

    What can be asked of git beforehand is asked without taking the lock: hundreds of branches keep nobody waiting.
    Whoever calls this sees to it that the pushes to a repository come one after the other.

    Args:
        world: everything.
        repository: where.
        updates: the refs that moved.
        user: the login of who pushed; without it, whose address the newest commit bears, else the owner.
    """
    seen = _look(repository.path, updates)
    user = user or _committer(world, repository, updates, seen)
    with world.lock:
        if (current := world.repositories.get(repository.id)) is None:
            return  # it was deleted meanwhile
        world.repositories[repository.id] = replace(current, pushed_at=world.clock())
        for update in updates:
            world.refs.put((repository.id, update.ref), None if update.deleted else update.new)
            if not update.deleted:
                sha = seen.commits_at.get(update.new, update.new)
                world.arrived.setdefault((repository.id, sha), world.clock())
    tags = sum(update.ref.startswith("refs/tags/") for update in updates)
    branches = sum(update.ref.startswith("refs/heads/") for update in updates)
    for update in updates:
        tag = update.ref.startswith("refs/tags/")
        silent = tags > MOST_TAGS if tag else branches > MOST_BRANCHES
        if tag or update.ref.startswith("refs/heads/"):
            told = None if silent else payload(world, repository, update, user, seen)
            with world.lock:
                if (current := world.repositories.get(repository.id)) is None:
                    return
                _follow(world, current, update, user, told)


def _committer(world: World, repository: Repository, updates: list[Update], seen: Seen) -> str:
    with world.lock:
        logins = {each.email.lower(): each.login for each in reversed(world.accounts.values())}
    shas = (seen.commits_at[update.new] for update in updates if update.new in seen.commits_at)
    emails = (git.commit(repository.path, sha).committer.email.lower() for sha in shas)
    return next((logins[email] for email in emails if email in logins), repository.owner)


def _follow(world: World, repository: Repository, update: Update, user: str, told: Json | None) -> None:
    if told is not None:
        webhooks.emit(world, repository, "push", told)
        if update.created or update.deleted:
            _tell_ref(world, repository, update, user)
    if update.ref.startswith("refs/heads/"):
        branch = update.ref.removeprefix("refs/heads/")
        if not update.deleted:
            _begin_suites(world, repository, update, user)
        if world.refs.get((repository.id, update.ref)) == (None if update.deleted else update.new):
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
            branch = update.ref.removeprefix("refs/heads/")
            suite = checks.suite_for(world, installation.app_id, repository, update.new, update.old, branch)
            checks.tell_suite(world, suite, "requested", user)


def payload(world: World, repository: Repository, update: Update, user: str, seen: Seen) -> Json:
    """The `push` event, without repository and installation."""
    path, html = repository.path, f"{world.html_url}/{repository.full_name}"
    after = seen.commits_at.get(update.new)
    new = seen.of_new_branches.get(update.ref, []) if update.created else _since(path, update.old, after)
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
        "base_ref": _base_ref(update, seen.refs) if update.created else None,
        "compare": f"{html}/compare/{update.old[:12]}...{update.new[:12]}",
        "commits": shown if update.ref.startswith("refs/heads/") else [],
        "head_commit": head,
        "pusher": {"name": who.login, "email": who.email},
        "sender": shapes.account(world, who),
    }


def _since(path: Path, old: str, after: str | None) -> list[git.Commit]:
    """What a branch got since its old head, oldest first."""
    if after is None:
        return []
    head = git.commit(path, after)
    if head.parents == (old,):
        return [head]
    return git.commits(path, "--reverse", "--topo-order", after, f"^{old}")


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
    if old == (new or git.ZERO_SHA):
        return
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
