"""What the control API can make happen: people, repositories, Apps, pull requests, clicks, faults, limits."""

import dataclasses
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace

from ci_bot.local_github import apps, checks, comments, git, hooks, pulls, pushes, shapes, tokens, webhooks
from ci_bot.local_github.calls import Refusal, invalid, not_found
from ci_bot.local_github.faults import Rule
from ci_bot.local_github.hub import Hub
from ci_bot.local_github.limits import Bounds
from ci_bot.local_github.state import ROLES, App, CheckRun, Installation, Json, PullRequest, Repository, World

Command = Callable[[Hub, Json], Json]


def repository_of(world: World, full_name: str) -> Repository:
    """A repository by its full name.

    Raises:
        Refusal: 404.
    """
    found = world.repository(*full_name.split("/", 1)) if "/" in full_name else None
    if found is None:
        raise Refusal(404, f"There is no repository {full_name}")
    return found


def _installation_of(world: World, number: int) -> Installation:
    found = world.installations.get(number)
    if found is None:
        raise Refusal(404, f"There is no installation {number}")
    return found


def _pull_of(hub: Hub, said: Json) -> PullRequest:
    repository = repository_of(hub.world, said["repository"])
    found = pulls.find(hub.world, repository, said["number"])
    if found is None:
        raise Refusal(404, f"There is no pull request {said['repository']}#{said['number']}")
    return found


def user(hub: Hub, said: Json) -> Json:
    """Make an account."""
    return shapes.account(hub.world, hub.world.add_account(said["login"], said.get("kind", "User"), said.get("name")))


def role(hub: Hub, said: Json) -> Json:
    """Give a person a role in a repository, or none."""
    if said["role"] is not None and said["role"] not in ROLES:
        raise invalid("Repository", "role", "invalid", f"role must be one of {', '.join(ROLES)} or null")
    with hub.world.lock:
        which = repository_of(hub.world, said["repository"])
        login = hub.world.add_account(said["login"]).login
        others = {name: level for name, level in which.roles.items() if name != login}
        roles = others if said["role"] is None else {**others, login: said["role"]}
        hub.world.repositories[which.id] = replace(which, roles=roles)
    return {}


def _made(hub: Hub, made: Repository) -> Json:
    hooks.place(hub.world.root, made.path)
    hub.world.repositories[made.id] = made
    return {"id": made.id, "full_name": made.full_name, "path": str(made.path)}


def _place(world: World, full_name: str) -> tuple[str, str]:
    owner, slash, name = full_name.partition("/")
    if not slash or not name or not set(full_name.lower()) <= set("abcdefghijklmnopqrstuvwxyz0123456789-_./"):
        raise invalid("Repository", "name", "invalid", f"expected owner/name, got {full_name!r}")
    if ".." in full_name or "/" in name or world.repository(owner, name) is not None:
        raise invalid("Repository", "name", "already_exists", f"{full_name} exists already or cannot")
    return world.add_account(owner).login, name


def repository(hub: Hub, said: Json) -> Json:
    """Make an empty repository; its owner too, where new."""
    world = hub.world
    with world.lock:
        owner, name = _place(world, said["full_name"])
        path, now = world.root / owner / f"{name}.git", world.clock()
        branch = said.get("default_branch", "main")
        git.create(path, branch)
        private = bool(said.get("private", True))
        return _made(hub, Repository(world.next_id(), owner, name, path, private, branch, now, now))


def fork(hub: Hub, said: Json) -> Json:
    """Fork a repository to another account."""
    world = hub.world
    with world.lock:
        source = repository_of(world, said["full_name"])
        owner, name = _place(world, f"{said['owner']}/{said.get('name') or source.name}")
        path, now = world.root / owner / f"{name}.git", world.clock()
        git.copy(source.path, path)
        number = world.next_id()
        for ref, sha in git.refs(path).items():
            world.refs.put((number, ref), sha)
        return _made(
            hub, Repository(number, owner, name, path, source.private, source.default_branch, now, now, source.id)
        )


