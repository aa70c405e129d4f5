"""How accounts, repositories, Apps and installations look in GitHub's JSON. Pure."""

import base64
from datetime import UTC, datetime

from ci_bot.local_github.state import Account, App, Installation, Json, Repository, World


def stamp(at: float) -> str:
    """A time as GitHub writes it: UTC, whole seconds."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def stamp_or_none(at: float | None) -> str | None:
    """A time as GitHub writes it, or null."""
    return None if at is None else stamp(at)


def moment(text: str) -> float:
    """The time that an ISO 8601 text names.

    Raises:
        ValueError: it is not one.
    """
    parsed = datetime.fromisoformat(text)
    return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()


def node_id(kind: str, number: int) -> str:
    """The GraphQL id, in the older form that everybody can read."""
    return base64.b64encode(f"0{len(kind)}:{kind}{number}".encode()).decode()


def account(world: World, who: Account) -> Json:
    """A "simple user"."""
    api, html = f"{world.api_url}/users/{who.login}", f"{world.html_url}/{who.login}"
    return {
        "login": who.login,
        "id": who.id,
        "node_id": node_id("User", who.id),
        "avatar_url": f"{world.html_url}/avatars/{who.id}",
        "gravatar_id": "",
        "url": api,
        "html_url": html,
        "followers_url": f"{api}/followers",
        "following_url": f"{api}/following{{/other_user}}",
        "gists_url": f"{api}/gists{{/gist_id}}",
        "starred_url": f"{api}/starred{{/owner}}{{/repo}}",
        "subscriptions_url": f"{api}/subscriptions",
        "organizations_url": f"{api}/orgs",
        "repos_url": f"{api}/repos",
        "events_url": f"{api}/events{{/privacy}}",
        "received_events_url": f"{api}/received_events",
        "type": who.type,
        "user_view_type": "public",
        "site_admin": False,
    }


def person(world: World, login: str | None) -> Json | None:
    """A "simple user" by login, or null where nobody is meant."""
    return None if login is None else account(world, world.account(login))


def private_user(world: World, who: Account) -> Json:
    """What `GET /user` tells a person about themselves."""
    owned = [each for each in list(world.repositories.values()) if each.owner == who.login]
    hidden = sum(each.private for each in owned)
    numbers = ("public_gists", "followers", "following", "private_gists", "disk_usage", "collaborators")
    nothing = ("company", "blog", "location", "hireable", "bio", "twitter_username", "notification_email")
    return {
        **account(world, who),
        "user_view_type": "private",
        "name": who.name,
        "email": who.email,
        **dict.fromkeys(nothing),
        **dict.fromkeys(numbers, 0),
        "public_repos": len(owned) - hidden,
        "total_private_repos": hidden,
        "owned_private_repos": hidden,
        "created_at": stamp(0),
        "updated_at": stamp(0),
        "two_factor_authentication": True,
    }


# GitHub's REST description, schema "repository": each link is `<name>_url`, relative to the repository's address
_LINKS = {
    "archive": "/{archive_format}{/ref}",
    "assignees": "/assignees{/user}",
    "blobs": "/git/blobs{/sha}",
    "branches": "/branches{/branch}",
    "collaborators": "/collaborators{/collaborator}",
    "comments": "/comments{/number}",
    "commits": "/commits{/sha}",
    "compare": "/compare/{base}...{head}",
    "contents": "/contents/{+path}",
    "contributors": "/contributors",
    "deployments": "/deployments",
    "downloads": "/downloads",
    "events": "/events",
    "forks": "/forks",
    "git_commits": "/git/commits{/sha}",
    "git_refs": "/git/refs{/sha}",
    "git_tags": "/git/tags{/sha}",
    "hooks": "/hooks",
    "issue_comment": "/issues/comments{/number}",
    "issue_events": "/issues/events{/number}",
    "issues": "/issues{/number}",
    "keys": "/keys{/key_id}",
    "labels": "/labels{/name}",
    "languages": "/languages",
    "merges": "/merges",
    "milestones": "/milestones{/number}",
    "notifications": "/notifications{?since,all,participating}",
    "pulls": "/pulls{/number}",
    "releases": "/releases{/id}",
    "stargazers": "/stargazers",
    "statuses": "/statuses/{sha}",
    "subscribers": "/subscribers",
    "subscription": "/subscription",
    "tags": "/tags",
    "teams": "/teams",
    "trees": "/git/trees{/sha}",
}
_COUNTS = ("forks_count", "stargazers_count", "watchers_count", "size", "open_issues_count")


def repository_url(world: World, which: Repository) -> str:
    """The address of a repository in the API."""
    return f"{world.api_url}/repos/{which.full_name}"


def minimal_repository(world: World, which: Repository) -> Json:
    """A "minimal repository", the part that all forms share."""
    url = repository_url(world, which)
    return {
        "id": which.id,
        "node_id": node_id("Repository", which.id),
        "name": which.name,
        "full_name": which.full_name,
        "private": which.private,
        "owner": person(world, which.owner),
        "html_url": f"{world.html_url}/{which.full_name}",
        "description": None,
        "fork": which.fork_of is not None,
        "url": url,
        **{f"{name}_url": url + rest for name, rest in _LINKS.items()},
    }


def repository(world: World, which: Repository) -> Json:
    """A "repository"."""
    return {
        **minimal_repository(world, which),
        "git_url": f"git://{world.html_url.removeprefix('http://')}/{which.full_name}.git",
        "ssh_url": f"git@localhost:{which.full_name}.git",
        # the only address from which a clone really works here
        "clone_url": which.path.as_uri(),
        "svn_url": f"{world.html_url}/{which.full_name}",
        **dict.fromkeys(_COUNTS, 0),
        **dict.fromkeys(("homepage", "language", "mirror_url", "license")),
        **dict.fromkeys(("forks", "open_issues", "watchers"), 0),
        **dict.fromkeys(("archived", "disabled", "has_pages", "is_template", "has_discussions"), False),
        **dict.fromkeys(("has_issues", "has_projects", "has_downloads", "has_wiki", "allow_forking"), True),
        "web_commit_signoff_required": False,
        "topics": [],
        "visibility": "private" if which.private else "public",
        "default_branch": which.default_branch,
        "created_at": stamp(which.created_at),
        "updated_at": stamp(which.pushed_at),
        "pushed_at": stamp(which.pushed_at),
    }


def full_repository(world: World, which: Repository) -> Json:
    """A "full repository", with the repository that it was forked from."""
    shape = repository(world, which) | {"network_count": 0, "subscribers_count": 0, "temp_clone_token": None}
    parent = world.repositories.get(which.fork_of) if which.fork_of is not None else None
    if parent is not None:
        shape |= {"parent": repository(world, parent), "source": repository(world, parent)}
    return shape


def permissions_of(role: str | None) -> Json:
    """The five booleans of a role."""
    order = ("pull", "triage", "push", "maintain", "admin")
    reached = {"read": 1, "triage": 2, "write": 3, "maintain": 4, "admin": 5}.get(role or "", 0)
    return {name: place < reached for place, name in enumerate(order)}


def app(world: World, which: App) -> Json:
    """An "integration"."""
    installed = sum(each.app_id == which.id for each in list(world.installations.values()))
    return {
        "id": which.id,
        "client_id": which.client_id,
        "slug": which.slug,
        "node_id": node_id("App", which.id),
        "owner": person(world, which.owner),
        "name": which.name,
        "description": which.description,
        "external_url": which.external_url,
        "html_url": f"{world.html_url}/apps/{which.slug}",
        "created_at": stamp(which.created_at),
        "updated_at": stamp(which.created_at),
        "permissions": dict(which.permissions),
        "events": list(which.events),
        "installations_count": installed,
    }


def installation(world: World, which: Installation) -> Json:
    """An "installation"."""
    owner = world.account(which.account)
    return {
        "id": which.id,
        "account": account(world, owner),
        "repository_selection": which.selection,
        "access_tokens_url": f"{world.api_url}/app/installations/{which.id}/access_tokens",
        "repositories_url": f"{world.api_url}/installation/repositories",
        "html_url": f"{world.html_url}/settings/installations/{which.id}",
        "app_id": which.app_id,
        "client_id": world.apps[which.app_id].client_id,
        "app_slug": world.apps[which.app_id].slug,
        "target_id": owner.id,
        "target_type": owner.type,
        "permissions": dict(which.permissions),
        "events": list(which.events),
        "created_at": stamp(which.created_at),
        "updated_at": stamp(which.suspended_at or which.created_at),
        "single_file_name": None,
        "has_multiple_single_files": False,
        "single_file_paths": [],
        "suspended_by": person(world, which.suspended_by),
        "suspended_at": stamp_or_none(which.suspended_at),
    }
