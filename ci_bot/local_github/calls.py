"""What one API request is to an operation, what an operation answers, and how GitHub words a refusal."""

import functools
import hashlib
import json
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ci_bot.local_github.state import App, Installation, Json, Repository, World

DOCS = "https://docs.github.com/rest"


class Refusal(Exception):
    """An answer in GitHub's shape of errors."""

    def __init__(
        self,
        status: int,
        message: str,
        errors: Sequence[Json | str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Keep what is to be answered."""
        super().__init__(message)
        self.status, self.message, self.errors, self.headers = status, message, errors, headers or {}

    def body(self, documentation_url: str = DOCS) -> Json:
        """The JSON of the answer."""
        shape: Json = {"message": self.message}
        if self.errors is not None:
            shape["errors"] = list(self.errors)
        return shape | {"documentation_url": documentation_url, "status": str(self.status)}


def not_found() -> Refusal:
    """What is not there, and what the caller may not know of."""
    return Refusal(404, "Not Found")


def invalid(resource: str, field_name: str, code: str, message: str | None = None) -> Refusal:
    """A value that GitHub understood and does not take."""
    error = {"resource": resource, "field": field_name, "code": code}
    return Refusal(422, "Validation Failed", [error if message is None else error | {"message": message}])


@dataclass(frozen=True)
class Caller:
    """Who asks: an App by its JWT, an installation by its token, a person by theirs, or nobody."""

    kind: str = "anonymous"
    app: App | None = None
    installation: Installation | None = None
    login: str | None = None
    repository_ids: frozenset[int] = frozenset()
    permissions: Mapping[str, str] = field(default_factory=dict)
    token_id: str = ""

    @property
    def limit_key(self) -> str:
        """Whose rate limit a request counts on."""
        if self.installation is not None:
            return f"installation {self.installation.id}"
        return f"{self.kind} {self.app.id if self.app else self.login}"

    @property
    def writer(self) -> str:
        """The login under which the caller writes."""
        if self.login is not None:
            return self.login
        return f"{self.app.slug}[bot]" if self.app else "ghost"


@dataclass(frozen=True)
class Call:
    """One request, understood: the world, who asks, and for what."""

    world: World
    caller: Caller
    path: Mapping[str, str]
    query: Mapping[str, str]
    body: Any
    accept: str
    host: str
    url: str
    as_of: float | None = None
    subject: Repository | None = None

    @property
    def repository(self) -> Repository:
        """The repository in the address."""
        if self.subject is None:
            raise not_found()
        return self.subject

    @property
    def app(self) -> App:
        """The App that asks."""
        if self.caller.app is None:
            raise not_found()
        return self.caller.app

    def number(self, name: str) -> int:
        """A number in the address; what is no number is not found."""
        text = self.path[name]
        if not text.isdecimal() or len(text) > 18:
            raise not_found()
        return int(text)

    def fields(self, allowed: Sequence[str], required: Sequence[str] = ()) -> Json:
        """The JSON object in the body.

        Raises:
            Refusal: it is no object, has a key too many or one too few.
        """
        body = {} if self.body is None else self.body
        if not isinstance(body, dict):
            raise Refusal(400, "Body should be a JSON object")
        for key in required:
            if key not in body:
                raise Refusal(422, f'Invalid request.\n\n"{key}" wasn\'t supplied.')
        for key in body:
            if key not in allowed:
                raise Refusal(422, f'Invalid request.\n\n"{key}" is not a permitted key.')
        return body


@dataclass(frozen=True)
class Answer:
    """What an operation answers; `body` is JSON, text, bytes, or nothing."""

    body: Json | list[Any] | str | bytes | None = None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    media_type: str = "application/json; charset=utf-8"

    @functools.cached_property
    def raw(self) -> bytes:
        """The body as it goes out."""
        if isinstance(self.body, bytes):
            return self.body
        if isinstance(self.body, str):
            return self.body.encode()
        return b"" if self.body is None else json.dumps(self.body).encode()

    @functools.cached_property
    def tag(self) -> str | None:
        """The ETag; only what was found has one."""
        return f'W/"{hashlib.sha256(self.raw).hexdigest()}"' if self.status == 200 else None


Handler = Callable[[Call], Answer]


def page_numbers(query: Mapping[str, str]) -> tuple[int, int]:
    """The page asked for and its size, brought into GitHub's bounds (30 by default, 100 at most)."""

    def whole(name: str, default: int) -> int:
        text = query.get(name, "")
        return int(text) if text.isdecimal() and len(text) < 9 and int(text) > 0 else default

    return whole("page", 1), min(whole("per_page", 30), 100)


def link(call: Call, relations: Mapping[str, Mapping[str, str | int]]) -> dict[str, str]:
    """The Link header that leads to other pages of the same listing."""
    parts = []
    for relation, change in relations.items():
        query = urllib.parse.urlencode({**call.query, **change})
        parts.append(f'<{call.url}?{query}>; rel="{relation}"')
    return {"Link": ", ".join(parts)} if parts else {}


def paged(call: Call, items: Sequence[Any], wrap: Callable[[list[Any]], Json] | None = None) -> Answer:
    """One page of a listing, with the links to the others."""
    page, size = page_numbers(call.query)
    last = max(1, -(-len(items) // size))
    relations: dict[str, Mapping[str, str | int]] = {}
    if page > 1:
        relations |= {"prev": {"page": min(page - 1, last)}, "first": {"page": 1}}
    if page < last:
        relations |= {"next": {"page": page + 1}, "last": {"page": last}}
    chosen = list(items[(page - 1) * size : page * size])
    return Answer(chosen if wrap is None else wrap(chosen), headers=link(call, relations))
