"""One webhook delivery to one event: tolerant of what we don't need, exact in what we keep. Pure."""

import json
from collections.abc import Callable
from dataclasses import dataclass

from ci_bot.events.fields import Fields, Unfit, shown
from ci_bot.events.kinds import (
    CheckRunAction,
    CheckRunRerequested,
    CheckSuiteRerequested,
    Event,
    Ignored,
    InstallationChanged,
    InstalledRepository,
    MergeGroup,
    Ping,
    PullRequest,
    Push,
    RepositoriesChanged,
    RepositoryRef,
    Sender,
)

NO_COMMIT = "0" * 40
MERGE_QUEUE = "refs/heads/gh-readonly-queue/"
PULL_REQUEST_ACTIONS = frozenset({"opened", "synchronize", "reopened", "closed"})
CHECK_RUN_ACTIONS = frozenset({"rerequested", "requested_action"})
MERGE_GROUP_ACTIONS = frozenset({"checks_requested", "destroyed"})
INSTALLATION_ACTIONS = frozenset({"created", "deleted", "suspend", "unsuspend", "new_permissions_accepted"})
REPOSITORIES_ACTIONS = frozenset({"added", "removed"})


@dataclass(frozen=True)
class Ourselves:
    """Who we are on GitHub, to tell our own echo from news; None and "" while there is no App yet."""

    app_id: int | None
    slug: str


def parse(event: str, body: bytes, *, app_id: int | None, app_slug: str = "") -> Event:
    """What a delivery means to us; never raises, whatever the bytes.

    Args:
        event: the X-GitHub-Event header.
        body: the delivery as GitHub sent (and signed) it, JSON.
        app_id: our App; other Apps' check runs and suites are ignored, all of them while it is None.
        app_slug: our App's slug, whose bot's own pushes and pull requests are ignored; empty while unknown.
    """
    reader = READERS.get(event)
    if reader is None:
        return Ignored(f"{shown(event)} events start nothing")
    try:
        payload = json.loads(body.decode())
    except (ValueError, RecursionError) as error:
        return Ignored(f"the {event} event is not JSON: {type(error).__name__}")
    if not isinstance(payload, dict):
        return Ignored(f"the {event} event is no JSON object")
    try:
        return reader(Fields(payload), Ourselves(app_id, app_slug))
    except Unfit as error:
        return Ignored(f"the {event} event is incomplete: {error}")


def _push(payload: Fields, us: Ourselves) -> Event:
    ref = payload.text("ref")
    if ref.startswith(MERGE_QUEUE):
        return Ignored("pushes to gh-readonly-queue/** are the merge queue's: its merge_group events count")
    if not ref.startswith(("refs/heads/", "refs/tags/")):
        return Ignored(f"{shown(ref)} is neither a branch nor a tag")
    sender = _sender(payload)
    if _is_our_bot(sender, us):
        return Ignored("the push is our own App's")
    after = payload.sha("after")
    deleted = payload.flag("deleted") or after == NO_COMMIT
    message, head_sha = "", NO_COMMIT if deleted else after
    if not deleted and payload.has("head_commit"):
        head_commit = payload.child("head_commit")
        message = head_commit.text("message", "")
        if ref.startswith("refs/tags/"):
            # `after` of an annotated tag is the tag object; check runs and code belong to the commit.
            head_sha = head_commit.sha("id")
    return Push(
        repository=_repository(payload),
        ref=ref,
        before=payload.sha("before"),
        after=after,
        head_sha=head_sha,
        deleted=deleted,
        created=payload.flag("created"),
        forced=payload.flag("forced"),
        message=message,
        sender=sender,
    )


def _pull_request(payload: Fields, us: Ourselves) -> Event:
    action = payload.text("action")
    if action not in PULL_REQUEST_ACTIONS:
        return Ignored(f"{shown(action)} of a pull request changes nothing that is tested")
    sender = _sender(payload)
    if _is_our_bot(sender, us):
        return Ignored("the pull request event is our own App's")
    repository = _repository(payload)
    pull_request = payload.child("pull_request")
    head, base = pull_request.child("head"), pull_request.child("base")
    head_repository_id = head.child("repo").number("id") if head.has("repo") else None
    return PullRequest(
        repository=repository,
        action=action,
        number=pull_request.number("number"),
        head_sha=head.sha("sha"),
        head_ref=head.text("ref"),
        head_repository_id=head_repository_id,
        base_ref=base.text("ref"),
        base_sha=base.sha("sha"),
        is_fork=head_repository_id != repository.id,
        title=pull_request.text("title", ""),
        merged=pull_request.flag("merged"),
        sender=sender,
    )


