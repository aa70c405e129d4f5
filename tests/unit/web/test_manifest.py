"""The App's manifest, filled in."""

import json

from ci_bot.web.manifest import PLACEHOLDER, creation_url, filled, template


def test_every_address_is_the_installations_own() -> None:
    made = filled(template(), "https://ci.example.org/", reachable=True, name="Mine")
    assert PLACEHOLDER not in json.dumps(made)
    assert made["hook_attributes"] == {"url": "https://ci.example.org/webhook", "active": True}
    assert made["redirect_url"] == "https://ci.example.org/setup/created"
    assert made["callback_urls"] == ["https://ci.example.org/login/callback"]
    assert made["name"] == "Mine"


def test_without_a_public_address_the_webhook_is_off() -> None:
    hook = filled(template(), "http://127.0.0.1:8000", reachable=False)["hook_attributes"]
    assert hook == {"url": "https://descent.invalid/webhook", "active": True}


def test_names_are_as_long_as_github_takes_them() -> None:
    assert len(filled(template(), "http://x", reachable=True, name="n" * 50)["name"]) == 34


def test_the_form_goes_to_the_person_or_to_the_organization() -> None:
    assert creation_url("https://github.com", "", "s t") == "https://github.com/settings/apps/new?state=s+t"
    assert creation_url("https://g", "a/b", "s") == "https://g/organizations/a%2Fb/settings/apps/new?state=s"
