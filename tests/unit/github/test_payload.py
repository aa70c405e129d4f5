"""Check runs inside GitHub's limits, whatever was asked for."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ci_bot.github.payload import create_body, cut_bytes, rfc3339, sent_annotations, update_body
from ci_bot.records import Annotation, Button, CheckRun


def run(**fields: Any) -> CheckRun:
    base: dict[str, Any] = {"name": "descent/digits", "head_sha": "a" * 40, "status": "queued", "title": "Pending"}
    return CheckRun(**(base | {"summary": "soon"} | fields))


def remark(line: int = 1, **fields: Any) -> Annotation:
    base: dict[str, Any] = {"path": "config.yaml", "start_line": line, "end_line": line, "level": "failure"}
    return Annotation(**(base | {"title": "count", "message": "at least 1"} | fields))


def test_a_queued_run_says_what_it_is() -> None:
    assert create_body(run(details_url="http://x/1", external_id="exp-1", started_at=0.0)) == {
        "name": "descent/digits",
        "head_sha": "a" * 40,
        "status": "queued",
        "output": {"title": "Pending", "summary": "soon", "text": "", "annotations": []},
        "actions": [],
        "details_url": "http://x/1",
        "external_id": "exp-1",
        "started_at": "1970-01-01T00:00:00Z",
    }


def test_an_update_does_not_name_the_commit() -> None:
    assert "head_sha" not in update_body(run(), 0)


def test_a_completed_run_carries_its_conclusion_and_time() -> None:
    body = update_body(run(status="completed", conclusion="success", completed_at=1_800_000_000.7), 0)
    assert (body["conclusion"], body["completed_at"]) == ("success", "2027-01-15T08:00:00Z")


def test_a_conclusion_is_not_sent_early_because_it_would_complete_the_run() -> None:
    body = update_body(run(status="in_progress", conclusion="success", completed_at=1.0), 0)
    assert "conclusion" not in body
    assert "completed_at" not in body


def test_completed_without_a_conclusion_is_a_mistake_of_ours() -> None:
    with pytest.raises(ValueError, match="without a conclusion"):
        create_body(run(status="completed"))


@given(st.text(alphabet="a€🙂\n", min_size=0, max_size=10), st.integers(0, 9000))
def test_long_texts_are_cut_to_githubs_bytes_and_say_so(unit: str, times: int) -> None:
    text = unit * times
    output = create_body(run(title=text, summary=text, text=text))["output"]
    assert len(output["title"]) <= 255
    for part in (output["summary"], output["text"]):
        assert len(part.encode()) <= 65_535
    if len(text.encode()) > 65_535:
        assert output["summary"].endswith("cut: more than GitHub takes")
    else:
        assert output["text"] == text


def test_a_cut_never_splits_a_character() -> None:
    assert cut_bytes("🙂" * 20_000, 65_535).count("\N{REPLACEMENT CHARACTER}") == 0


def test_title_and_summary_are_never_empty() -> None:
    assert create_body(run(title="", summary=""))["output"]["summary"] == "descent/digits"


def test_text_that_is_no_unicode_is_repaired() -> None:
    output = create_body(run(title="a\ud800", summary="b\0", text="\udfff"))["output"]
    assert (output["title"], output["summary"], output["text"]) == ("a?", "b\N{REPLACEMENT CHARACTER}", "?")


def test_annotations_go_fifty_at_a_time_and_each_once() -> None:
    wanted = run(annotations=tuple(remark(i) for i in range(1, 121)))
    lines: list[int] = [a["start_line"] for a in create_body(wanted)["output"]["annotations"]]
    sent = sent_annotations(wanted, 0)
    while sent < 120:
        batch = update_body(wanted, sent)["output"]["annotations"]
        assert len(batch) <= 50
        lines += [a["start_line"] for a in batch]
        sent = sent_annotations(wanted, sent)
    assert lines == list(range(1, 121))
    assert update_body(wanted, sent)["output"]["annotations"] == []
    assert sent_annotations(wanted, sent) == 120


def test_more_annotations_than_wanted_stay_counted() -> None:
    assert sent_annotations(run(), 3) == 3


def test_columns_are_sent_within_one_line_only() -> None:
    one = remark(start_column=3, end_column=9)
    two = remark(start_column=3, end_column=9, end_line=2)
    backwards = remark(start_column=9, end_column=3)
    first, second, third = create_body(run(annotations=(one, two, backwards)))["output"]["annotations"]
    assert (first["start_column"], first["end_column"]) == (3, 9)
    assert "start_column" not in second
    assert (third["start_column"], third["end_column"]) == (9, 9)


def test_lines_begin_at_one_and_end_after_their_begin() -> None:
    (body,) = create_body(run(annotations=(remark(0, end_line=-3, level="error", message="", title="t" * 300),)))[
        "output"
    ]["annotations"]
    assert (body["start_line"], body["end_line"], body["annotation_level"]) == (1, 1, "warning")
    assert len(body["title"]) == 255
    assert body["message"]


def test_buttons_fit_github() -> None:
    button = Button(label="L" * 30, description="D" * 60, identifier="i" * 20)
    actions = create_body(run(buttons=(button,) * 5))["actions"]
    assert len(actions) == 3
    assert (len(actions[0]["label"]), len(actions[0]["description"]), actions[0]["identifier"]) == (20, 40, "i" * 20)


def test_an_identifier_is_never_cut_because_it_comes_back() -> None:
    with pytest.raises(ValueError, match="at most 20"):
        create_body(run(buttons=(Button(label="x", description="x", identifier="i" * 21),)))


@pytest.mark.parametrize("url", ["", "javascript:alert(1)", "ftp://x"])
def test_only_web_addresses_are_linked(url: str) -> None:
    assert "details_url" not in create_body(run(details_url=url))


def test_times_are_utc_in_rfc_3339() -> None:
    assert rfc3339(1_800_000_000.9) == "2027-01-15T08:00:00Z"
