"""What people and installations may see: repositories, roles, installations of a user; and the server's own pages."""

from ci_bot.local_github import shapes
from ci_bot.local_github.calls import Answer, Call, Refusal, not_found, paged
from ci_bot.local_github.state import Account, Installation, Json, Repository

_PERMISSION = {"admin": "admin", "maintain": "write", "write": "write", "triage": "read", "read": "read"}


def get_repository(call: Call) -> Answer:
    """`repos/get`."""
    return Answer(shapes.full_repository(call.world, call.repository))


def get_permission(call: Call) -> Answer:
    """`repos/get-collaborator-permission-level`: `role_name` says what `permission` rounds."""
    try:
        who = call.world.account(call.path["username"])
    except KeyError as problem:
        raise Refusal(404, f"{call.path['username']} is not a user") from problem
    role = call.repository.role_of(who.login)
    user = shapes.account(call.world, who)
    more = {"permissions": shapes.permissions_of(role), "role_name": role or "none"}
    permission = _PERMISSION.get(role or "", "none")
    return Answer({"permission": permission, "role_name": role or "none", "user": user | more})


def list_for_installation(call: Call) -> Answer:
    """`apps/list-repos-accessible-to-installation`."""
    if call.caller.kind != "installation":
        raise Refusal(403, "You must authenticate with an installation access token in order to list repositories.")
    seen = [each for each in call.world.repositories.values() if each.id in call.caller.repository_ids]
    shown = [shapes.repository(call.world, each) for each in seen]
    selection = call.caller.installation.selection if call.caller.installation else "selected"
    return paged(
        call,
        shown,
        lambda page: {"total_count": len(shown), "repository_selection": selection, "repositories": page},
    )


def _user(call: Call) -> Account:
    if call.caller.kind == "anonymous":
        raise Refusal(401, "Requires authentication")
    if call.caller.login is None:
        raise Refusal(403, "Resource not accessible by integration")
    return call.world.account(call.caller.login)


def get_user(call: Call) -> Answer:
    """`users/get-authenticated`."""
    return Answer(shapes.private_user(call.world, _user(call)))


def _reachable(call: Call, installation: Installation, who: Account) -> list[Repository]:
    seen = call.world.covered(installation)
    return [each for each in seen if who.login == each.owner or who.login in each.roles or not each.private]


def _installations(call: Call, who: Account) -> list[Installation]:
    mine = [each for each in call.world.installations.values() if each.app_id == call.app.id]
    return [each for each in mine if each.account == who.login or _reachable(call, each, who)]


def list_installations_of_user(call: Call) -> Answer:
    """`apps/list-installations-for-authenticated-user`: this App's, where the person can reach something."""
    shown: list[Json] = [shapes.installation(call.world, each) for each in _installations(call, _user(call))]
    return paged(call, shown, lambda page: {"total_count": len(shown), "installations": page})


def list_repositories_of_user(call: Call) -> Answer:
    """`apps/list-installation-repos-for-authenticated-user`: what both the App and the person can reach."""
    who, number = _user(call), call.number("installation_id")
    installation = next((each for each in _installations(call, who) if each.id == number), None)
    if installation is None:
        raise not_found()
    shown = [
        shapes.repository(call.world, each) | {"permissions": shapes.permissions_of(each.role_of(who.login))}
        for each in _reachable(call, installation, who)
    ]
    return paged(
        call,
        shown,
        lambda page: {
            "total_count": len(shown),
            "repository_selection": installation.selection,
            "repositories": page,
        },
    )


def get_meta(call: Call) -> Answer:
    """`meta/get`: webhooks come from this machine."""
    loopback = ["127.0.0.0/8", "::1/128"]
    return Answer({"verifiable_password_authentication": False, "hooks": loopback, "web": loopback, "api": loopback})