def _check_run(payload: Fields, us: Ourselves) -> Event:
    action = payload.text("action")
    if action not in CHECK_RUN_ACTIONS:
        return Ignored(f"{shown(action)} of a check run is no request to us")
    check_run = payload.child("check_run")
    if foreign := _foreign(check_run, us):
        return foreign
    sender = _sender(payload)
    if sender.is_bot:
        return Ignored(f"{shown(sender.login)} is a bot: only people press buttons")
    repository = _repository(payload)
    check_run_id, name = check_run.number("id"), check_run.text("name")
    head_sha, external_id = check_run.sha("head_sha"), check_run.text("external_id", "")
    if action == "rerequested":
        return CheckRunRerequested(repository, check_run_id, name, head_sha, external_id, sender)
    identifier = payload.child("requested_action").text("identifier")
    return CheckRunAction(repository, identifier, check_run_id, name, head_sha, external_id, sender)


def _check_suite(payload: Fields, us: Ourselves) -> Event:
    action = payload.text("action")
    if action != "rerequested":
        return Ignored(f"{shown(action)} of a check suite is no request to us")
    suite = payload.child("check_suite")
    if foreign := _foreign(suite, us):
        return foreign
    sender = _sender(payload)
    if sender.is_bot:
        return Ignored(f"{shown(sender.login)} is a bot: only people press buttons")
    return CheckSuiteRerequested(_repository(payload), suite.number("id"), suite.sha("head_sha"), sender)


def _merge_group(payload: Fields, us: Ourselves) -> Event:
    action = payload.text("action")
    if action not in MERGE_GROUP_ACTIONS:
        return Ignored(f"{shown(action)} of a merge group changes nothing that is tested")
    group = payload.child("merge_group")
    return MergeGroup(
        repository=_repository(payload),
        action=action,
        head_sha=group.sha("head_sha"),
        head_ref=group.text("head_ref"),
        base_ref=group.text("base_ref"),
        base_sha=group.sha("base_sha"),
        reason=payload.text("reason", ""),
        sender=_sender(payload),
    )


def _installation(payload: Fields, us: Ourselves) -> Event:
    action = payload.text("action")
    if action not in INSTALLATION_ACTIONS:
        return Ignored(f"{shown(action)} of an installation changes nothing for us")
    installation = payload.child("installation")
    account = installation.child("account").text("login", "") if installation.has("account") else ""
    suspended = installation.values.get("suspended_at") is not None
    return InstallationChanged(
        action=action,
        installation_id=installation.number("id"),
        account=account,
        suspended=action == "suspend" or (suspended and action != "unsuspend"),
        repositories=_installed(payload, "repositories"),
        sender=_sender(payload),
    )


def _installation_repositories(payload: Fields, us: Ourselves) -> Event:
    action = payload.text("action")
    if action not in REPOSITORIES_ACTIONS:
        return Ignored(f"{shown(action)} of an installation's repositories changes nothing for us")
    return RepositoriesChanged(
        installation_id=payload.child("installation").number("id"),
        added=_installed(payload, "repositories_added"),
        removed=_installed(payload, "repositories_removed"),
        sender=_sender(payload),
    )


def _ping(payload: Fields, us: Ourselves) -> Event:
    hook_id = payload.number("hook_id") if payload.values.get("hook_id") is not None else None
    return Ping(payload.text("zen", ""), hook_id)


def _repository(payload: Fields) -> RepositoryRef:
    repository = payload.child("repository")
    if not payload.has("installation"):
        raise Unfit("it names no installation, so a repository's own webhook sent it, not the App's")
    return RepositoryRef(
        id=repository.number("id"),
        full_name=repository.full_name(),
        default_branch=repository.text("default_branch"),
        private=repository.flag("private", default=True),
        installation_id=payload.child("installation").number("id"),
    )


def _installed(payload: Fields, key: str) -> tuple[InstalledRepository, ...]:
    return tuple(
        InstalledRepository(item.number("id"), item.full_name(), item.flag("private", default=True))
        for item in payload.children(key)
    )


def _sender(payload: Fields) -> Sender:
    sender = payload.child("sender")
    return Sender(sender.text("login"), sender.text("type", "User"), sender.number("id"))


def _is_our_bot(sender: Sender, us: Ourselves) -> bool:
    return bool(us.slug) and sender.is_bot and sender.login == f"{us.slug}[bot]"


def _foreign(check: Fields, us: Ourselves) -> Ignored | None:
    """Why a check run or suite is none of ours, or None."""
    if us.app_id is None:
        return Ignored("no App is set up yet, so the check is none of ours")
    app_id = check.child("app").number("id")
    return None if app_id == us.app_id else Ignored(f"the check belongs to App {app_id}, not to ours")


READERS: dict[str, Callable[[Fields, Ourselves], Event]] = {
    "push": _push,
    "pull_request": _pull_request,
    "check_run": _check_run,
    "check_suite": _check_suite,
    "merge_group": _merge_group,
    "installation": _installation,
    "installation_repositories": _installation_repositories,
    "ping": _ping,
}
