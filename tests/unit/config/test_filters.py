"""Which pushes start an experiment."""

import pytest

from ci_bot.config import Filters, Kind, Severity, Triggers
from tests.unit.config.example import ONE_NODE, kinds, only, read


def test_without_filters_the_default_branch_and_every_pull_request_count_and_no_tag() -> None:
    triggers = only(ONE_NODE).triggers
    assert triggers == Triggers()
    assert triggers.matches_branch("main", "main")
    assert not triggers.matches_branch("dev", "main")
    assert not triggers.matches_tag("v1")
    assert triggers.matches_merge("dev")


@pytest.mark.parametrize(
    ("filters", "name", "matches"),
    [
        (Filters(only=("v.*",)), "v1", True),
        (Filters(only=("v.*",)), "av1", False),
        (Filters(only=("v",)), "v1", False),
        (Filters(only=("a", "b")), "b", True),
        (Filters(ignore=("wip/.*",)), "wip/x", False),
        (Filters(ignore=("wip/.*",)), "main", True),
        (Filters(ignore=("wip",)), "wip/x", True),
        (Filters(only=("a|b.c",)), "b-c", True),
        (Filters(only=(".*",)), "é😀", True),
        (Filters(only=(".*",)), "lone \ud800", True),
    ],
)
def test_an_expression_has_to_match_the_whole_name(filters: Filters, name: str, matches: bool) -> None:
    triggers = Triggers(branches=filters, tags=filters)
    assert triggers.matches_branch(name, "main") is matches
    assert triggers.matches_tag(name) is matches
    assert triggers.matches_merge(name) is matches


def test_a_filter_on_tags_leaves_branches_at_the_default() -> None:
    triggers = only(ONE_NODE + "filters: {tags: {only: v.*}}").triggers
    assert triggers.matches_branch("main", "main")
    assert not triggers.matches_branch("dev", "main")
    assert triggers.matches_tag("v1")


@pytest.mark.timeout(10)
def test_an_expression_made_to_be_slow_is_not() -> None:
    assert not Filters(only=("(a+)+b",)).allow("a" * 50_000)


@pytest.mark.parametrize(
    "written",
    ["(?!a).*", "(?<=a)b", "'*'", "'['", "'a('", "'\\1'", "'" + "a" * 1001 + "'", "'((a{999}){999}){999}'"],
)
def test_an_expression_that_re2_does_not_take_is_an_error_on_its_line(written: str) -> None:
    found = read(f"{ONE_NODE}filters:\n  branches:\n    only:\n      - main\n      - {written}\n")
    assert kinds(found) == [(9, Severity.ERROR, Kind.FILTER)]


def test_lookahead_is_answered_with_ignore() -> None:
    (found,) = read(ONE_NODE + "filters: {branches: {only: '(?!wip).*'}}").problems
    assert "use `ignore`" in found.message


@pytest.mark.parametrize(
    "written",
    [
        "{branches: {only: a, ignore: b}}",
        "{branches: {onyl: a}}",
        "{brunches: {only: a}}",
        "{branches: [main]}",
        "{branches: {only: {a: b}}}",
        "{branches: {only: []}}",
        "{branches: {only: [[a]]}}",
        "main",
        "[main]",
    ],
)
def test_a_filter_that_is_not_understood_is_an_error(written: str) -> None:
    assert read(f"{ONE_NODE}filters: {written}").errors


def test_what_is_wrong_with_each_of_two_filters_is_said_beside_that_one_is_too_many() -> None:
    found = read(f"{ONE_NODE}filters:\n  branches:\n    only: '*'\n    ignore: '('\n").errors
    assert [each.line for each in found] == [7, 8, 8]


@pytest.mark.parametrize(
    ("written", "column", "found"),
    [
        ("[]", 11, "an empty list"),
        ("[a, [b]]", 15, "a list in it"),
        ("{}", 11, "an empty mapping"),
        ("[a, ]", 11, None),
    ],
)
def test_a_list_that_is_none_of_texts_says_where_and_what_is_found(
    written: str, column: int, found: str | None
) -> None:
    errors = read(f"{ONE_NODE}filters:\n  branches:\n    only: {written}\n").errors
    assert [(each.line, each.column, each.found) for each in errors] == ([(7, column, found)] if found else [])


@pytest.mark.parametrize("written", ["feature/*", "feature/**"])
def test_what_looks_like_a_file_pattern_is_a_warning(written: str) -> None:
    found = read(f"{ONE_NODE}filters: {{branches: {{only: '{written}'}}}}")
    expected = Kind.FILTER
    assert [each.kind for each in found.problems] == [expected]
    assert "feature/" in found.problems[0].message


@pytest.mark.parametrize("written", ["filters:", "filters: {branches: }", "filters: {branches: {only: }}"])
def test_an_empty_filter_is_none(written: str) -> None:
    assert only(f"{ONE_NODE}{written}").triggers == Triggers()
