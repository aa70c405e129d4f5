"""What the local GitHub knows: its records, and the tables that hold them. Reads no clock of its own, sends nothing."""

import itertools
import secrets
import threading
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

Json = dict[str, Any]
K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

ROLES = ("read", "triage", "write", "maintain", "admin")


@dataclass(frozen=True)
class Account:
    """A person, an organization or the bot of an App."""

    id: int
    login: str
    type: str = "User"
    name: str | None = None
    email: str = ""


@dataclass(frozen=True)
class Repository:
    """A repository and the bare git directory behind it; `roles` maps logins to one of ROLES."""

    id: int
    owner: str
    name: str
    path: Path
    private: bool
    default_branch: str
    created_at: float
    pushed_at: float
    fork_of: int | None = None
    roles: Mapping[str, str] = field(default_factory=dict)

    @property
    def full_name(self) -> str:
        """Owner and name, as in addresses."""
        return f"{self.owner}/{self.name}"

    def role_of(self, login: str | None) -> str | None:
        """The role of a person here; a public repository lets everyone read."""
        if login == self.owner:
            return "admin"
        granted = self.roles.get(login) if login else None
        return granted or (None if self.private else "read")


@dataclass(frozen=True)
class App:
    """A registered GitHub App; the private key itself is given out once and not kept."""

    id: int
    slug: str
    name: str
    owner: str
    client_id: str
    client_secret: str
    public_key_pem: str
    webhook_secret: str | None
    webhook_url: str | None
    hook_id: int
    permissions: Mapping[str, str]
    events: tuple[str, ...]
    created_at: float
    external_url: str = "http://localhost"
    description: str = ""
    callback_urls: tuple[str, ...] = ()
    setup_url: str | None = None


@dataclass(frozen=True)
class Installation:
    """An App on an account; `repository_ids` counts only when `selection` is "selected"."""

    id: int
    app_id: int
    account: str
    selection: str
    repository_ids: frozenset[int]
    permissions: Mapping[str, str]
    events: tuple[str, ...]
    created_at: float
    suspended_at: float | None = None
    suspended_by: str | None = None


@dataclass(frozen=True)
class CheckSuite:
    """All check runs of one App on one head_sha; its status is drawn from them."""

    id: int
    app_id: int
    repository_id: int
    head_sha: str
    head_branch: str | None
    before: str | None
    created_at: float


@dataclass(frozen=True)
class CheckRun:
    """One line of a check suite."""

    id: int
    suite_id: int
    app_id: int
    repository_id: int
    head_sha: str
    name: str
    status: str
    conclusion: str | None
    started_at: float | None
    completed_at: float | None
    external_id: str | None = None
    details_url: str | None = None
    title: str | None = None
    summary: str | None = None
    text: str | None = None
    annotations: tuple[Json, ...] = ()
    images: tuple[Json, ...] = ()
    actions: tuple[Json, ...] = ()


@dataclass(frozen=True)
class PullRequest:
    """A pull request; the number is counted per repository, the id everywhere."""

    id: int
    number: int
    repository_id: int
    head_repository_id: int
    head_ref: str
    head_sha: str
    base_ref: str
    base_sha: str
    title: str
    body: str | None
    user: str
    created_at: float
    updated_at: float
    state: str = "open"
    draft: bool = False
    closed_at: float | None = None
    merged_at: float | None = None
    merged_by: str | None = None
    merge_commit_sha: str | None = None


@dataclass(frozen=True)
class MergeGroup:
    """Commits that the merge queue wants checked before the base branch moves."""

    repository_id: int
    head_ref: str
    head_sha: str
    base_ref: str
    base_sha: str


@dataclass(frozen=True)
class Comment:
    """A comment on a pull request; `app_id` when an App wrote it."""

    id: int
    repository_id: int
    number: int
    user: str
    body: str
    created_at: float
    updated_at: float
    app_id: int | None = None
    reactions: tuple[tuple[int, str, str, float], ...] = ()


@dataclass(frozen=True)
class Delivery:
    """One attempt to bring one webhook to its App; a redelivery has the same GUID and a new id."""

    id: int
    guid: str
    app_id: int
    event: str
    action: str | None
    installation_id: int | None
    repository_id: int | None
    delivered_at: float
    redelivery: bool
    url: str
    request_headers: Mapping[str, str]
    body: bytes
    duration_s: float = 0.0
    status: str = "pending"
    status_code: int = 0
    response_headers: Mapping[str, str] = field(default_factory=dict)
    response_body: str = ""


