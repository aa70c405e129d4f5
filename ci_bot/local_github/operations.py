"""The operations of the REST API: address, who may call, what they need, who answers. Pure."""

import enum
import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass

from ci_bot.local_github import accounts, apps, checks, comments, commits, contents, hook_log, oauth, pulls
from ci_bot.local_github.access import Need
from ci_bot.local_github.calls import Handler


class Door(enum.Enum):
    """Who may call an operation."""

    APP = "an App, by its JWT"
    TOKEN = "whoever has a token"  # noqa: S105 - a sentence
    REPOSITORY = "whoever may do this with the repository"
    BOT = "an installation that may do this with the repository"
    ALL = "everybody"


@dataclass(frozen=True)
class Operation:
    """One operation; `creates` marks those that GitHub counts as creating content."""

    method: str
    path: str
    id: str
    door: Door
    handler: Handler
    needs: tuple[Need, ...] = ()
    creates: bool = False


REPO = "/repos/{owner}/{repo}"
CONTENTS: tuple[Need, ...] = (("contents", "read"),)
CHECKS: tuple[Need, ...] = (("checks", "read"),)
PULLS: tuple[Need, ...] = (("pull_requests", "read"),)
TALK: tuple[Need, ...] = (("issues", "read"), ("pull_requests", "read"))
WRITE_CHECKS: tuple[Need, ...] = (("checks", "write"),)
WRITE_TALK: tuple[Need, ...] = (("issues", "write"), ("pull_requests", "write"))
METADATA: tuple[Need, ...] = (("metadata", "read"),)
_IN = Door.REPOSITORY

