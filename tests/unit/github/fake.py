"""A small GitHub without sockets: checks credentials, hands out tokens, answers from a script, remembers requests."""

import asyncio
import base64
import json
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from typing import Any, TypeVar

import httpx2 as httpx
import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from ci_bot.github import GitHub
from ci_bot.records import Repository
from tests.unit.github.conformity import complaints

API = "https://api.example"
PAGES = "https://pages.example"
REPO = Repository(id=7, installation_id=11, full_name="octo/digits", default_branch="main", private=True)
A, B = "a" * 40, "b" * 40
# As GitHub makes them since 2026: several hundred characters, with dots.
TOKEN_TAIL = "eyJhbGciOiJSUzI1NiJ9." + "x" * 300 + "." + "y" * 80

T = TypeVar("T")
Answer = httpx.Response | Callable[[httpx.Request], httpx.Response]


@cache
def private_key() -> str:
    """One key for all tests: making it is slow."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    form = serialization.PrivateFormat.TraditionalOpenSSL
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode()


@cache
def public_key() -> Any:
    key = serialization.load_pem_private_key(private_key().encode(), password=None)
    return key.public_key()


@dataclass(frozen=True)
class Credentials:
    app_id: int = 42
    private_key: str = field(default_factory=private_key, repr=False)
    client_id: str = "Iv1.client"
    client_secret: str = field(default="client-secret-value", repr=False)


class Clock:
    """Time that passes when told, or when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


class FakeGitHub:
    """Answers each (method, path) from its script, the last answer for ever; everything else is a 404."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.script: dict[tuple[str, str], list[Answer]] = {}
        self.requests: list[httpx.Request] = []
        self.tokens: dict[str, dict[str, Any]] = {}
        self.refuse_jwts = 0
        self.token_life_s = 3600.0

    def on(self, method: str, path: str, *answers: Answer) -> None:
        self.script[method, path] = list(answers)

    def sent(self, method: str = "", path: str = "") -> list[httpx.Request]:
        return [r for r in self.requests if r.method == (method or r.method) and r.url.path.startswith(path)]

    def body(self, index: int = -1) -> Any:
        return json.loads(self.requests[index].content)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        assert complaints(request) == [], complaints(request)
        path = request.url.path
        if request.url.host == httpx.URL(API).host and not path.startswith("/app-manifests/"):
            refusal = self._check_credentials(request)
            if refusal is not None:
                return refusal
        if path.endswith("/access_tokens") and ("POST", path) not in self.script:
            return self._new_token(request)
        answers = self.script.get((request.method, path))
        if not answers:
            return said(404, "Not Found")
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        return (
            answer(request)
            if callable(answer)
            else httpx.Response(answer.status_code, headers=answer.headers, content=answer.content, request=request)
        )

    def _check_credentials(self, request: httpx.Request) -> httpx.Response | None:
        scheme, _, credential = request.headers.get("authorization", "").partition(" ")
        if request.url.path.startswith("/app"):
            assert scheme == "bearer", "App calls are signed with the key"
            jwt.decode(
                credential, public_key(), algorithms=["RS256"], options={"verify_exp": False, "verify_iat": False}
            )
            if self.refuse_jwts:
                self.refuse_jwts -= 1
                return said(401, "A JSON web token could not be decoded")
            return None
        return None if credential in self.tokens else said(401, "Bad credentials")

    def _new_token(self, request: httpx.Request) -> httpx.Response:
        token = f"ghs_{len(self.tokens) + 1:04}_{TOKEN_TAIL}"
        self.tokens[token] = json.loads(request.content)
        at = self.clock.now + self.token_life_s
        return httpx.Response(201, json={"token": token, "expires_at": rfc3339(at)})


def rfc3339(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def ok(body: Any, status: int = 200, **headers: str) -> httpx.Response:
    return httpx.Response(status, json=body, headers=headers)


def said(status: int, message: str, **headers: str) -> httpx.Response:
    return httpx.Response(
        status, json={"message": message}, headers={k.replace("_", "-"): v for k, v in headers.items()}
    )


def file_answer(content: bytes, **fields: Any) -> dict[str, Any]:
    encoded = base64.encodebytes(content).decode()
    body = {"type": "file", "size": len(content), "encoding": "base64", "content": encoded, "download_url": "https://x"}
    return body | fields


def run_answer(number: int, **fields: Any) -> dict[str, Any]:
    body = {"id": number, "name": "descent/digits", "head_sha": A, "external_id": "exp-1", "status": "queued"}
    return body | {"conclusion": None, "output": {"annotations_count": 0}, "app": {"id": 42}} | fields


def pull_answer(**fields: Any) -> dict[str, Any]:
    head = {"sha": A, "ref": "more", "repo": {"id": 7}}
    base = {"sha": B, "ref": "main", "repo": {"id": 7}}
    return {"number": 9, "state": "open", "title": "More", "merged": False, "head": head, "base": base} | fields


def repository_answer(**fields: Any) -> dict[str, Any]:
    return {"id": 7, "full_name": "octo/digits", "default_branch": "main", "private": True} | fields


def call(fake: FakeGitHub, work: Callable[[GitHub], Coroutine[Any, Any, T]], credentials: Any = None) -> T:
    """Run `work` with a client that talks to `fake`."""

    async def main() -> T:
        http = httpx.AsyncClient(transport=httpx.MockTransport(fake))
        app = Credentials() if credentials is None else credentials or None
        async with GitHub(
            app, api_url=API, url=PAGES, http=http, clock=fake.clock, sleep=fake.clock.sleep, jitter=lambda: 0.0
        ) as github:
            return await work(github)

    return asyncio.run(main())
