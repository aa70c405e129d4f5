"""A local GitHub in this process, a receiver of webhooks, and one repository with an App installed for each test.

After every test, all that the API was asked and answered is judged by GitHub's own description.
"""

import asyncio
import base64
import contextlib
import itertools
import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
import uvicorn
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding

from ci_bot.local_github.control import Control
from ci_bot.local_github.server import create_app
from ci_bot.local_github.serving import config
from tests.openapi import DESCRIPTION, openapi

Json = dict[str, Any]
_NUMBERS = itertools.count(1)


@dataclass(frozen=True)
class Hook:
    """A webhook as it arrived."""

    event: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def payload(self) -> Json:
        return json.loads(self.body)

    @property
    def name(self) -> str:
        action = self.payload.get("action")
        return f"{self.event}.{action}" if action else self.event


class Receiver:
    """Takes webhooks and remembers them; `answer` is what it says, a status or something to wait for first."""

    def __init__(self) -> None:
        self._got: list[Hook] = []
        self._changed = threading.Condition()
        self.answer: Callable[[], int] = lambda: 202
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.take(Hook(self.headers["X-GitHub-Event"], self.headers, body))
                self.send_response(receiver.answer())
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/webhook"

    def take(self, hook: Hook) -> None:
        with self._changed:
            self._got.append(hook)
            self._changed.notify_all()

    def hooks(self, name: str = "") -> list[Hook]:
        with self._changed:
            return [hook for hook in self._got if hook.name.startswith(name)]

    def forget(self) -> None:
        with self._changed:
            self._got.clear()

    def wait(self, name: str, count: int = 1, timeout_s: float = 10.0) -> list[Hook]:
        """The webhooks of this name, once there are so many."""
        with self._changed:
            enough = self._changed.wait_for(
                lambda: len([hook for hook in self._got if hook.name == name]) >= count, timeout_s
            )
            assert enough, f"no {count} x {name} among {[hook.name for hook in self._got]}"
            return [hook for hook in self._got if hook.name == name]


