"""Set-up as a person walks through it: one form, and a way back from every mistake."""

from collections.abc import Callable

import pytest

from tests.integration.web.conftest import APP, Site


def test_the_form_asks_for_owner_and_name_and_then_leads_to_github(serve: Callable[..., Site]) -> None:
    site = serve(github_url="https://github.example")
    with site.opened() as client:
        form = client.get("/setup").text
        assert form.count("<form") == 1
        assert "github.example" not in form
        ready = client.get("/setup", params={"organization": "octo-org", "name": "Ours"}).text
    assert 'action="https://github.example/organizations/octo-org/settings/apps/new?state=' in ready
    assert "Create Ours on GitHub" in ready
    assert 'href="/setup?change=1&amp;name=Ours&amp;organization=octo-org"' in ready


def test_without_an_organization_it_is_the_persons_own(serve: Callable[..., Site]) -> None:
    with serve(github_url="https://github.example").opened() as client:
        ready = client.get("/setup", params={"organization": "", "name": "Ours"}).text
    assert 'action="https://github.example/settings/apps/new?state=' in ready


def test_what_was_written_is_there_again_to_be_changed(serve: Callable[..., Site]) -> None:
    with serve().opened() as client:
        form = client.get("/setup", params={"organization": "octo-org", "name": "Ours", "change": "1"}).text
    assert 'value="octo-org"' in form
    assert 'value="Ours"' in form
    assert "Continue" in form


@pytest.mark.parametrize("organization", ["octo org", "../x", "-octo", "a" * 60])
def test_a_name_that_can_not_be_an_organizations_is_asked_for_again(
    serve: Callable[..., Site], organization: str
) -> None:
    with serve().opened() as client:
        answer = client.get("/setup", params={"organization": organization, "name": "Ours"})
    assert answer.status_code == 400
    assert "letters, digits and hyphens" in answer.text
    assert f'value="{organization}"' in answer.text
    assert "Continue" in answer.text


def test_once_there_is_an_app_it_says_so_and_what_to_do(serve: Callable[..., Site]) -> None:
    site = serve(environment_credentials=APP, github_url="https://github.example")
    with site.opened() as client:
        for address in ("/setup", "/setup/created?code=x&state=y"):
            answer = client.get(address)
            assert answer.status_code == 404
            assert "<h1>This Descent has a GitHub App</h1>" in answer.text
            assert 'href="https://github.example/apps/descent/installations/new"' in answer.text
            assert "remove GITHUB_APP_ID from the environment" in answer.text


def test_a_way_back_from_github_that_was_not_begun_here_leads_to_set_up(serve: Callable[..., Site]) -> None:
    with serve().opened() as client:
        answer = client.get("/setup/created?code=x&state=y")
    assert answer.status_code == 400
    assert "<h1>Begin the set-up again</h1>" in answer.text
    assert 'href="/setup"' in answer.text
