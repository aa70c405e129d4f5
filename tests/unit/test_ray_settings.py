"""What the doctor says of the settings that a node's Ray was started with."""

from dataclasses import replace

import pytest

from ci_bot.doctor.findings import Finding, Level, line
from ci_bot.doctor.ray_settings import AUTHENTICATION, CONSEQUENCES, node, nodes
from launcher.node_types import NodeFacts
from launcher.ray_environment import HEAD, HEAD_STORE, NODE, NODE_WITH_REDIS, RECONNECT, started_with

FACTS = NodeFacts("host-b", "10.0.0.2", "i", "bubblewrap", "", 1, 1 << 40, 1 << 35)
AS_TOLD = replace(FACTS, ray=AUTHENTICATION | NODE)
HEAD_AS_TOLD = replace(FACTS, host="host-a", ray=AUTHENTICATION | NODE | HEAD)


def judged(facts: NodeFacts, *, is_head: bool = False, with_redis: bool | None = False) -> list[Finding]:
    return node(facts, is_head=is_head, with_redis=with_redis, fence_s=120)


def with_setting(name: str, value: str | None, facts: NodeFacts = HEAD_AS_TOLD) -> NodeFacts:
    kept = {each: said for each, said in facts.ray.items() if each != name}
    return replace(facts, ray=kept if value is None else kept | {name: value})


def test_a_node_that_was_started_as_recommended_is_fine() -> None:
    for facts, is_head in ((AS_TOLD, False), (HEAD_AS_TOLD, True)):
        assert [finding.level for finding in judged(facts, is_head=is_head)] == [Level.OK]


def test_every_recommended_setting_is_looked_at() -> None:
    assert {*HEAD, *NODE} - {RECONNECT} == {name for names in CONSEQUENCES.values() for name in names} - {
        "RAY_AUTH_MODE"
    }


@pytest.mark.parametrize("name", sorted({"RAY_AUTH_MODE", *HEAD, *NODE}))
@pytest.mark.parametrize("value", [None, "99999", "nonsense"])
def test_a_setting_that_is_missing_or_wrong_is_told_with_the_line_to_change(name: str, value: str | None) -> None:
    (finding,) = judged(with_setting(name, value), is_head=True)
    wanted = (AUTHENTICATION | NODE | HEAD)[name]
    assert finding.level is Level.WARNING
    assert f"{name} is {value or 'not set'}" in finding.text
    assert f"start its Ray with {name}={wanted};" in finding.todo


def test_a_smaller_number_than_recommended_is_fine() -> None:
    facts = with_setting("RAY_health_check_failure_threshold", "2", with_setting(RECONNECT, "10"))
    assert [finding.level for finding in judged(facts, is_head=True)] == [Level.OK]


def test_the_settings_of_the_head_are_asked_of_its_node_only() -> None:
    assert [finding.level for finding in judged(AS_TOLD)] == [Level.OK]
    (finding,) = judged(AS_TOLD, is_head=True)
    assert all(f"{name}={value}" in finding.todo for name, value in HEAD.items())


def test_a_node_that_was_started_with_nothing_is_told_everything_and_no_line_is_cut() -> None:
    found = judged(FACTS, is_head=True)
    assert len(found) == len(CONSEQUENCES) + 1
    assert all(line(finding).endswith("docs/operating.md says why") for finding in found)


@pytest.mark.parametrize(
    ("value", "with_redis", "wanted"),
    [
        ("20", False, ""),
        ("60", False, "20"),
        ("20", True, "120"),
        (None, True, "120"),
        ("120", True, ""),
        ("600", True, ""),
        ("60", None, ""),
    ],
)
def test_how_long_a_node_waits_for_the_head_depends_on_redis(
    value: str | None, with_redis: bool | None, wanted: str
) -> None:
    (finding,) = judged(with_setting(RECONNECT, value, AS_TOLD), with_redis=with_redis)
    assert (f"{RECONNECT}={wanted};" in finding.todo) if wanted else finding.level is Level.OK


def test_what_the_heads_node_says_of_redis_holds_for_all() -> None:
    head = replace(HEAD_AS_TOLD, ray=HEAD_AS_TOLD.ray | NODE_WITH_REDIS | {HEAD_STORE: "set"})
    assert [finding.level for finding in nodes([(AS_TOLD, False), (head, True)], 120)] == [Level.WARNING, Level.OK]
    assert [finding.level for finding in nodes([(AS_TOLD, False), (HEAD_AS_TOLD, True)], 120)] == [Level.OK] * 2
    assert [finding.level for finding in nodes([(AS_TOLD, False)], 120)] == [Level.OK]


def test_what_commands_inherit_of_the_service_is_told_too() -> None:
    found = judged(replace(AS_TOLD, niceness=5, oom_score_adj=300))
    assert [("Nice=0" in each.todo, "OOMScoreAdjust=0" in each.todo) for each in found] == [
        (True, False),
        (False, True),
    ]


def test_niceness_that_ray_adds_is_told_once() -> None:
    facts = replace(with_setting("RAY_worker_niceness", None, AS_TOLD), niceness=15)
    (finding,) = judged(facts)
    assert "RAY_worker_niceness=0" in finding.todo


def test_a_node_tells_of_its_settings_and_nothing_else() -> None:
    environment = {**NODE, "RAY_AUTH_TOKEN_PATH": "/t", "RAY_AUTH_MODE": "token", "AWS_SECRET": "x"}
    assert started_with(environment) == NODE | {"RAY_AUTH_MODE": "token"}
    assert started_with({HEAD_STORE: "redis://me:word@host:1"}) == {HEAD_STORE: "set"}
    assert started_with({HEAD_STORE: ""}) == {}
