"""Leases, repositories, approvals, quarantine and marks."""

import threading
from dataclasses import replace

import pytest
from sqlalchemy import Engine

from ci_bot.records import Repository
from ci_bot.store import LeaseLost, approvals, begin, lease, marks, quarantine, reading, repositories
from ci_bot.store.approvals import Approval
from ci_bot.store.lease import WORKER_LEASE
from ci_bot.store.quarantine import Quarantined

DIGITS = Repository(2**40, 1, "octo/digits", "main")


def test_a_lease_has_one_holder_until_it_expires(engine: Engine) -> None:
    assert lease.acquire(engine, WORKER_LEASE, "one", now=0.0, ttl_s=10.0) == 1
    assert lease.acquire(engine, WORKER_LEASE, "two", now=9.9, ttl_s=10.0) is None
    assert lease.acquire(engine, WORKER_LEASE, "two", now=10.0, ttl_s=10.0) == 2
    assert lease.acquire(engine, "other", "one", now=10.0, ttl_s=10.0) == 1


def test_a_renewed_lease_lasts_longer_and_keeps_its_epoch(engine: Engine) -> None:
    epoch = lease.acquire(engine, WORKER_LEASE, "one", now=0.0, ttl_s=10.0)
    assert epoch == 1
    assert lease.renew(engine, WORKER_LEASE, "one", epoch, now=8.0, ttl_s=10.0)
    assert lease.acquire(engine, WORKER_LEASE, "two", now=12.0, ttl_s=10.0) is None
    assert lease.renew(engine, WORKER_LEASE, "one", epoch, now=1.0, ttl_s=10.0)
    assert lease.acquire(engine, WORKER_LEASE, "two", now=12.0, ttl_s=10.0) is None, "a clock that went back"
    with begin(engine, epoch):
        pass


def test_who_was_taken_over_can_not_renew(engine: Engine) -> None:
    lease.acquire(engine, WORKER_LEASE, "one", now=0.0, ttl_s=10.0)
    assert lease.acquire(engine, WORKER_LEASE, "two", now=20.0, ttl_s=10.0) == 2
    assert not lease.renew(engine, WORKER_LEASE, "one", 1, now=21.0, ttl_s=10.0)
    assert not lease.release(engine, WORKER_LEASE, "one", 1)


def test_a_holder_that_takes_its_lease_again_writes_under_the_new_epoch_only(engine: Engine) -> None:
    assert lease.acquire(engine, WORKER_LEASE, "one", now=0.0, ttl_s=10.0) == 1
    assert lease.acquire(engine, WORKER_LEASE, "one", now=1.0, ttl_s=10.0) == 2
    assert not lease.renew(engine, WORKER_LEASE, "one", 1, now=2.0, ttl_s=10.0)
    assert lease.renew(engine, WORKER_LEASE, "one", 2, now=2.0, ttl_s=10.0)


def test_a_released_lease_is_free_at_once_and_writes_no_more(engine: Engine) -> None:
    assert lease.acquire(engine, WORKER_LEASE, "one", now=0.0, ttl_s=10.0) == 1
    assert lease.release(engine, WORKER_LEASE, "one", 1)
    with pytest.raises(LeaseLost), begin(engine, 1):
        pytest.fail("the transaction began")
    epoch = lease.acquire(engine, WORKER_LEASE, "two", now=1.0, ttl_s=10.0)
    assert epoch is not None
    assert epoch > 1


def test_of_many_who_want_an_expired_lease_one_gets_it(engine: Engine) -> None:
    lease.acquire(engine, WORKER_LEASE, "one", now=0.0, ttl_s=10.0)
    got: list[int | None] = []
    start = threading.Barrier(4)

    def take(holder: str) -> None:
        start.wait()
        got.append(lease.acquire(engine, WORKER_LEASE, holder, now=20.0, ttl_s=10.0))

    threads = [threading.Thread(target=take, args=[f"worker {number}"]) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got, key=str) == [2, None, None, None]


def test_a_repository_is_what_was_said_of_it_last(engine: Engine) -> None:
    renamed = replace(DIGITS, full_name="octo/numbers", private=False)
    with begin(engine) as connection:
        repositories.remember(connection, DIGITS)
        repositories.remember(connection, renamed)
        assert repositories.get(connection, DIGITS.id) == renamed
        assert repositories.get(connection, 5) is None


def test_a_removed_repository_is_gone_until_it_is_remembered_again(engine: Engine) -> None:
    other = Repository(6, 1, "octo/a", "trunk")
    elsewhere = Repository(7, 2, "elsewhere/b", "main")
    with begin(engine) as connection:
        for one in (DIGITS, other, elsewhere):
            repositories.remember(connection, one)
        assert repositories.by_installation(connection, 1) == [other, DIGITS]
        repositories.removed(connection, other.id, at=3.0)
        assert repositories.get(connection, other.id) is None
        assert repositories.by_installation(connection, 1) == [DIGITS]
        assert repositories.known(connection, {other.id, 99}) == {other.id: other}
        assert repositories.installations(connection) == {DIGITS.id: 1, other.id: 1, elsewhere.id: 2}
        repositories.remember(connection, other)
        assert repositories.present(connection) == [elsewhere, other, DIGITS]


def test_an_approval_is_for_one_commit_and_the_first_one_stays(engine: Engine) -> None:
    given = Approval(DIGITS.id, "a" * 40, "alice", 3.0)
    with begin(engine) as connection:
        assert approvals.approve(connection, given)
        assert not approvals.approve(connection, replace(given, approver="bob"))
        assert approvals.approval(connection, DIGITS.id, "a" * 40) == given
        assert approvals.approval(connection, DIGITS.id, "b" * 40) is None


def test_a_host_stays_in_quarantine_until_it_is_proven_clean(engine: Engine) -> None:
    left = Quarantined("host-c", "pid 4711 is left", 3.0)
    with begin(engine) as connection:
        quarantine.add(connection, left)
        quarantine.add(connection, replace(left, why="later", since=4.0))
        assert quarantine.hosts(connection) == [left]
        assert quarantine.remove(connection, "host-c")
        assert not quarantine.remove(connection, "host-c")
        assert quarantine.hosts(connection) == []


def test_a_mark_has_the_last_value_that_was_put(engine: Engine) -> None:
    with begin(engine) as connection:
        marks.put(connection, "swept", "1")
        marks.put(connection, "swept", "2")
    with reading(engine) as connection:
        assert marks.get(connection, "swept") == "2"