def delete_repository(hub: Hub, said: Json) -> Json:
    """Delete a repository with all that hangs on it."""
    world = hub.world
    with world.lock:
        gone = repository_of(world, said["full_name"])
        sender = said.get("user") or gone.owner
        told = {"action": "deleted", "sender": shapes.person(world, sender)}
        covering = [each for each in world.installations.values() if world.covers(each, gone)]
        short = apps.short_repositories(world, [gone.id])
        webhooks.emit(world, gone, "repository", told)
        for run in list(world.check_runs.values()):
            if run.repository_id == gone.id:
                world.check_runs.put(run.id, None)
        for pull in list(world.pulls.values()):
            if pull.repository_id == gone.id:
                world.pulls.put(pull.id, None)
        world.suites = {key: suite for key, suite in world.suites.items() if suite.repository_id != gone.id}
        del world.repositories[gone.id]
        shutil.rmtree(gone.path)
        for each in covering:
            changed = replace(each, repository_ids=each.repository_ids - {gone.id})
            world.installations[each.id] = changed
            apps.tell_repositories(world, changed, "removed", short, sender)
    return {}


def app(hub: Hub, said: Json) -> Json:
    """Register an App; the only time that its private key is seen."""
    manifest = {
        "name": said["name"],
        "url": said.get("url", "http://localhost"),
        "hook_attributes": {"url": said["webhook_url"]} if said.get("webhook_url") else {},
        "default_permissions": said["permissions"],
        "default_events": said["events"],
        "callback_urls": said.get("callback_urls") or [],
        "setup_url": said.get("setup_url"),
    }
    owner = hub.world.add_account(said.get("owner") or "octocat").login
    made, pem = apps.create(hub.world, owner, manifest, said.get("webhook_secret"))
    keys = ("id", "slug", "name", "client_id", "client_secret", "webhook_secret")
    return {key: getattr(made, key) for key in keys} | {"pem": pem}


def _app_of(world: World, number: int) -> App:
    if number not in world.apps:
        raise Refusal(404, f"There is no App {number}")
    return world.apps[number]


def ping(hub: Hub, said: Json) -> Json:
    """Send a ping."""
    apps.ping(hub.world, _app_of(hub.world, said["app_id"]))
    return {}


def install(hub: Hub, said: Json) -> Json:
    """Install an App on an account: on all repositories, or on those listed."""
    names = said.get("repositories")
    ids = None if names is None else [repository_of(hub.world, name).id for name in names]
    sender = said.get("user") or said["account"]
    made = apps.install(hub.world, _app_of(hub.world, said["app_id"]), said["account"], sender, ids)
    return shapes.installation(hub.world, made)


def installation(hub: Hub, said: Json) -> Json:
    """Change an installation: delete, suspend, unsuspend, or choose other repositories."""
    which = _installation_of(hub.world, said["installation_id"])
    sender, action = said.get("user") or which.account, said["action"]
    if action == "delete":
        apps.uninstall(hub.world, which, sender)
    elif action in ("suspend", "unsuspend"):
        apps.suspend(hub.world, which, sender, action == "suspend")
    elif action == "choose":
        ids = [repository_of(hub.world, name).id for name in said["repositories"]]
        apps.choose(hub.world, which, ids, sender)
    else:
        raise invalid("Installation", "action", "invalid")
    return {}


def open_pull(hub: Hub, said: Json) -> Json:
    """Open a pull request."""
    base = repository_of(hub.world, said["repository"])
    login = hub.world.add_account(said.get("user") or base.owner).login
    return pulls.shape(hub.world, pulls.open_pull(hub.world, base, said, login))


def pull(hub: Hub, said: Json) -> Json:
    """Change a pull request: close, reopen, merge, or queue (for the merge queue)."""
    which = _pull_of(hub, said)
    sender, action = said.get("user") or which.user, said["action"]
    if action == "merge":
        return {"sha": pushes.merge_pull(hub.world, which, sender)}
    if action == "queue":
        return dataclasses.asdict(pushes.queue(hub.world, which, sender))
    with hub.world.lock:
        if action == "close":
            pulls.close(hub.world, which, sender)
        elif action == "reopen":
            pulls.reopen(hub.world, which, sender)
        else:
            raise invalid("PullRequest", "action", "invalid")
    return {}