@dataclass(frozen=True)
class Token:
    """What a token lets its bearer do; kept under the token's hash.

    `repository_ids` None means all that the installation covers.
    """

    kind: str
    app_id: int
    expires_at: float
    installation_id: int | None = None
    login: str | None = None
    repository_ids: frozenset[int] | None = None
    permissions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Grant:
    """A code of the login flow, good for one exchange."""

    app_id: int
    login: str
    redirect_uri: str
    code_challenge: str | None
    expires_at: float


@dataclass(frozen=True)
class Conversion:
    """A code of the manifest flow, good for one exchange; it holds the private key until then."""

    app_id: int
    pem: str
    expires_at: float


class Table(Generic[K, V]):
    """Records by key that also remembers what they were, so that a read can be answered late."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Start empty.

        Args:
            clock: gives the present time in seconds.
        """
        self._clock = clock
        self._versions: dict[K, list[tuple[float, V | None]]] = {}

    def put(self, key: K, value: V | None) -> None:
        """Write a new version; None deletes."""
        self._versions.setdefault(key, []).append((self._clock(), value))

    def get(self, key: K, as_of: float | None = None) -> V | None:
        """The record now, or as it was at a time."""
        for at, value in reversed(self._versions.get(key, ())):
            if as_of is None or at <= as_of:
                return value
        return None

    def values(self, as_of: float | None = None) -> Iterator[V]:
        """All records, oldest key first, now or as they were at a time."""
        for key in list(self._versions):
            value = self.get(key, as_of)
            if value is not None:
                yield value


class World:
    """Everything, behind one lock; whoever reads more than one record or writes holds it."""

    def __init__(self, root: Path, url: str, clock: Callable[[], float]) -> None:
        """Start empty.

        Args:
            root: directory of the bare repositories.
            url: address of the pages, without a slash at the end.
            clock: gives the present time in seconds.
        """
        self.root = root
        self.html_url = url
        self.api_url = f"{url}/api/v3"
        self.clock = clock
        self.lock = threading.RLock()
        self._ids = itertools.count(1001)
        self.signing_key = secrets.token_bytes(32)
        self.accounts: dict[str, Account] = {}
        self.repositories: dict[int, Repository] = {}
        self.apps: dict[int, App] = {}
        self.installations: dict[int, Installation] = {}
        self.deliveries: dict[int, Delivery] = {}
        self.suites: dict[int, CheckSuite] = {}
        self.comments: dict[int, Comment] = {}
        self.merge_groups: dict[str, MergeGroup] = {}
        self.check_runs: Table[int, CheckRun] = Table(clock)
        self.pulls: Table[int, PullRequest] = Table(clock)
        self.refs: Table[tuple[int, str], str] = Table(clock)
        self.arrived: dict[tuple[int, str], float] = {}
        self.tokens: dict[str, Token] = {}
        self.grants: dict[str, Grant] = {}
        self.conversions: dict[str, Conversion] = {}
        self.manifests: dict[str, Json] = {}
        self.send: Callable[[Delivery], None] = lambda _: None

    def next_id(self) -> int:
        """A number never given before; one sequence for all kinds, so that mixed-up ids never fit by chance."""
        return next(self._ids)

    def account(self, login: str) -> Account:
        """An account by its login, whatever its capitals.

        Raises:
            KeyError: there is none.
        """
        return self.accounts[login.lower()]

    def add_account(self, login: str, kind: str = "User", name: str | None = None) -> Account:
        """Give the account of this login, made now where there was none."""
        with self.lock:
            known = self.accounts.get(login.lower())
            if known is None:
                number = self.next_id()
                email = f"{number}+{login}@users.noreply.localhost"
                known = Account(number, login, kind, name, email)
                self.accounts[login.lower()] = known
            return known

    def repository(self, owner: str, name: str) -> Repository | None:
        """A repository by owner and name, whatever their capitals."""
        wanted = f"{owner}/{name}".lower()
        return next((each for each in list(self.repositories.values()) if each.full_name.lower() == wanted), None)

    def covers(self, installation: Installation, repository: Repository) -> bool:
        """Whether an installation may see a repository."""
        if installation.account.lower() != repository.owner.lower():
            return False
        return installation.selection == "all" or repository.id in installation.repository_ids

    def covered(self, installation: Installation) -> list[Repository]:
        """The repositories that an installation may see."""
        return [each for each in list(self.repositories.values()) if self.covers(installation, each)]
