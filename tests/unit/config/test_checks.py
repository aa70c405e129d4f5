"""Metric checks: parsed fully, with their defaults."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ci_bot.config import Check, Kind, Outcome, Range, Rounding, Severity
from ci_bot.config.checks import parse_range
from tests.unit.config.example import ONE_NODE, kinds, only, read


def checks(text: str) -> str:
    """A configuration with these checks, one flow mapping."""
    return f"{ONE_NODE}checks: {{{text}}}\n"


def test_a_check_has_every_default() -> None:
    assert only(checks("tensorflow:loss: {target: ..0.5, aggregate: mean}")).checks == (
        Check(
            identifier="tensorflow:loss",
            target=Range(high=Decimal("0.5")),
            aggregate="mean",
            round=Rounding.DOWN,
            precision=2,
            only_pulls=False,
            if_not_found=Outcome.FAILURE,
            comment_on_pr=True,
        ),
    )


def test_a_check_says_more_than_the_defaults() -> None:
    defaults = "defaults: {round: up, precision: 4, only-pulls: true, if-not-found: success, comment-on-pr: false}"
    (first, second) = only(
        checks(
            f"{defaults}, tensorflow:a: {{target: 1, aggregate: max}}, "
            "onnx:b: {target: 1, aggregate: min, precision: 0}"
        )
    ).checks
    assert first == Check(
        identifier="tensorflow:a",
        target=Range(low=Decimal(1)),
        aggregate="max",
        round=Rounding.UP,
        precision=4,
        only_pulls=True,
        if_not_found=Outcome.SUCCESS,
        comment_on_pr=False,
    )
    assert (second.precision, second.round) == (0, Rounding.UP)


def test_the_spellings_of_the_original_are_accepted() -> None:
    text = checks("default: {only-prs: true}, tensorflow:a: {target: 1.., aggregation: Max}")
    assert only(text).checks[0].aggregate == "max"
    assert only(text).checks[0].only_pulls
    assert {each.kind for each in read(text).problems} == {Kind.SPELLING}


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        ("0.7", "0.7", None),
        ("0.7..", "0.7", None),
        ("..0.025", None, "0.025"),
        ("0.0..0.5", "0.0", "0.5"),
        ("-1..1", "-1", "1"),
        (" 1 .. 2 ", "1", "2"),
        ("1e-3..", "1e-3", None),
        (".5..1", ".5", "1"),
    ],
)
def test_a_range_is_read_as_documented(text: str, low: str | None, high: str | None) -> None:
    assert parse_range(text) == Range(low=Decimal(low) if low else None, high=Decimal(high) if high else None)


@pytest.mark.parametrize("text", ["", "..", "a", "1...2", "1..2..3", "1.", "nan..", "..inf", "1e9999", "0x1", "1,5"])
def test_what_is_no_range_is_none(text: str) -> None:
    assert parse_range(text) is None


@given(st.text(alphabet="0123456789.-+eE ", max_size=20))
def test_a_range_is_never_read_from_noise_that_decimal_would_not_take(text: str) -> None:
    found = parse_range(text)
    assert found is None or all(bound is None or bound.is_finite() for bound in (found.low, found.high))


@pytest.mark.parametrize(
    "text",
    [
        "loss: {target: 1, aggregate: max}",
        "keras:loss: {target: 1, aggregate: max}",
        "'tensorflow:': {target: 1, aggregate: max}",
        "tensorflow:a: {aggregate: max}",
        "tensorflow:a: {target: 1}",
        "tensorflow:a: 1",
        "tensorflow:a: {target: x, aggregate: max}",
        "tensorflow:a: {target: 2..1, aggregate: max}",
        "tensorflow:a: {target: 1..1, aggregate: max}",
        "tensorflow:a: {target: 1, aggregate: sum}",
        "custom:a: {target: 1, aggregate: mean}",
        "tensorflow:a: {target: 1, aggregate: max, precision: 16}",
        "tensorflow:a: {target: 1, aggregate: max, round: off}",
        "tensorflow:a: {target: 1, aggregate: max, only-pulls: 1}",
        "defaults: [1]",
        "tensorflow:a: {target: 1, aggregate: max, if-not-found: neutral}",
        "tensorflow:a:",
    ],
)
def test_a_check_that_cannot_be_judged_is_an_error(text: str) -> None:
    found = read(checks(text))
    assert found.errors
    assert {each.line for each in found.problems} == {5}


def test_fifteen_decimals_are_the_most() -> None:
    assert only(checks("onnx:a: {target: 1, aggregate: max, precision: 15}")).checks[0].precision == 15


def test_a_custom_metric_is_named_by_a_json_pointer() -> None:
    assert only(checks("custom:a: {target: 1, aggregate: /a/mean}")).checks[0].aggregate == "/a/mean"


def test_a_key_that_no_check_has_is_a_warning() -> None:
    found = read(checks("tensorflow:a: {target: 1, aggregate: max, precission: 3}"))
    assert kinds(found) == [(5, Severity.WARNING, Kind.UNKNOWN_KEY)]


def test_a_metric_of_a_wrong_name_is_checked_for_everything_else_too() -> None:
    found = [each.message for each in read(checks("loss: {target: abc, aggregate: avg}")).errors]
    assert [message.partition(" ")[0] for message in found] == [
        "`loss`",
        "`checks.loss.target`",
        "`checks.loss.aggregate`",
    ]


def test_mistakes_in_the_defaults_are_said_without_any_check_that_takes_them() -> None:
    text = "defaults: {target: abc, aggregate: avg, round: sideways, precision: 99, only-pulls: 1, if-not-found: x}"
    assert [each.message.partition(" ")[0] for each in read(checks(text)).errors] == [
        f"`checks.defaults.{key}`"
        for key in ("target", "aggregate", "round", "precision", "only-pulls", "if-not-found")
    ]
    assert not read(checks("defaults: {aggregate: /a/mean, round: up}")).problems


def test_fifty_checks_are_the_most() -> None:
    many = ", ".join(f"onnx:{i}: {{target: 1, aggregate: max}}" for i in range(51))
    assert read(checks(many.rpartition(", onnx")[0])).ok
    assert [each.kind for each in read(checks(many)).errors] == [Kind.CHECK]


def test_a_mistake_in_the_defaults_is_said_once() -> None:
    text = checks("defaults: {precision: x}, onnx:a: {target: 1, aggregate: max}, onnx:b: {target: 1, aggregate: max}")
    assert len(read(text).problems) == 1
