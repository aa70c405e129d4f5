"""Apps and installations: made, changed and ended, and the operations an App has on itself."""

import re
import secrets
from collections.abc import Collection, Mapping
from dataclasses import replace

from ci_bot.local_github import shapes, tokens, webhooks
from ci_bot.local_github.access import granted
from ci_bot.local_github.calls import Answer, Call, Refusal, invalid, not_found, paged
from ci_bot.local_github.shapes import stamp
from ci_bot.local_github.state import App, Installation, Json, Token, World

MOST_REPOSITORIES = 500
LONGEST_NAME = 34
# the permissions an App of this kind may ask for; GitHub knows more
PERMISSIONS: Mapping[str, tuple[str, ...]] = dict.fromkeys(
    ("actions", "administration", "checks", "contents", "deployments", "issues", "members", "merge_queues", "metadata",
     "pull_requests", "statuses"),
    ("read", "write"),
)  # fmt: skip


def slug_of(name: str) -> str:
    """The name of an App as addresses write it."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def misshapen(manifest: Json) -> list[str]:
    """The keys of a manifest whose values are of the wrong kind; the words of each problem."""
    kinds = {"hook_attributes": dict, "default_permissions": dict, "default_events": list, "callback_urls": list}
    return [
        f"{key} must be {'an array' if kind is list else 'an object'}"
        for key, kind in kinds.items()
        if not isinstance(manifest.get(key) or kind(), kind)
    ]


def check_manifest(world: World, manifest: Json) -> list[str]:
    """Everything GitHub would not take in an App's manifest; the words of each problem."""
    problems = misshapen(manifest)
    if problems:
        return problems
    name = manifest.get("name")
    if not isinstance(name, str) or not slug_of(name):
        problems.append("Name can't be blank")
    elif len(name) > LONGEST_NAME:
        problems.append(f"Name is too long (maximum is {LONGEST_NAME} characters)")
    elif any(app.slug == slug_of(name) for app in world.apps.values()):
        problems.append("Name is already taken")
    if not str(manifest.get("url", "")).startswith(("http://", "https://")):
        problems.append("Url must be an http or https address")
    hook = manifest.get("hook_attributes") or {}
    if hook and not str(hook.get("url", "")).startswith(("http://", "https://")):
        problems.append("Hook url must be an http or https address")
    permissions = manifest.get("default_permissions") or {}
    for key, level in permissions.items():
        if level not in PERMISSIONS.get(key, ()):
            problems.append(f"Default permission records resource {key}: {level} is not a permission")
    for event in manifest.get("default_events") or []:
        needed = webhooks.needed_permission(event)
        if needed is None:
            problems.append(f"Default events unsupported: {event}")
        elif not granted(permissions, [(needed, "read")]):
            problems.append(f"Default events are not supported by permissions: {event} needs {needed}")
    return problems


def create(world: World, owner: str, manifest: Json, secret: str | None = None) -> tuple[App, str]:
    """Register an App from a manifest; the App and its private key, which is kept nowhere.

    Raises:
        Refusal: 422 with every problem of the manifest.
    """
    hook = manifest.get("hook_attributes") or {}
    with world.lock:
        problems = check_manifest(world, manifest)
        if problems:
            raise Refusal(422, "Validation Failed", problems)
        private, public = tokens.new_key()
        active = bool(hook) and hook.get("active", True)
        app = App(
            id=world.next_id(),
            slug=slug_of(manifest["name"]),
            name=manifest["name"],
            owner=world.account(owner).login,
            client_id=f"Iv23li{secrets.token_hex(7)}",
            client_secret=secrets.token_hex(20),
            public_key_pem=public,
            webhook_secret=(secret or secrets.token_hex(20)) if active else None,
            webhook_url=hook["url"] if active else None,
            hook_id=world.next_id(),
            permissions={"metadata": "read", **(manifest.get("default_permissions") or {})},
            events=tuple(manifest.get("default_events") or ()),
            created_at=world.clock(),
            external_url=manifest["url"],
            description=manifest.get("description") or "",
            callback_urls=tuple(manifest.get("callback_urls") or ()),
            setup_url=manifest.get("setup_url"),
        )
        world.apps[app.id] = app
        world.add_account(f"{app.slug}[bot]", "Bot")
        ping(world, app)
        return app, private


