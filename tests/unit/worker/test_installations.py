"""What comes back with an installation: its repositories, and what could not be delivered meanwhile."""

import asyncio
import time
from dataclasses import replace
from typing import Any

import pytest

from ci_bot.decide import Nothing
from ci_bot.events import InstallationChanged, RepositoriesChanged
from ci_bot.events.kinds import InstalledRepository, Sender
from ci_bot.records import CheckRun, Repository
from ci_bot.store import check_runs, repositories
from ci_bot.store.deliveries import Delivery
from ci_bot.worker.inquiry import Overtaken
from tests.unit.test_events import payload
from tests.unit.worker.test_late import Desk, desk

__all__ = ["desk"]

DIGITS = Repository(7, 11, "octo/digits", "main")
INSTALLED = {"id": 7, "full_name": "octo/digits", "private": True}
UNSUSPENDED = ("installation", payload(action="unsuspend"))
CREATED = ("installation", payload(action="created", repositories=[INSTALLED]))
CREATED_ANEW = (
    "installation",
    payload(action="created", repositories=[INSTALLED]) | {"installation": {"id": 12}},
)
ADDED = ("installation_repositories", payload(action="added", repositories_added=[INSTALLED], repositories_removed=[]))
MORE_ALLOWED = ("installation", payload(action="new_permissions_accepted"))
BACK = [UNSUSPENDED, CREATED, CREATED_ANEW, ADDED]


def gone(desk: Desk, *, check_run_given_up: bool = True) -> None:
    """A repository that was removed with an end not yet delivered."""
    end = CheckRun(
        name="descent/digits",
        head_sha="a" * 40,
        status="completed",
        conclusion="cancelled",
        title="Cancelled",
        summary="s",
    )

    def story(connection: Any) -> None:
        repositories.remember(connection, DIGITS)
        row = check_runs.want(connection, end, repository_id=7)
        check_runs.failed(connection, row.id, time.time() + 600)
        if check_run_given_up:
            repositories.removed(connection, 7, 1.0)
            check_runs.undeliverable(connection, row.id, "gone")

    asyncio.run(desk.books.write(story))


def due(desk: Desk) -> list[str]:
    found = asyncio.run(desk.books.read(lambda c: check_runs.due(c, time.time())))
    return [row.wanted.title for row in found]


def present(desk: Desk) -> list[Repository]:
    return asyncio.run(desk.books.read(repositories.present))


@pytest.mark.parametrize("event", BACK, ids=["unsuspend", "created", "created anew", "added"])
def test_a_repository_is_back_with_its_installation_and_gets_what_it_lacks(desk: Desk, event: Any) -> None:
    gone(desk)
    assert due(desk) == []
    assert "1 repositories are there again" in desk.receive(*event)
    assert present(desk) == [replace(DIGITS, installation_id=event[1]["installation"]["id"])]
    assert due(desk) == ["Cancelled"]


def test_what_waited_for_a_permission_is_delivered_when_it_was_granted(desk: Desk) -> None:
    gone(desk, check_run_given_up=False)
    assert due(desk) == []
    desk.receive(*MORE_ALLOWED)
    assert due(desk) == ["Cancelled"]


@pytest.mark.parametrize("event", BACK)
def test_what_github_does_not_list_by_now_does_not_come_back(desk: Desk, event: Any) -> None:
    gone(desk)
    desk.github.installed = ()
    desk.receive(*event)
    assert (present(desk), due(desk)) == ([], [])


def test_an_installation_that_is_suspended_again_brings_nothing_back_until_that_ends(desk: Desk) -> None:
    gone(desk)
    desk.github.suspended = True
    assert "suspended" in desk.receive(*UNSUSPENDED)
    assert present(desk) == []
    desk.github.suspended = False
    desk.__post_init__()  # the next worker does not wait
    assert "there again" in desk.again(desk.received)
    assert present(desk) == [DIGITS]


def test_an_installation_on_repositories_that_are_new_to_us_asks_github_nothing(desk: Desk) -> None:
    for event in (CREATED, ADDED):
        desk.receive(*event)
    assert desk.github.reads == []


def test_a_removal_asks_for_nothing_to_come_back(desk: Desk) -> None:
    gone(desk, check_run_given_up=False)
    desk.github.installed = None
    desk.receive("installation", payload(action="deleted", repositories=[INSTALLED]))
    assert present(desk) == []


@pytest.mark.parametrize("age_s", [1, 60])
def test_a_list_that_lags_behind_the_webhook_is_asked_for_again(desk: Desk, age_s: float) -> None:
    gone(desk)
    desk.github.installed = (8,)
    person, installed = Sender("mona", "User", 1), (InstalledRepository(7, "octo/digits", True),)
    for event in (
        RepositoriesChanged(11, installed, (), person),
        InstallationChanged("created", 11, "octo", False, installed, person),
    ):
        delivery = Delivery(1, "guid", "x", b"", time.time() - age_s, "webhook")
        deciding = desk.intake.inquiry.decide(delivery, event)
        if age_s == 1:
            with pytest.raises(Overtaken):
                asyncio.run(deciding)
        else:
            assert asyncio.run(deciding) == [Nothing("the installation changed")]