class Clock:
    """The server's clock, which a test can put forward."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead_s


def base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def jwt(pem: str, claims: Json, algorithm: str = "RS256") -> str:
    """A JWT signed here by hand, so that no library's leniency hides the server's."""
    signed = ".".join(base64url(json.dumps(part).encode()) for part in ({"alg": algorithm, "typ": "JWT"}, claims))
    key = serialization.load_pem_private_key(pem.encode(), None)
    return f"{signed}.{base64url(key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256()))}"


@dataclass(frozen=True)
class Server:
    """A running local GitHub."""

    url: str
    control: Control
    clock: Clock
    hub: Any


@dataclass
class Place:
    """One private repository with an App installed, and how to work with both."""

    server: Server
    control: Control
    receiver: Receiver
    owner: str
    full_name: str
    path: Path
    clone: Path
    app: Json
    installation: Json
    http: httpx.Client
    head: str = ""
    _token: str = field(default="", repr=False)

    def git(self, *arguments: str, cwd: Path | None = None, **environment: str) -> str:
        keys = ("GIT_AUTHOR_NAME", "GIT_COMMITTER_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_EMAIL")
        variables = {**os.environ, **dict.fromkeys(keys, "dev@example.com"), "GIT_CONFIG_GLOBAL": os.devnull}
        done = subprocess.run(
            ["git", "-c", "init.defaultBranch=main", *arguments],
            cwd=cwd or self.clone, env=variables | environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def commit(self, files: Mapping[str, str | bytes | None], message: str = "a change") -> str:
        """A commit in the clone; None removes a file."""
        for name, content in files.items():
            file = self.clone / name
            if content is None:
                file.unlink()
            else:
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content.encode() if isinstance(content, str) else content)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", message)
        return self.git("rev-parse", "HEAD")

    def push(self, files: Mapping[str, str | bytes | None], ref: str = "main", message: str = "a change") -> str:
        sha = self.commit(files, message)
        self.git("push", "--quiet", "origin", f"HEAD:refs/heads/{ref}")
        return sha

    def jwt(self, **claims: Any) -> str:
        now = int(self.server.clock())
        return jwt(self.app["pem"], {"iat": now - 60, "exp": now + 540, "iss": str(self.app["id"]), **claims})

    def as_app(self, method: str, path: str, **options: Any) -> httpx.Response:
        return self.call(method, path, token=self.jwt(), **options)

    def new_token(self, **narrowed: Any) -> str:
        path = f"/app/installations/{self.installation['id']}/access_tokens"
        answer = self.as_app("POST", path, **({"json": narrowed} if narrowed else {}))
        assert answer.status_code == 201, answer.text
        return str(answer.json()["token"])

    def call(self, method: str, path: str, *, token: str | None = None, **options: Any) -> httpx.Response:
        """A call to the API, by default with an installation token; an empty token means none."""
        if token is None:
            self._token = self._token or self.new_token()
            token = self._token
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return self.http.request(method, path, headers={**headers, **options.pop("headers", {})}, **options)

    def repo(self, method: str, path: str, **options: Any) -> httpx.Response:
        """A call about this repository."""
        return self.call(method, f"/repos/{self.full_name}{path}", **options)

    def check_run(self, sha: str, name: str = "descent/demo", **more: Any) -> Json:
        answer = self.repo("POST", "/check-runs", json={"name": name, "head_sha": sha, **more})
        assert answer.status_code == 201, answer.text
        return answer.json()


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root, clock = tmp_path_factory.mktemp("github"), Clock()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        app = create_app(root, url=url, control_token="the-control-token", clock=clock)
        serving = uvicorn.Server(config(app))
        thread = threading.Thread(target=lambda: asyncio.run(serving.serve(sockets=[listening])))
        thread.start()
        with Control(url, "the-control-token") as control:
            yield Server(url, control, clock, app.state.hub)
        serving.should_exit = True
        thread.join()


@contextlib.contextmanager
def receiving() -> Iterator[Receiver]:
    made = Receiver()
    thread = threading.Thread(target=made.server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield made
    made.server.shutdown()
    made.server.server_close()
    thread.join()


@contextlib.contextmanager
def placed(server: Server, directory: Path) -> Iterator[Place]:
    control, number = server.control, next(_NUMBERS)
    owner = f"octo{number}"
    with receiving() as receiver, httpx.Client(base_url=f"{server.url}/api/v3", trust_env=False) as http:
        path = control.create_repository(f"{owner}/demo")
        app = control.create_app(f"Descent {number}", receiver.url, webhook_secret="hush", owner=owner)
        installation = control.install(app["id"], owner)
        receiver.wait("installation.created")
        clone = directory / "clone"
        made = Place(server, control, receiver, owner, f"{owner}/demo", path, clone, app, installation, http)
        made.git("clone", "--quiet", str(path), str(clone), cwd=directory)
        made.git("checkout", "--quiet", "-B", "main")
        yield made


@pytest.fixture
def place(server: Server, tmp_path: Path) -> Iterator[Place]:
    """A place of this test's own."""
    with placed(server, tmp_path) as made:
        yield made


@pytest.fixture(scope="module")
def shared(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A place with one commit for all tests of a module that leave it as it was."""
    with placed(server, tmp_path_factory.mktemp("shared")) as made:
        made.head = made.push({"a": "1"})
        yield made


@pytest.fixture(autouse=True)
def judged(server: Server) -> Iterator[None]:
    """Every answer of the API is as GitHub describes it, in every test."""
    before = max([entry["id"] for entry in server.hub.journal.since(0)], default=0)
    yield
    server.control.clear_faults()
    server.control.limits()
    server.clock.ahead_s = 0.0
    if DESCRIPTION.exists():
        assert openapi().log(server.hub.journal.since(before), anonymous=True) == []