def leave_queue(hub: Hub, said: Json) -> Json:
    """End a merge group."""
    group = hub.world.merge_groups.get(said["head_ref"])
    if group is None:
        raise not_found()
    sender = said.get("user") or hub.world.repositories[group.repository_id].owner
    pushes.leave_queue(hub.world, said["head_ref"], said.get("reason", "invalidated"), sender)
    return {}


def comment(hub: Hub, said: Json) -> Json:
    """Comment on a pull request as a person."""
    where = repository_of(hub.world, said["repository"])
    wanted = {"body": said["body"], "user": hub.world.add_account(said["user"]).login}
    return comments.shape(hub.world, comments.write(hub.world, where, said["number"], wanted))


def _run_of(world: World, number: int) -> CheckRun:
    found = world.check_runs.get(number)
    if found is None:
        raise Refusal(404, f"There is no check run {number}")
    return found


def click(hub: Hub, said: Json) -> Json:
    """Press a button of a check run; who may is the business of the page, and of the App."""
    run = _run_of(hub.world, said["check_run_id"])
    identifier = said["identifier"]
    if all(action["identifier"] != identifier for action in run.actions):
        raise invalid("CheckRun", "identifier", "invalid", f"{run.name} has no button {identifier}")
    sender = said.get("user") or hub.world.repositories[run.repository_id].owner
    requested = {"requested_action": {"identifier": identifier}}
    checks.tell_run(hub.world, run, "requested_action", hub.world.add_account(sender).login, **requested)
    return {}


def rerun(hub: Hub, said: Json) -> Json:
    """Press "Re-run" of a check run, or "Re-run all checks" of a check suite."""
    if said.get("check_run_id") is not None:
        run = _run_of(hub.world, said["check_run_id"])
        sender = said.get("user") or hub.world.repositories[run.repository_id].owner
        checks.tell_run(hub.world, run, "rerequested", hub.world.add_account(sender).login)
        return {}
    suite = hub.world.suites.get(said["check_suite_id"])
    if suite is None:
        raise not_found()
    sender = said.get("user") or hub.world.repositories[suite.repository_id].owner
    checks.tell_suite(hub.world, suite, "rerequested", hub.world.add_account(sender).login)
    return {}


def fault(hub: Hub, said: Json) -> Json:
    """Put a fault in force."""
    try:
        return {"id": hub.faults.add(Rule(**said))}
    except (TypeError, ValueError) as problem:
        raise Refusal(422, str(problem)) from problem


def clear_faults(hub: Hub, _: Json) -> Json:
    """End every fault, "down" included."""
    hub.faults.clear()
    return {}


def down(hub: Hub, said: Json) -> Json:
    """Make the API answer 503 to everything ("503"), or break every connection ("reset"); null ends it."""
    if said["mode"] not in ("503", "reset", None):
        raise Refusal(422, 'mode must be "503", "reset" or null')
    hub.faults.down = said["mode"]
    return {}


def limits(hub: Hub, said: Json) -> Json:
    """Change the rate limits; what is not given goes back to GitHub's number, and counting starts anew."""
    try:
        bounds = Bounds(**said)
    except TypeError as problem:
        raise Refusal(422, str(problem)) from problem
    hub.limits.reset(bounds)
    return dataclasses.asdict(bounds)


def expire_tokens(hub: Hub, _: Json) -> Json:
    """Make every installation token that is out expired."""
    return {"expired": tokens.expire_all(hub.world)}


COMMANDS: Mapping[str, Command] = {
    "user": user,
    "role": role,
    "repository": repository,
    "fork": fork,
    "delete-repository": delete_repository,
    "app": app,
    "ping": ping,
    "install": install,
    "installation": installation,
    "open-pull": open_pull,
    "pull": pull,
    "leave-queue": leave_queue,
    "comment": comment,
    "click": click,
    "rerun": rerun,
    "fault": fault,
    "clear-faults": clear_faults,
    "down": down,
    "limits": limits,
    "expire-tokens": expire_tokens,
}