# where two addresses fit, the first counts
OPERATIONS = (
    Operation("GET", "/app", "apps/get-authenticated", Door.APP, apps.get_app),
    Operation("GET", "/app/installations", "apps/list-installations", Door.APP, apps.list_installations),
    Operation("GET", "/app/installations/{installation_id}", "apps/get-installation", Door.APP, apps.get_installation),
    Operation(
        "POST",
        "/app/installations/{installation_id}/access_tokens",
        "apps/create-installation-access-token",
        Door.APP,
        apps.create_token,
    ),
    Operation("GET", "/app/hook/deliveries", "apps/list-webhook-deliveries", Door.APP, hook_log.list_deliveries),
    Operation(
        "GET", "/app/hook/deliveries/{delivery_id}", "apps/get-webhook-delivery", Door.APP, hook_log.get_delivery
    ),
    Operation(
        "POST",
        "/app/hook/deliveries/{delivery_id}/attempts",
        "apps/redeliver-webhook-delivery",
        Door.APP,
        hook_log.redeliver,
    ),
    Operation("GET", "/app/hook/config", "apps/get-webhook-config-for-app", Door.APP, hook_log.get_config),
    Operation("PATCH", "/app/hook/config", "apps/update-webhook-config-for-app", Door.APP, hook_log.update_config),
    Operation("POST", "/app-manifests/{code}/conversions", "apps/create-from-manifest", Door.ALL, oauth.convert),
    Operation(
        "GET",
        "/installation/repositories",
        "apps/list-repos-accessible-to-installation",
        Door.TOKEN,
        accounts.list_for_installation,
    ),
    Operation("GET", f"{REPO}/installation", "apps/get-repo-installation", Door.APP, apps.get_repository_installation),
    Operation("GET", REPO, "repos/get", _IN, accounts.get_repository, METADATA),
    Operation("POST", f"{REPO}/check-runs", "checks/create", Door.BOT, checks.create_run, WRITE_CHECKS, True),
    Operation(
        "GET",
        f"{REPO}/check-runs/{{check_run_id}}/annotations",
        "checks/list-annotations",
        _IN,
        checks.list_annotations,
        CHECKS,
    ),
    Operation("GET", f"{REPO}/check-runs/{{check_run_id}}", "checks/get", _IN, checks.get_run, CHECKS),
    Operation(
        "PATCH", f"{REPO}/check-runs/{{check_run_id}}", "checks/update", Door.BOT, checks.update_run, WRITE_CHECKS
    ),
    Operation("GET", f"{REPO}/commits/{{ref}}/check-runs", "checks/list-for-ref", _IN, checks.list_for_ref, CHECKS),
    Operation(
        "GET",
        f"{REPO}/check-suites/{{check_suite_id}}/check-runs",
        "checks/list-for-suite",
        _IN,
        checks.list_for_suite,
        CHECKS,
    ),
    Operation("GET", f"{REPO}/check-suites/{{check_suite_id}}", "checks/get-suite", _IN, checks.get_suite, CHECKS),
    Operation("GET", f"{REPO}/contents/{{path}}", "repos/get-content", _IN, contents.get_content, CONTENTS),
    Operation("GET", f"{REPO}/tarball/{{ref}}", "repos/download-tarball-archive", _IN, contents.get_tarball, CONTENTS),
    Operation("GET", f"{REPO}/git/trees/{{tree_sha}}", "git/get-tree", _IN, contents.get_tree, CONTENTS),
    Operation("GET", f"{REPO}/git/ref/{{ref}}", "git/get-ref", _IN, commits.get_ref, CONTENTS),
    Operation(
        "GET",
        f"{REPO}/compare/{{basehead}}",
        "repos/compare-commits-with-basehead",
        _IN,
        commits.compare,
        CONTENTS,
    ),
    Operation(
        "GET",
        f"{REPO}/commits/{{commit_sha}}/pulls",
        "repos/list-pull-requests-associated-with-commit",
        _IN,
        pulls.list_for_commit,
        PULLS,
    ),
    Operation("GET", f"{REPO}/commits/{{ref}}", "repos/get-commit", _IN, commits.get_commit, CONTENTS),
    Operation("GET", f"{REPO}/commits", "repos/list-commits", _IN, commits.list_commits, CONTENTS),
    Operation("GET", f"{REPO}/branches/{{branch}}", "repos/get-branch", _IN, commits.get_branch, CONTENTS),
    Operation("GET", f"{REPO}/pulls", "pulls/list", _IN, pulls.list_pulls, PULLS),
    Operation("GET", f"{REPO}/pulls/{{pull_number}}/files", "pulls/list-files", _IN, pulls.list_files, PULLS),
    Operation("GET", f"{REPO}/pulls/{{pull_number}}", "pulls/get", _IN, pulls.get_pull, PULLS),
    Operation(
        "GET", f"{REPO}/issues/{{issue_number}}/comments", "issues/list-comments", _IN, comments.list_comments, TALK
    ),
    Operation(
        "POST",
        f"{REPO}/issues/{{issue_number}}/comments",
        "issues/create-comment",
        _IN,
        comments.create_comment,
        WRITE_TALK,
        True,
    ),
    Operation(
        "POST",
        f"{REPO}/issues/comments/{{comment_id}}/reactions",
        "reactions/create-for-issue-comment",
        _IN,
        comments.create_reaction,
        WRITE_TALK,
        True,
    ),
    Operation("GET", f"{REPO}/issues/comments/{{comment_id}}", "issues/get-comment", _IN, comments.get_comment, TALK),
    Operation(
        "PATCH",
        f"{REPO}/issues/comments/{{comment_id}}",
        "issues/update-comment",
        _IN,
        comments.update_comment,
        WRITE_TALK,
    ),
    Operation(
        "DELETE",
        f"{REPO}/issues/comments/{{comment_id}}",
        "issues/delete-comment",
        _IN,
        comments.delete_comment,
        WRITE_TALK,
    ),
    Operation(
        "GET",
        f"{REPO}/collaborators/{{username}}/permission",
        "repos/get-collaborator-permission-level",
        _IN,
        accounts.get_permission,
        METADATA,
    ),
    Operation("GET", "/meta", "meta/get", Door.ALL, accounts.get_meta),
    Operation("GET", "/user", "users/get-authenticated", Door.TOKEN, accounts.get_user),
    Operation(
        "GET",
        "/user/installations",
        "apps/list-installations-for-authenticated-user",
        Door.TOKEN,
        accounts.list_installations_of_user,
    ),
    Operation(
        "GET",
        "/user/installations/{installation_id}/repositories",
        "apps/list-installation-repos-for-authenticated-user",
        Door.TOKEN,
        accounts.list_repositories_of_user,
    ),
)
RATE_LIMIT = "rate-limit/get"
# parameters in which a slash is a part of the name ("x-multi-segment" in GitHub's description)
_WIDE = ("ref", "path", "branch", "basehead", "commit_sha", "tree_sha")


def _pattern(path: str) -> re.Pattern[str]:
    text = path
    for name in re.findall(r"{(\w+)}", path):
        text = text.replace(f"{{{name}}}", f"(?P<{name}>{'.+' if name in _WIDE else '[^/]+'})")
    # the root of the tree and the default branch may be left out, with or without their slash
    text = text.replace("/contents/(?P<path>.+)", "/contents(?:/(?P<path>.*))?")
    return re.compile(text.replace("/tarball/(?P<ref>.+)", "/tarball(?:/(?P<ref>.*))?"))


_COMPILED = tuple((operation, _pattern(operation.path)) for operation in OPERATIONS)


@functools.lru_cache(1024)
def match(method: str, path: str) -> tuple[Operation, Mapping[str, str]] | None:
    """The operation at an address and the values of its parameters, or None."""
    for operation, pattern in _COMPILED:
        found = pattern.fullmatch(path) if operation.method == method else None
        if found is not None:
            return operation, {name: value or "" for name, value in found.groupdict().items()}
    return None