def ping(world: World, app: App) -> None:
    """Send the `ping` with which GitHub greets a webhook."""
    hook = {
        "type": "App",
        "id": app.hook_id,
        "name": "web",
        "active": True,
        "events": list(app.events),
        "config": config_shape(app),
        "updated_at": stamp(app.created_at),
        "created_at": stamp(app.created_at),
        "app_id": app.id,
        "deliveries_url": f"{world.api_url}/app/hook/deliveries",
    }
    zen = "Keep it logically awesome."
    webhooks.dispatch(world, app, "ping", {"zen": zen, "hook_id": app.hook_id, "hook": hook})


def _short(world: World, ids: Collection[int]) -> list[Json]:
    keys = ("id", "node_id", "name", "full_name", "private")
    return [
        {key: shapes.minimal_repository(world, world.repositories[number])[key] for key in keys}
        for number in sorted(ids)
        if number in world.repositories
    ]


def _tell(world: World, installation: Installation, action: str, sender: str) -> None:
    covered = [each.id for each in world.covered(installation)]
    told = {
        "action": action,
        "installation": shapes.installation(world, installation),
        "repositories": _short(world, covered),
        "requester": None,
        "sender": shapes.person(world, sender),
    }
    webhooks.dispatch(world, world.apps[installation.app_id], "installation", told)


def install(world: World, app: App, account: str, sender: str, repository_ids: Collection[int] | None) -> Installation:
    """Install an App on an account, on all of its repositories or on those given.

    Raises:
        Refusal: 422 where it is installed there already.
    """
    login = world.account(account).login
    with world.lock:
        if any((each.app_id, each.account) == (app.id, login) for each in world.installations.values()):
            raise invalid("Installation", "account", "already_exists")
        selection = "all" if repository_ids is None else "selected"
        made = Installation(
            world.next_id(),
            app.id,
            login,
            selection,
            frozenset(repository_ids or ()),
            app.permissions,
            app.events,
            world.clock(),
        )
        world.installations[made.id] = made
        _tell(world, made, "created", sender)
        return made


def uninstall(world: World, installation: Installation, sender: str) -> None:
    """Take an App off an account; its tokens are worth nothing from now on."""
    with world.lock:
        _tell(world, installation, "deleted", sender)
        del world.installations[installation.id]


def suspend(world: World, installation: Installation, sender: str, suspended: bool) -> None:
    """Suspend an installation, or end that."""
    with world.lock:
        at, by = (world.clock(), sender) if suspended else (None, None)
        changed = replace(installation, suspended_at=at, suspended_by=by)
        world.installations[changed.id] = changed
        _tell(world, changed, "suspend" if suspended else "unsuspend", sender)


def choose(world: World, installation: Installation, repository_ids: Collection[int], sender: str) -> None:
    """Change which repositories an installation covers."""
    with world.lock:
        before = {each.id for each in world.covered(installation)}
        changed = replace(installation, selection="selected", repository_ids=frozenset(repository_ids))
        world.installations[changed.id] = changed
        for action, ids in (("added", set(repository_ids) - before), ("removed", before - set(repository_ids))):
            if ids:
                tell_repositories(world, changed, action, _short(world, ids), sender)


def tell_repositories(world: World, installation: Installation, action: str, which: list[Json], sender: str) -> None:
    """Send an `installation_repositories` event; action is added or removed."""
    told = {
        "action": action,
        "installation": shapes.installation(world, installation),
        "repository_selection": installation.selection,
        "repositories_added": which if action == "added" else [],
        "repositories_removed": which if action == "removed" else [],
        "requester": None,
        "sender": shapes.person(world, sender),
    }
    webhooks.dispatch(world, world.apps[installation.app_id], "installation_repositories", told)


