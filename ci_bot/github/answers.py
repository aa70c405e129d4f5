"""What GitHub answers, as frozen values with the fields that we use, read tolerantly. Pure."""

import json
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from ci_bot.events.fields import Fields, Unfit
from ci_bot.github.tokens import Token
from ci_bot.records import Repository


class Role(StrEnum):
    """What a person may do in a repository; GitHub folds maintain into write and triage into read."""

    ADMIN = "admin"
    WRITE = "write"
    READ = "read"
    NONE = "none"

    @property
    def can_write(self) -> bool:
        """May re-run, cancel and approve."""
        return self in {Role.ADMIN, Role.WRITE}


@dataclass(frozen=True)
class Commit:
    """One commit; `author` is the login where GitHub knows it, else the name in the commit."""

    sha: str
    message: str
    author: str

    @property
    def title(self) -> str:
        """The message's first line."""
        return self.message.partition("\n")[0].strip()


@dataclass(frozen=True)
class Pull:
    """A pull request as it is now."""

    number: int
    is_open: bool
    merged: bool
    title: str
    head_sha: str
    head_ref: str
    head_repository_id: int | None
    """None when the fork was deleted."""
    base_ref: str
    base_sha: str
    base_repository_id: int

    @property
    def is_fork(self) -> bool:
        """The head is not in the base's repository."""
        return self.head_repository_id != self.base_repository_id


@dataclass(frozen=True)
class PostedCheckRun:
    """A check run as GitHub has it."""

    id: int
    name: str
    head_sha: str
    external_id: str
    status: str
    conclusion: str | None
    annotations: int
    """How many annotations it holds: the next request continues there."""
    app_id: int | None = None


@dataclass(frozen=True)
class Delivery:
    """One line of the App's delivery log; a redelivery has the same guid and another id."""

    id: int
    guid: str
    event: str
    action: str
    delivered_at: float
    status_code: int
    redelivery: bool

    @property
    def arrived(self) -> bool:
        """We answered that we have it."""
        return 200 <= self.status_code < 300


@dataclass(frozen=True)
class StoredDelivery:
    """A delivery with what was sent: the same content, not the same bytes, so its signature can't be checked."""

    guid: str
    event: str
    body: bytes


@dataclass(frozen=True)
class App:
    """The App as GitHub knows it."""

    id: int
    slug: str
    name: str
    html_url: str
    permissions: dict[str, str]
    events: tuple[str, ...]


@dataclass(frozen=True)
class NewApp:
    """What the manifest flow gives, once."""

    id: int
    slug: str
    name: str
    html_url: str
    client_id: str
    pem: str = field(repr=False)
    webhook_secret: str = field(repr=False)
    client_secret: str = field(repr=False)


@dataclass(frozen=True)
class Installation:
    """The App on one account."""

    id: int
    account: str
    suspended: bool
    permissions: dict[str, str]


@dataclass(frozen=True)
class User:
    """A person who logged in."""

    id: int
    login: str


@dataclass(frozen=True)
class UserToken:
    """What a login gives; 0 seconds means that it does not expire."""

    value: str = field(repr=False)
    expires_in_s: int = 0


def token(answer: Fields) -> Token:
    """POST /app/installations/{installation_id}/access_tokens."""
    return Token(answer.text("token"), _time(answer, "expires_at"))


def repository(answer: Fields, installation_id: int) -> Repository:
    """GET /repos/{owner}/{repo}."""
    return Repository(
        id=answer.number("id"),
        installation_id=installation_id,
        full_name=answer.full_name(),
        default_branch=answer.text("default_branch"),
        private=answer.flag("private", default=True),
    )


def commit(answer: Fields) -> Commit:
    """GET /repos/{owner}/{repo}/commits/{ref}."""
    inner = answer.child("commit")
    author = answer.child("author").text("login", "") if answer.has("author") else ""
    if not author and inner.has("author"):
        author = inner.child("author").text("name", "")
    return Commit(answer.sha("sha"), inner.text("message", ""), author)


def pull(answer: Fields) -> Pull:
    """GET /repos/{owner}/{repo}/pulls/{pull_number}, and one line of their lists."""
    head, base = answer.child("head"), answer.child("base")
    return Pull(
        number=answer.number("number"),
        is_open=answer.text("state") == "open",
        # Lists have merged_at alone.
        merged=answer.flag("merged") or answer.values.get("merged_at") is not None,
        title=answer.text("title", ""),
        head_sha=head.sha("sha"),
        head_ref=head.text("ref"),
        head_repository_id=head.child("repo").number("id") if head.has("repo") else None,
        base_ref=base.text("ref"),
        base_sha=base.sha("sha"),
        base_repository_id=base.child("repo").number("id"),
    )


