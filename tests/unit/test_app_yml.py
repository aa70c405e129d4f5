"""The App manifest asks for exactly what the code uses, in GitHub's words."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from ci_bot.events.parse import READERS
from ci_bot.github.tokens import CHECKS, LIST, READ

ROOT = Path(__file__).parents[2]
MANIFEST: dict[str, Any] = yaml.safe_load((ROOT / "app.yml").read_text())
DESCRIPTION = ROOT.parent / "shared" / "github" / "openapi.json"
UNASKED = {"ping", "installation", "installation_repositories"}  # come to every App


def test_it_subscribes_to_the_events_that_are_read_and_no_others() -> None:
    assert set(MANIFEST["default_events"]) == set(READERS) - UNASKED


def test_it_asks_for_the_permissions_that_tokens_and_events_need_and_no_others() -> None:
    for_events = {("merge_queues", "read")}
    assert set(MANIFEST["default_permissions"].items()) == READ | CHECKS | LIST | for_events


def test_its_permissions_are_in_githubs_words() -> None:
    if not DESCRIPTION.exists():
        pytest.skip(f"GitHub's API description is not at {DESCRIPTION}")
    known = json.loads(DESCRIPTION.read_text())["components"]["schemas"]["app-permissions"]["properties"]
    for name, level in MANIFEST["default_permissions"].items():
        assert level in known[name]["enum"]


def test_it_is_private_and_every_address_is_to_be_filled_in() -> None:
    assert MANIFEST["public"] is False
    addresses = [MANIFEST["url"], MANIFEST["hook_attributes"]["url"], MANIFEST["redirect_url"], MANIFEST["setup_url"]]
    assert all(a.startswith("https://descent.example") for a in addresses + MANIFEST["callback_urls"])