def short_repositories(world: World, ids: Collection[int]) -> list[Json]:
    """Repositories in the short form of installation events."""
    return _short(world, ids)


def config_shape(app: App) -> Json:
    """The webhook's configuration, its secret hidden."""
    shape = {"content_type": "json", "insecure_ssl": "0"}
    if app.webhook_url is not None:
        shape["url"] = app.webhook_url
    return shape | ({"secret": "********"} if app.webhook_secret else {})


def get_app(call: Call) -> Answer:
    """`apps/get-authenticated`."""
    return Answer(shapes.app(call.world, call.app))


def _mine(call: Call) -> list[Installation]:
    return [each for each in call.world.installations.values() if each.app_id == call.app.id]


def list_installations(call: Call) -> Answer:
    """`apps/list-installations`."""
    return paged(call, [shapes.installation(call.world, each) for each in _mine(call)])


def _installation(call: Call) -> Installation:
    number = call.number("installation_id")
    for each in _mine(call):
        if each.id == number:
            return each
    raise not_found()


def get_installation(call: Call) -> Answer:
    """`apps/get-installation`."""
    return Answer(shapes.installation(call.world, _installation(call)))


def get_repository_installation(call: Call) -> Answer:
    """`apps/get-repo-installation`."""
    found = call.world.repository(call.path["owner"], call.path["repo"])
    for each in _mine(call):
        if found is not None and call.world.covers(each, found):
            return Answer(shapes.installation(call.world, each))
    raise not_found()


def create_token(call: Call) -> Answer:
    """`apps/create-installation-access-token`, narrowed to repositories and permissions."""
    world, installation = call.world, _installation(call)
    body = call.fields(("repositories", "repository_ids", "permissions"))
    if installation.suspended_at is not None:
        raise Refusal(403, "This installation has been suspended")
    chosen = _narrowed(world, installation, body)
    asked = body.get("permissions")
    if asked is not None and not isinstance(asked, dict):
        raise Refusal(422, "Invalid request.\n\nFor 'properties/permissions', it is not an object.")
    if any(level not in ("read", "write", "admin") for level in (asked or {}).values()):
        raise Refusal(422, "Invalid request.\n\nA permission must be read, write or admin.")
    if any(not granted(installation.permissions, [(name, level)]) for name, level in (asked or {}).items()):
        raise Refusal(422, "The permissions requested are not granted to this installation.")
    permissions = {"metadata": "read", **asked} if asked else dict(installation.permissions)
    expires = world.clock() + tokens.INSTALLATION_TOKEN_S
    scope = Token("installation", call.app.id, expires, installation.id, None, chosen, permissions)
    token = tokens.installation_token(world, installation, scope)
    selection = "selected" if chosen is not None else installation.selection
    shape: Json = {
        "token": token,
        "expires_at": stamp(expires),
        "permissions": permissions,
        "repository_selection": selection,
    }
    if chosen is not None:
        shape["repositories"] = [shapes.repository(world, world.repositories[each]) for each in sorted(chosen)]
    return Answer(shape, 201)


def _narrowed(world: World, installation: Installation, body: Json) -> frozenset[int] | None:
    names, ids = body.get("repositories"), body.get("repository_ids")
    if names is None and ids is None:
        return None
    covered = world.covered(installation)
    by_name = {each.name.lower(): each.id for each in covered}
    wanted = [by_name.get(str(name).lower(), 0) for name in names or []] + list(ids or [])
    if len(wanted) > MOST_REPOSITORIES:
        raise Refusal(422, f"Only {MOST_REPOSITORIES} repositories may be listed.")
    if not wanted or not set(wanted) <= {each.id for each in covered}:
        words = "There is at least one repository that does not exist or is not accessible to the parent installation."
        raise Refusal(422, words)
    return frozenset(wanted)