def role(answer: Fields) -> tuple[Role, int | None]:
    """GET /repos/{owner}/{repo}/collaborators/{username}/permission: what, and the id of whoever has the name now."""
    # Not role_name: that may be a role of the organization's own making; `permission` is what it is based on.
    permission = answer.text("permission", "none")
    whose = answer.child("user").number("id") if answer.has("user") else None
    return Role(permission) if permission in set(Role) else Role.NONE, whose


def check_run(answer: Fields) -> PostedCheckRun:
    """One check run, from any call that gives some."""
    output = answer.child("output") if answer.has("output") else Fields({})
    annotations = output.values.get("annotations_count")
    return PostedCheckRun(
        id=answer.number("id"),
        name=answer.text("name"),
        head_sha=answer.sha("head_sha"),
        external_id=answer.text("external_id", ""),
        status=answer.text("status", ""),
        conclusion=answer.text("conclusion", "") or None,
        annotations=annotations if isinstance(annotations, int) else 0,
        app_id=answer.child("app").number("id") if answer.has("app") else None,
    )


def ref_sha(answer: Fields) -> str:
    """GET /repos/{owner}/{repo}/git/ref/{ref}."""
    return answer.child("object").sha("sha")


def tree_names(answer: Fields) -> tuple[str, ...]:
    """GET /repos/{owner}/{repo}/git/trees/{tree_sha}."""
    return tuple(entry.text("path") for entry in answer.children("tree"))


def delivery(answer: Fields) -> Delivery:
    """One line of GET /app/hook/deliveries."""
    return Delivery(
        id=answer.number("id"),
        guid=answer.text("guid"),
        event=answer.text("event", ""),
        action=answer.text("action", ""),
        delivered_at=_time(answer, "delivered_at"),
        status_code=_count(answer, "status_code"),
        redelivery=answer.flag("redelivery"),
    )


def stored_delivery(answer: Fields) -> StoredDelivery | None:
    """GET /app/hook/deliveries/{delivery_id}; None where GitHub has not kept what it sent."""
    request = answer.child("request").values
    payload = request.get("payload")
    if payload is None and "payload" in request:
        return None
    if not isinstance(payload, dict):
        raise Unfit("request.payload is missing")
    body = json.dumps(payload, separators=(",", ":")).encode()
    return StoredDelivery(answer.text("guid"), answer.text("event"), body)


def app(answer: Fields) -> App:
    """GET /app."""
    return App(
        id=answer.number("id"),
        slug=answer.text("slug", ""),
        name=answer.text("name", ""),
        html_url=answer.text("html_url", ""),
        permissions=_texts(answer, "permissions"),
        events=_words(answer, "events"),
    )


def new_app(answer: Fields) -> NewApp:
    """POST /app-manifests/{code}/conversions."""
    return NewApp(
        id=answer.number("id"),
        slug=answer.text("slug", ""),
        name=answer.text("name", ""),
        html_url=answer.text("html_url", ""),
        client_id=answer.text("client_id"),
        pem=answer.text("pem"),
        webhook_secret=answer.text("webhook_secret", ""),
        client_secret=answer.text("client_secret"),
    )


def installation(answer: Fields) -> Installation:
    """One line of GET /app/installations."""
    return Installation(
        id=answer.number("id"),
        account=answer.child("account").text("login", "") if answer.has("account") else "",
        suspended=answer.values.get("suspended_at") is not None,
        permissions=_texts(answer, "permissions"),
    )


def user(answer: Fields) -> User:
    """GET /user."""
    return User(answer.number("id"), answer.text("login"))


def user_token(answer: Fields) -> UserToken:
    """POST /login/oauth/access_token, which answers 200 even when it refuses."""
    return UserToken(answer.text("access_token"), _count(answer, "expires_in"))


def _time(answer: Fields, key: str) -> float:
    text = answer.text(key)
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        raise Unfit(f"{answer.where(key)} is no time: {text[:40]}") from None


def _count(answer: Fields, key: str) -> int:
    value = answer.values.get(key)
    return value if isinstance(value, int) else 0


def _texts(answer: Fields, key: str) -> dict[str, str]:
    values = answer.values.get(key)
    return {k: v for k, v in values.items() if isinstance(v, str)} if isinstance(values, dict) else {}


def _words(answer: Fields, key: str) -> tuple[str, ...]:
    values = answer.values.get(key)
    return tuple(v for v in values if isinstance(v, str)) if isinstance(values, list) else ()
