"""The environment, read once: every setting with its unit, default and meaning."""

import ipaddress
import json
import re
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit


class SettingsError(Exception):
    """The environment can't be used as it is; the text names every problem and what to write."""


@dataclass(frozen=True)
class AppCredentials:
    """What GitHub gave us when the App was created; from the environment, else from DATA_DIR/app.json."""

    app_id: int
    private_key: str = field(repr=False)
    webhook_secrets: tuple[str, ...] = field(repr=False)
    client_id: str = ""
    client_secret: str = field(default="", repr=False)
    slug: str = ""


@dataclass(frozen=True)
class Setting:
    """One row of the table in docs/settings.md."""

    name: str
    default: str
    unit: str
    meaning: str


TABLE: tuple[Setting, ...] = (
    Setting("GITHUB_APP_ID", "", "", "The App's number. Set-up writes it, with the next five, to `DATA_DIR/app.json`."),
    Setting("GITHUB_PRIVATE_KEY", "", "PEM", "The App's private key; `\\n` may stand for line ends."),
    Setting("GITHUB_PRIVATE_KEY_PATH", "", "path", "A file with the private key, in place of the key itself."),
    Setting("GITHUB_WEBHOOK_SECRET", "", "", "The webhook's secret; several, comma-separated, while it is rotated."),
    Setting("GITHUB_CLIENT_ID", "", "", "The App's OAuth client, for login."),
    Setting("GITHUB_CLIENT_SECRET", "", "", "Its secret."),
    Setting("GITHUB_API_URL", "https://api.github.com", "URL", "GitHub's REST API (GHES: `https://HOST/api/v3`)."),
    Setting("GITHUB_URL", "https://github.com", "URL", "GitHub's pages."),
    Setting("DATABASE_URL", "", "URL", "`postgresql://…`; empty: SQLite in `DATA_DIR`."),
    Setting("DATA_DIR", "~/.descent", "path", "Database, logs, artifacts, keys. One host, or a shared volume."),
    Setting("STORAGE_DIR", "", "path", "Shared file system for `/storage`; empty: each node keeps its own."),
    Setting("MACHINES", "", "path", "`machines.yaml`: what each machine type means; empty: one CPU each."),
    Setting("RAY_ADDRESS", "", "host:port", "The team's Ray cluster; empty: `up` starts a local head."),
    Setting(
        "PUBLIC_URL", "", "URL", "Where GitHub and people reach Descent; empty: a key, printed by `up`, and polling."
    ),
    Setting("HOST", "127.0.0.1", "address", "Where web listens; IPv6 with or without brackets."),
    Setting("PORT", "8000", "", "Where web listens; 0 takes a free one."),
    Setting("ISOLATION", "auto", "", "`auto`, `bubblewrap` or `none`: how commands are enclosed."),
    Setting("MAX_RUNNING", "0", "experiments", "How many run at once; 0: as many as fit."),
    Setting("MAX_RUNNING_PER_REPOSITORY", "0", "experiments", "The same for each repository; 0: no limit."),
    Setting("TIME_LIMIT_S", "86400", "s", "RUNNING time of one attempt where the configuration has no `timeout`."),
    Setting("GRACE_S", "10", "s", "From SIGTERM to SIGKILL."),
    Setting("QUEUE_S", "604800", "s", "How long an experiment may wait for machines."),
    Setting("FENCE_S", "120", "s", "A node that Ray's head does not answer for so long ends its commands."),
    Setting("ALLOW_SHARED_HOSTS", "false", "", "Several nodes of one experiment may share a host."),
    Setting("REQUIRE_CONTAINER", "false", "", "Refuse experiments whose `container` can't be used."),
    Setting("LOG_MAX_BYTES", "1073741824", "bytes", "How much of an attempt's output is kept; then its middle is cut."),
    Setting("LOG_LEVEL", "info", "", "`debug`, `info`, `warning` or `error`."),
    Setting("METRICS_TOKEN", "", "", "Bearer token for `/metrics`; without it, a session of the key is wanted."),
)

MAX_PORT = 65535
ISOLATIONS = ("auto", "bubblewrap", "none")
LOG_LEVELS = ("debug", "info", "warning", "error")
EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - where one listens, and how one gets there


