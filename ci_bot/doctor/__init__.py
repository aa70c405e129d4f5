"""`descent doctor`: looks at every part of the set-up, and says what to do about what is wrong.

It repairs nothing; like web and worker it makes DATA_DIR where that is missing, and brings the database up to date.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from urllib.parse import urlsplit

from ci_bot.doctor import cluster, database, host, hub
from ci_bot.doctor.findings import Finding, failed, line, ok, problem, told
from ci_bot.settings import Settings, SettingsError

ADVICE = {
    "disk": "set DATA_DIR to a directory that this user can make and write to",
    "database": "is it at DATABASE_URL, or where that is empty in DATA_DIR, and may this user write to it?",
}
"""What to do where an examination could not even be made."""
Check = Callable[[], Awaitable[list[Finding]]]


async def examine(environ: Mapping[str, str]) -> int:
    """Print a line for each finding; 0 when none of them is a problem, else 1."""
    try:
        settings = Settings.from_env(environ)
    except SettingsError as error:
        for text in str(error).splitlines():
            print(line(problem("settings", text, "see docs/settings.md")))
        return 1
    hidden = secrets(settings)
    found = [ok("settings", "the environment can be read")]
    print(line(found[0]))
    for what, check in checks(settings, environ).items():
        for finding in await _examined(what, check):
            found.append(finding)
            print(line(finding, hidden), flush=True)
    return 1 if failed(found) else 0


def checks(settings: Settings, environ: Mapping[str, str]) -> dict[str, Check]:
    """What is looked at, in order."""
    return {
        "data dir": lambda: asyncio.to_thread(host.data_dir, settings),
        "disk": lambda: asyncio.to_thread(host.disk, settings),
        "database": lambda: asyncio.to_thread(database.database, settings),
        "machines": lambda: asyncio.to_thread(host.machine_types, settings),
        "programs": lambda: asyncio.to_thread(host.programs),
        "isolation": lambda: asyncio.to_thread(host.isolation, settings, environ),
        "ray": lambda: cluster.ray(settings, environ),
        "github": lambda: hub.github(settings),
    }


async def _examined(what: str, check: Check) -> list[Finding]:
    try:
        return await check()
    except Exception as error:  # whatever a database driver or a file system raises is a finding, and the rest goes on
        return [problem(what, told(error), ADVICE.get(what, ""))]


def secrets(settings: Settings) -> tuple[str, ...]:
    """Values that no line may show."""
    known = [settings.metrics_token, urlsplit(settings.database_url).password or ""]
    credentials = settings.environment_credentials
    if credentials:
        known += [credentials.private_key, credentials.client_secret, *credentials.webhook_secrets]
    return tuple(value for value in known if value)
