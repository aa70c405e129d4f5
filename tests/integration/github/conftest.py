"""The local GitHub as a process of its own, with one repository, one App and one installation."""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx2 as httpx
import pytest

from ci_bot.github import GitHub
from ci_bot.records import Repository
from tests.openapi import DESCRIPTION, openapi

PERMISSIONS = {"checks": "write", "contents": "read", "metadata": "read", "pull_requests": "read"}
EVENTS = ["push", "pull_request", "check_run", "check_suite"]


@dataclass(frozen=True)
class Credentials:
    app_id: int
    private_key: str = field(repr=False)
    client_id: str
    client_secret: str = field(repr=False)


@dataclass(frozen=True)
class Local:
    """A running local GitHub, and what was made in it."""

    url: str
    api_url: str
    control_token: str
    root: Path
    control: httpx.Client

    def command(self, command: str, /, **said: Any) -> Any:
        return self._control("POST", command, said)

    def inspect(self, what: str, **query: str) -> Any:
        return self._control("GET", f"{what}?{urlencode(query)}", None)

    def _control(self, method: str, name: str, said: Any) -> Any:
        headers = {"authorization": f"Bearer {self.control_token}"}
        answer = self.control.request(method, f"{self.url}/_local/{name}", json=said, headers=headers)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def client(self, credentials: Credentials | None, **options: Any) -> GitHub:
        # Plain HTTP: reading the certificates of the world would take most of a test's time.
        http = httpx.AsyncClient(verify=False, timeout=30.0)
        return GitHub(credentials, api_url=self.api_url, url=self.url, http=http, **options)


@pytest.fixture(scope="package")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    root = tmp_path_factory.mktemp("github")
    argv = [sys.executable, "-m", "ci_bot.local_github", "--root", str(root)]
    with httpx.Client(verify=False) as control, subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            said = json.loads(process.stdout.readline())
            local = Local(said["url"], said["api_url"], said["control_token"], root, control)
            yield local
            if DESCRIPTION.exists():
                assert openapi().log(local.inspect("requests")) == []
        finally:
            process.terminate()


@pytest.fixture(scope="package")
def credentials(local: Local) -> Credentials:
    made = local.command(
        "app", name="Descent", permissions=PERMISSIONS, events=EVENTS, callback_urls=["http://127.0.0.1/back"]
    )
    return Credentials(made["id"], made["pem"], made["client_id"], made["client_secret"])


@pytest.fixture(scope="package")
def repo(local: Local, credentials: Credentials) -> Repository:
    made = local.command("repository", full_name="octo/digits", private=True)
    installed = local.command("install", app_id=credentials.app_id, account="octo")
    return Repository(made["id"], installed["id"], "octo/digits", "main", private=True)


@pytest.fixture(scope="package")
def sha(local: Local, repo: Repository, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A commit with a few files, put there by a real push."""
    work = tmp_path_factory.mktemp("work")
    (work / "config.yaml").write_text("version: 1\n")
    (work / ".descent").mkdir()
    (work / ".descent" / "a b?#{c}.yaml").write_bytes(b"\x00odd\xff")
    (work / "large.bin").write_bytes(b"x" * 1_100_000)
    git = ["git", "-C", str(work), "-c", "user.name=Mona", "-c", "user.email=mona@example.com"]
    steps = [
        ["init", "-q", "-b", "main"],
        ["add", "."],
        ["commit", "-q", "-m", "Train longer\n\nwhy not"],
        ["checkout", "-q", "-b", "ahead"],
        ["commit", "-q", "--allow-empty", "-m", "More"],
        ["push", "-q", str(local.root / "octo" / "digits.git"), "main", "main:feature/x", "ahead"],
    ]
    for step in steps:
        subprocess.run([*git, *step], check=True, capture_output=True)
    return subprocess.run([*git, "rev-parse", "main"], check=True, capture_output=True, text=True).stdout.strip()
