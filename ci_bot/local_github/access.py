"""Whether a caller may do something with a repository. Pure."""

from collections.abc import Mapping, Sequence

from ci_bot.local_github.calls import Caller, Refusal, not_found
from ci_bot.local_github.state import Repository, World

Need = tuple[str, str]
_ORDER = {"read": 1, "write": 2, "admin": 3}
_WRITERS = ("write", "maintain", "admin")


def check(world: World, caller: Caller, repository: Repository | None, needs: Sequence[Need]) -> Repository:
    """The repository, where the caller has one of the permissions needed.

    Raises:
        Refusal: 404 for what the caller may not know of, 403 for what they may see and not do, 401 for nobody.
    """
    if repository is None:
        raise not_found()
    reading = all(level == "read" for _, level in needs)
    if caller.kind == "installation":
        return _installation(caller, repository, needs, reading)
    if caller.kind == "user":
        return _user(world, caller, repository, needs, reading)
    if caller.kind == "app":
        raise Refusal(401, "Requires authentication")
    if repository.private:
        raise not_found()
    if not reading:
        raise Refusal(401, "Requires authentication")
    return repository


def _forbidden(needs: Sequence[Need]) -> Refusal:
    # https://docs.github.com/rest/authentication/permissions-required-for-github-apps
    accepted = "; ".join(f"{name}={level}" for name, level in needs)
    return Refusal(403, "Resource not accessible by integration", headers={"X-Accepted-GitHub-Permissions": accepted})


def _installation(caller: Caller, repository: Repository, needs: Sequence[Need], reading: bool) -> Repository:
    if repository.id not in caller.repository_ids:
        if repository.private:
            raise not_found()
        if reading:
            return repository
        raise _forbidden(needs)
    if not granted(caller.permissions, needs):
        raise _forbidden(needs)
    return repository


def _user(world: World, caller: Caller, repository: Repository, needs: Sequence[Need], reading: bool) -> Repository:
    role = repository.role_of(caller.login)
    installed = [
        each
        for each in world.installations.values()
        if caller.app and each.app_id == caller.app.id and not each.suspended_at and world.covers(each, repository)
    ]
    if repository.private and (role is None or not installed):
        raise not_found()
    if reading and not repository.private:
        return repository
    may = reading or role in _WRITERS
    if not may or not any(granted(each.permissions, needs) for each in installed):
        raise _forbidden(needs)
    return repository


def granted(permissions: Mapping[str, str], needs: Sequence[Need]) -> bool:
    """Whether one of the needs is met by a mapping of permissions; `metadata: read` always is."""
    held = {"metadata": "read", **permissions}
    return any(_ORDER.get(held.get(name, ""), 0) >= _ORDER[level] for name, level in needs)
