"""Text from outside says what it says and does nothing: proven with another markdown parser."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ci_bot.report.markdown import (
    Ink,
    code,
    details,
    escape,
    fence,
    join_blocks,
    link,
    prose,
    table,
    tail_lines,
)
from ci_bot.report.plain import one_line
from tests.unit.report import parsed

NASTY = st.one_of(
    st.text(max_size=80),
    st.lists(
        st.sampled_from(
            [
                *"`~|\\<>&*_[](){}#@!$^:;-+=.1 \n\r\t\0\x1b",
                "```",
                "````",
                "~~~",
                "<!--",
                "-->",
                "@octo",
                "#12",
                "GH-1",
                "https://e.example",
                "www.e.example",
                "</details>",
                "<img src=x>",
                "&lt;",
                "&#64;",
                "\\|",
                "![a](b)",
                "[a]: b",
                "    x",
                "---",
                "| --- |",
                "# ",
                "\u202e",
                "\u200b",
                "\ud800",
                "é",
            ]
        ),
        max_size=14,
    ).map("".join),
)
INERT = {"text", "text_special", "softbreak", "inline", "paragraph_open", "paragraph_close"}


@given(NASTY)
@example("a@")
@example("@\u200bocto")
def test_escaped_text_is_only_text(text: str) -> None:
    markdown = f"It said {escape(text)} here."
    assert {token.type for token in parsed.tokens(markdown)} <= INERT
    assert not parsed.LIVE.search(parsed.visible(markdown))


def test_no_character_that_markdown_knows_is_left() -> None:
    assert not set(escape("<>\\`*_[]|~$^{}!")) - set("&#;0123456789")


@given(NASTY)
def test_escaped_text_reads_as_it_was(text: str) -> None:
    shown = parsed.PARSER.parse(f"x{escape(text)}x")[1].children or []
    assert "".join(token.content for token in shown).replace("\u200b", "") == f"x{one_line(text)}x"


@given(NASTY)
def test_a_code_span_holds_the_whole_text(text: str) -> None:
    spans = [token for token in parsed.tokens(f"at {code(text)} here") if token.type == "code_inline"]
    if "|" in one_line(text) or not one_line(text):
        assert spans == []
    else:
        assert [span.content for span in spans] == [one_line(text)]


@given(NASTY)
def test_prose_is_only_text_and_code_spans(text: str) -> None:
    markdown = f"It said {prose(text)} here."
    assert {token.type for token in parsed.tokens(markdown)} <= {*INERT, "code_inline"}
    assert not parsed.LIVE.search(parsed.visible(markdown))


@given(st.lists(st.tuples(NASTY, NASTY), min_size=1, max_size=4))
def test_a_table_keeps_its_cells_apart(rows: list[tuple[str, str]]) -> None:
    markdown = table(("A", "B"), [(prose(first), code(second)) for first, second in rows])
    kinds = [token.type for token in parsed.tokens(markdown)]
    assert kinds.count("tr_open") == len(rows) + 1
    assert kinds.count("td_open") == 2 * len(rows)
    assert kinds[-1] == "table_close"
    assert not parsed.html(markdown)


@given(NASTY, st.booleans())
@example("a\n```\n# out", True)
@example("a\n````````\n<b>", False)
def test_nothing_in_a_fence_gets_out_of_it(text: str, folded: bool) -> None:
    block = Ink().block(text, 500)
    markdown = details("Log", block) if folded else f"Log\n\n{block}"
    after = f"{markdown}\n\nThe end."
    assert len(parsed.fenced(after)) == 1
    assert parsed.visible(after).endswith("The end.")
    assert parsed.html(after) == (["<details><summary>Log</summary>", "</details>"] if folded else [])


@settings(max_examples=200)
@given(st.one_of(st.binary(max_size=300), NASTY.map(lambda text: text.encode("utf-8", "replace"))))
@example(b"a\n```\n# out\n````\n")
def test_no_log_gets_out_of_its_fence(log: bytes) -> None:
    tail = tail_lines(log, 20, 1000)
    markdown = f"Log\n\n{fence(tail.text)}\n\nThe end."
    assert parsed.shape(markdown)[3:] == ["fence", "paragraph_open", "inline", "paragraph_close"]
    assert parsed.fenced(markdown) == [tail.text + "\n"]
    assert not set(tail.text) & {*map(chr, range(9)), *map(chr, range(11, 32)), "\x7f", "\u202e", "\u2066", "\x9b"}


@given(st.binary(max_size=2000), st.integers(0, 30), st.integers(0, 3000))
def test_a_tail_keeps_to_its_limits(log: bytes, max_lines: int, max_chars: int) -> None:
    tail = tail_lines(log, max_lines, max_chars)
    assert len(tail.text.encode()) <= max_chars
    assert tail.lines <= max_lines
    assert len(tail.text.split("\n")) == max(tail.lines, 1)


def test_a_tail_counts_the_lines_that_came_before() -> None:
    tail = tail_lines(b"".join(b"line %d\n" % n for n in range(1240)), 6, 1000)
    assert tail.text == "\n".join(f"line {n}" for n in range(1234, 1240))
    assert (tail.lines, tail.earlier) == (6, 1234)


def test_a_progress_bar_shows_its_last_state() -> None:
    tail = tail_lines(b"a\n 1%|\r 50%|#\r100%|##\n\rb\r\nc 1\rc 2\r", 9, 1000)
    assert tail.text == "a\n100%|##\nb\nc 2"


def test_a_window_that_begins_inside_a_line_leaves_it_out() -> None:
    assert tail_lines(b"est of it\nnext\n", 9, 1000, begins_inside=True).text == "next"
    assert tail_lines(b"one state\rnext", 9, 1000, begins_inside=True).text == "next"
    assert tail_lines(b"no end in sight", 9, 1000, begins_inside=True).text == ""


def test_a_very_long_line_is_cut_in_its_middle() -> None:
    text = tail_lines(b"begin" + b"x" * 100_000 + b"end\n", 9, 20_000).text
    assert len(text) == 2000
    assert text.startswith("begin")
    assert text.endswith("end")


def test_a_megabyte_of_progress_does_not_hurt() -> None:
    assert tail_lines(b"\r".join(b"%7d/999999" % n for n in range(60_000)), 9, 1000).text == "  59999/999999"


@pytest.mark.parametrize(
    "address",
    ["javascript:alert(1)", "http://x y", "https://x)![](y", "https://x\n", "", "ftp://x", "https://x|y", 'http://x"y'],
)
def test_only_addresses_that_are_nothing_else_become_links(address: str) -> None:
    assert link("words", address) == "words"


def test_blocks_that_do_not_fit_are_left_out_whole() -> None:
    blocks = ["one", "", fence("x" * 40), "three"]
    assert join_blocks(blocks, 1000, "cut") == f"one\n\n{fence('x' * 40)}\n\nthree"
    assert join_blocks(blocks, 40, "cut") == "one\n\ncut"
