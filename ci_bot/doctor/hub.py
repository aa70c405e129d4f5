"""GitHub: the App's credentials, permissions, installations, webhook and clock, as GitHub tells them."""

import time
from email.utils import parsedate_to_datetime
from typing import Any

from ci_bot.doctor import judge
from ci_bot.doctor.findings import Finding, ok, problem, told, warning
from ci_bot.github import GitHub, GitHubError, Installation
from ci_bot.github.transport import open_http
from ci_bot.settings import AppCredentials, Settings
from ci_bot.web.manifest import template

LOG_H = 6.0
MAX_INSTALLATIONS = 20


class Heard:
    """What the last answer's headers said, and how far our clock was off."""

    def __init__(self) -> None:
        self.headers: dict[str, str] = {}
        self.skew: Finding | None = None

    async def hear(self, response: Any) -> None:
        """Take note of an answer; httpx calls this with each."""
        self.headers = {name.lower(): value for name, value in response.headers.items()}
        if "date" in self.headers:
            self.skew = judge.skew(time.time(), parsedate_to_datetime(self.headers["date"]).timestamp())


async def github(settings: Settings) -> list[Finding]:
    """Everything that GitHub can tell the App about itself."""
    try:
        credentials = settings.credentials()
    except (ValueError, KeyError, TypeError, OSError) as error:
        text = f"{settings.data_dir / 'app.json'} can't be read: {told(error)}"
        return [problem("github", text, "restore it, or remove it and open /setup again")]
    if credentials is None:
        return [problem("github", "there is no GitHub App yet", "run `descent up` and open /setup on the dashboard")]
    heard = Heard()
    found: list[Finding] = []
    try:
        await _ask(settings, credentials, heard, found)
    except GitHubError as error:
        found.append(problem("github", told(error), _advice(settings, heard)))
    return [*found, heard.skew] if heard.skew else found


def _advice(settings: Settings, heard: Heard) -> str:
    if not heard.headers:
        return f"can this host reach {settings.github_api_url}?"
    return "are GITHUB_APP_ID and the private key of one App, and is that App on this GitHub?"


async def _ask(settings: Settings, credentials: AppCredentials, heard: Heard, found: list[Finding]) -> None:
    http = open_http()
    http.event_hooks = {"response": [heard.hear]}
    client = GitHub(credentials, api_url=settings.github_api_url, url=settings.github_url, http=http)
    async with client:
        app = await client.app()
        found.append(ok("github", f"the App is {app.slug or app.name} ({app.html_url}), number {app.id}"))
        manifest = wanted()
        found += judge.permissions(app, manifest)
        installed = await client.installations()
        found += judge.installations(installed, app, manifest)
        for each in [each for each in installed if not each.suspended][:MAX_INSTALLATIONS]:
            found += await _look(client, each, heard)
        log = await client.deliveries(time.time() - LOG_H * 3600)
        found.append(judge.deliveries(log, public_url=settings.public_url, hours=LOG_H))


async def _look(client: GitHub, installation: Installation, heard: Heard) -> list[Finding]:
    """An installation's repositories, asked with a token of its own."""
    try:
        repositories = await client.installation_repositories(installation.id)
    except GitHubError as error:
        return [problem("installation", f"{installation.account}: {told(error)}")]
    number = "1 repository" if len(repositories) == 1 else f"{len(repositories)} repositories"
    count = f"{installation.account} gives access to {number}"
    found = [ok("installation", count) if repositories else warning("installation", count, "choose some on GitHub")]
    limit = judge.rate_limit(installation.account, heard.headers)
    return [*found, limit] if limit else found


def wanted() -> judge.Manifest:
    """What app.yml asks for."""
    read = template()
    return judge.Manifest(dict(read["default_permissions"]), tuple(read["default_events"]))
