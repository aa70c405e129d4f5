"""What of ours lies where every command can read it: nothing starts like that."""

from collections.abc import Mapping
from pathlib import Path

from ci_bot.settings import Settings, SettingsError
from launcher import host_files

ADVICE = "keep it elsewhere, or set ISOLATION=none if you trust every repository with this machine"


def exposed(settings: Settings, environ: Mapping[str, str]) -> dict[str, str]:
    """A sentence for each, by the variable that says where it is; none where nobody asked for isolation."""
    if settings.isolation == "none":
        return {}
    places = {"DATA_DIR": settings.data_dir, **host_files.own(environ)}
    if settings.storage_dir:
        places["STORAGE_DIR"] = settings.storage_dir
    if key := environ.get("GITHUB_PRIVATE_KEY_PATH", "").strip():
        places["GITHUB_PRIVATE_KEY_PATH"] = Path(key).expanduser()
    return host_files.exposed(places)


def require_hidden(settings: Settings, environ: Mapping[str, str]) -> None:
    """Refuse to start where commands could read what is ours.

    Raises:
        SettingsError: names every such place, and what to write.
    """
    if found := exposed(settings, environ):
        raise SettingsError("\n".join(f"{name}: {why}; {ADVICE}" for name, why in found.items()))
