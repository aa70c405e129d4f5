"""The App's manifest with an installation's own addresses in it. Pure, but for reading the file that ships with us.

Source: https://docs.github.com/apps/sharing-github-apps/registering-a-github-app-from-a-manifest
"""

from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import yaml

FILE = Path(__file__).parent / "templates" / "app.yml"  # a link to app.yml of the repository; a wheel has a copy
PLACEHOLDER = "https://descent.example"
NOWHERE = "https://descent.invalid/webhook"
"""Never resolves (RFC 2606). An inactive webhook would have no deliveries at all, so none in the log either."""
NAME_CHARS = 34
"""GitHub takes no longer names of Apps."""


def template() -> dict[str, Any]:
    """The manifest as it ships."""
    loaded: dict[str, Any] = yaml.safe_load(FILE.read_text())
    return loaded


def filled(manifest: dict[str, Any], base_url: str, *, reachable: bool, name: str = "") -> dict[str, Any]:
    """The manifest for one installation.

    Args:
        manifest: as it ships.
        base_url: where people reach the dashboard.
        reachable: GitHub can reach it too; else its deliveries go nowhere, and are fetched from its log of them.
        name: of the App, unique on GitHub; it may be changed there.
    """
    made: dict[str, Any] = _replaced(manifest, base_url.rstrip("/"))
    if not reachable:
        made["hook_attributes"] = {"url": NOWHERE, "active": True}
    if name:
        made["name"] = name[:NAME_CHARS]
    return made


def _replaced(value: Any, base_url: str) -> Any:
    if isinstance(value, dict):
        return {key: _replaced(each, base_url) for key, each in value.items()}
    if isinstance(value, list):
        return [_replaced(each, base_url) for each in value]
    return value.replace(PLACEHOLDER, base_url) if isinstance(value, str) else value


def creation_url(github_url: str, organization: str, state: str) -> str:
    """Where the manifest is posted: for an organization, or for the person's own account."""
    owner = f"/organizations/{quote(organization, safe='')}" if organization else ""
    return f"{github_url}{owner}/settings/apps/new?{urlencode({'state': state})}"
