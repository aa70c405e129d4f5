"""The secrets that web keeps in DATA_DIR: the key that opens the dashboard, and what sessions are signed with."""

import os
import secrets
from pathlib import Path
from urllib.parse import urlencode

from ci_bot.settings import Settings

KEY = "key"
SESSION_SECRET = "session-secret"  # noqa: S105 - a file's name


def kept_secret(data_dir: Path, name: str) -> str:
    """The secret of that name; whoever comes first makes it, and whoever comes at the same time gets the same one."""
    path = data_dir / name
    if not path.exists():
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        part = path.with_name(f"{name}.{os.getpid()}.part")
        part.unlink(missing_ok=True)
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_urlsafe(32))
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(part, path)  # unlike a rename it never takes another one's place
        except FileExistsError:
            pass
        finally:
            part.unlink()
    return path.read_text().strip()


def invitation(settings: Settings, url: str) -> str:
    """The lines that tell a person how to open the dashboard."""
    base = settings.public_url or url
    if settings.credentials() is None:
        query = urlencode({"key": kept_secret(settings.data_dir, KEY)})
        return f"Create your GitHub App at {base}/setup?{query}"
    if settings.public_url:
        return f"{base} (log in with GitHub)"
    return f"{base}/?{urlencode({'key': kept_secret(settings.data_dir, KEY)})}"