@dataclass(frozen=True)
class Settings:
    """The environment as values; see TABLE for meanings."""

    data_dir: Path
    github_api_url: str = "https://api.github.com"
    github_url: str = "https://github.com"
    database_url: str = ""
    storage_dir: Path | None = None
    machines: Path | None = None
    ray_address: str = ""
    public_url: str = ""
    host: str = "127.0.0.1"
    port: int = 8000
    isolation: str = "auto"
    max_running: int = 0
    max_running_per_repository: int = 0
    time_limit_s: int = 86400
    grace_s: int = 10
    queue_s: int = 604800
    fence_s: int = 120
    allow_shared_hosts: bool = False
    require_container: bool = False
    log_max_bytes: int = 1 << 30
    log_level: str = "info"
    metrics_token: str = field(default="", repr=False)
    environment_credentials: AppCredentials | None = None

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> "Settings":
        """Read every setting.

        Raises:
            SettingsError: with every problem, each naming the variable, what it held and what to write.
        """
        problems: list[str] = []
        values: dict[str, Any] = {}
        for row in TABLE:
            read = READERS.get(row.name)
            if read is None:
                continue
            text = environ.get(row.name, "").strip() or row.default
            try:
                values[row.name.lower()] = read(text)
            except ValueError as error:
                problems.append(f"{row.name}: {error}")
        credentials = _environment_credentials(environ, problems)
        if problems:
            raise SettingsError("\n".join(problems))
        return cls(**values, environment_credentials=credentials)

    @property
    def store_url(self) -> str:
        """The database's address: DATABASE_URL, else SQLite in DATA_DIR."""
        return self.database_url or f"sqlite:///{self.data_dir / 'descent.db'}"

    @property
    def local_url(self) -> str:
        """Where a browser on this host finds the dashboard."""
        return f"http://{url_host(EVERYWHERE.get(self.host, self.host))}:{self.port}"

    @property
    def dashboard_url(self) -> str:
        """Where people find the dashboard."""
        return self.public_url or self.local_url

    def make_data_dir(self) -> None:
        """DATA_DIR is there, ours alone if it was not before.

        Raises:
            SettingsError: it can't be made, or takes no files.
        """
        try:
            self.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
            with tempfile.TemporaryFile(dir=self.data_dir):
                pass
        except OSError as error:
            raise SettingsError(
                f"DATA_DIR: {self.data_dir} takes no files ({error.strerror}); set it to a directory that the user who "
                "runs Descent can make and write to"
            ) from error

    def credentials(self) -> AppCredentials | None:
        """The App's credentials as they are now: set-up may write app.json while we run."""
        if self.environment_credentials:
            return self.environment_credentials
        try:
            written = json.loads((self.data_dir / "app.json").read_text())
        except FileNotFoundError:
            return None
        return AppCredentials(
            app_id=int(written["id"]),
            private_key=written["pem"],
            webhook_secrets=(written["webhook_secret"],),
            client_id=written.get("client_id", ""),
            client_secret=written.get("client_secret", ""),
            slug=written.get("slug", ""),
        )


def url_host(host: str) -> str:
    """An address as it stands in a URL: IPv6 in brackets."""
    return f"[{host}]" if ":" in host else host


def _environment_credentials(environ: Mapping[str, str], problems: list[str]) -> AppCredentials | None:
    app_id = environ.get("GITHUB_APP_ID", "").strip()
    key = environ.get("GITHUB_PRIVATE_KEY", "").replace("\\n", "\n")
    key_path = environ.get("GITHUB_PRIVATE_KEY_PATH", "").strip()
    secrets = tuple(part.strip() for part in environ.get("GITHUB_WEBHOOK_SECRET", "").split(",") if part.strip())
    if not (app_id or key or key_path or secrets):
        return None
    unread = False
    if not key and key_path:
        try:
            key = Path(key_path).expanduser().read_text()
        except OSError as error:
            unread = True
            problems.append(f"GITHUB_PRIVATE_KEY_PATH: {key_path} can't be read ({error.strerror})")
    if not (app_id.isascii() and app_id.isdigit()):
        problems.append(f"GITHUB_APP_ID: expected the App's number, got {app_id!r}")
    if "PRIVATE KEY" not in key and not unread:
        problems.append("GITHUB_PRIVATE_KEY: expected a PEM private key; download one from the App's settings page")
    if not secrets:
        problems.append("GITHUB_WEBHOOK_SECRET: is empty; set the secret of the App's webhook")
    if problems:
        return None
    return AppCredentials(
        app_id=int(app_id),
        private_key=key,
        webhook_secrets=secrets,
        client_id=environ.get("GITHUB_CLIENT_ID", ""),
        client_secret=environ.get("GITHUB_CLIENT_SECRET", ""),
    )


