"""The small parts: tables that remember, limits, faults, the list of operations."""

import pytest

from ci_bot.local_github.calls import Refusal
from ci_bot.local_github.faults import Faults, Rule
from ci_bot.local_github.limits import Bounds, Limits
from ci_bot.local_github.operations import OPERATIONS, RATE_LIMIT, match
from ci_bot.local_github.state import Table
from tests.openapi import openapi


def test_a_table_remembers_what_was() -> None:
    now = [10.0]
    table: Table[str, int] = Table(lambda: now[0])
    table.put("a", 1)
    now[0] = 20.0
    table.put("a", 2)
    table.put("b", 3)
    now[0] = 30.0
    table.put("a", None)
    assert (table.get("a"), table.get("a", 25.0), table.get("a", 15.0), table.get("a", 5.0)) == (None, 2, 1, None)
    assert (list(table.values()), list(table.values(20.0)), list(table.values(10.0))) == ([3], [2, 3], [1])


def test_a_hundred_requests_at_once_are_enough() -> None:
    limits = Limits(Bounds(concurrent=2))
    for _ in range(2):
        limits.enter("k")
    limits.enter("other")
    with pytest.raises(Refusal, match="secondary"):
        limits.enter("k")
    limits.leave("k")
    limits.enter("k")


def test_an_hours_worth_of_content_is_enough() -> None:
    limits = Limits(Bounds(content_per_hour=3))
    for minute in range(3):
        limits.admit("k", "POST", True, minute * 61.0)
    with pytest.raises(Refusal) as refused:
        limits.admit("k", "POST", True, 200.0)
    assert int(refused.value.headers["Retry-After"]) == 3401
    limits.admit("k", "POST", True, 3601.0)


def test_nobody_gets_sixty_an_hour_and_a_free_answer_costs_nothing() -> None:
    limits = Limits()
    limits.admit("anonymous None", "GET", False, 0.0)
    limits.refund("anonymous None", 0.0)
    assert limits.overview("anonymous None", 0.0)["remaining"] == 60
    assert limits.overview("installation 1", 0.0) == {"limit": 5000, "used": 0, "remaining": 5000, "reset": 3601}


def test_a_rule_skips_then_hits_then_lets_pass() -> None:
    faults = Faults()
    faults.add(Rule("status", method="P*", path="/repos/*", count=2, skip=1))
    hits = [len(faults.for_call("POST", "/repos/x", "y")) for _ in range(5)]
    assert hits == [0, 1, 1, 0, 0]
    assert faults.for_call("GET", "/repos/x", "y") == []
    assert faults.listing()[0]["met"] == 5


def test_a_rule_for_webhooks_names_the_event_with_or_without_its_action() -> None:
    faults = Faults()
    faults.add(Rule("lose", target="webhook", event="check_run.*", count=None))
    faults.add(Rule("double", target="webhook", event="push"))
    assert [rule.kind for rule in faults.for_event("check_run", "created")] == ["lose"]
    assert [rule.kind for rule in faults.for_event("push", None)] == ["double"]
    assert faults.for_event("pull_request", "opened") == []


@pytest.mark.parametrize(
    ("kind", "target"), [("earthquake", "api"), ("lose", "api"), ("drop", "webhook"), ("drop", "x")]
)
def test_a_rule_that_could_never_hit_is_refused(kind: str, target: str) -> None:
    with pytest.raises(ValueError, match="must be"):
        Rule(kind, target=target)


@pytest.mark.parametrize(
    ("path", "operation", "parameters"),
    [
        ("/repos/o/r/commits/a/b/check-runs", "checks/list-for-ref", {"ref": "a/b"}),
        ("/repos/o/r/commits/main", "repos/get-commit", {"ref": "main"}),
        ("/repos/o/r/commits/abc/pulls", "repos/list-pull-requests-associated-with-commit", {"commit_sha": "abc"}),
        ("/repos/o/r/contents", "repos/get-content", {"path": ""}),
        ("/repos/o/r/contents/a/b", "repos/get-content", {"path": "a/b"}),
        ("/repos/o/r/git/ref/heads/a/b", "git/get-ref", {"ref": "heads/a/b"}),
        ("/repos/o/r/compare/a/b...c/d", "repos/compare-commits-with-basehead", {"basehead": "a/b...c/d"}),
        ("/repos/o/r/tarball", "repos/download-tarball-archive", {"ref": ""}),
    ],
)
def test_an_address_leads_to_its_operation(path: str, operation: str, parameters: dict[str, str]) -> None:
    found = match("GET", path)
    assert found is not None
    assert found[0].id == operation
    assert found[1].items() >= parameters.items()
    assert match("PUT", path) is None


def test_every_operation_of_githubs_description_is_there_at_its_address() -> None:
    ours = {operation.id: (operation.method, operation.path) for operation in OPERATIONS}
    assert ours | {RATE_LIMIT: ("GET", "/rate_limit")} == openapi().operations