def _number(least: int, most: int | None = None) -> Callable[[str], int]:
    expected = f"of at least {least}" if most is None else f"from {least} to {most}"

    def read(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,15}", text) or int(text) < least or (most is not None and int(text) > most):
            raise ValueError(f"expected a whole number {expected}, got {text!r}")
        return int(text)

    return read


def _one_of(*allowed: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text.lower() not in allowed:
            raise ValueError(f"expected one of {', '.join(allowed)}, got {text!r}")
        return text.lower()

    return read


def _flag(text: str) -> bool:
    if text.lower() in {"1", "true", "yes", "on"}:
        return True
    if text.lower() in {"0", "false", "no", "off"}:
        return False
    raise ValueError(f"expected true or false, got {text!r}")


def _url(text: str) -> str:
    if text and not re.match(r"https?://[^/]", text):
        raise ValueError(f"expected a URL that starts with http:// or https://, got {text!r}")
    return text.rstrip("/")


def _public_url(text: str) -> str:
    """As browsers and GitHub write it: a host, and a port where it is not the scheme's own."""
    url = urlsplit(_url(text))
    if url.path or url.query or url.fragment or url.username:
        raise ValueError(f"expected https:// and a host, with nothing behind it, got {text!r}")
    port = "" if url.port == {"http": 80, "https": 443}.get(url.scheme) or not url.port else f":{url.port}"
    return f"{url.scheme}://{url_host(url.hostname)}{port}" if url.hostname else ""


def _database(text: str) -> str:
    if text and not re.match(r"(postgresql|postgres|sqlite)(\+\w+)?://", text):
        raise ValueError("expected postgresql://… or nothing")  # the text may hold a password
    return text


def _host(text: str) -> str:
    """An address without brackets, written as browsers write it."""
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    try:
        return str(ipaddress.ip_address(bare))
    except ValueError:
        if not re.fullmatch(r"[A-Za-z0-9._-]+", bare):
            raise ValueError(f"expected a host's name or address without a port, got {text!r}") from None
        return bare.lower()


def _ray_address(text: str) -> str:
    host, _, port = text.rpartition(":")
    named = re.fullmatch(r"[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]", host)
    if text and not (named and re.fullmatch(r"[0-9]{1,5}", port) and 0 < int(port) <= MAX_PORT):
        raise ValueError(f"expected the host:port of the cluster's head, such as gpu-1:6379, got {text!r}")
    return text


def _path(text: str) -> Path | None:
    return Path(text).expanduser().absolute() if text else None


READERS: dict[str, Callable[[str], Any]] = {
    "GITHUB_API_URL": _url,
    "GITHUB_URL": _url,
    "DATABASE_URL": _database,
    "DATA_DIR": _path,
    "STORAGE_DIR": _path,
    "MACHINES": _path,
    "RAY_ADDRESS": _ray_address,
    "PUBLIC_URL": _public_url,
    "HOST": _host,
    "PORT": _number(0, MAX_PORT),
    "ISOLATION": _one_of(*ISOLATIONS),
    "MAX_RUNNING": _number(0),
    "MAX_RUNNING_PER_REPOSITORY": _number(0),
    "TIME_LIMIT_S": _number(1),
    "GRACE_S": _number(0),
    "QUEUE_S": _number(1),
    "FENCE_S": _number(1),
    "ALLOW_SHARED_HOSTS": _flag,
    "REQUIRE_CONTAINER": _flag,
    "LOG_MAX_BYTES": _number(65536),
    "LOG_LEVEL": _one_of(*LOG_LEVELS),
    "METRICS_TOKEN": str,
}
