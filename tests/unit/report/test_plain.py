"""Terminal sequences, invisible characters and broken Unicode do not come through."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ci_bot.report.plain import clean, collapse, cut, cut_middle, one_line


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07after", "after"),
        ("\x1b]8;;https://e.example\x1b\\words\x1b]8;;\x1b\\", "words"),
        ("\x1b]0;never ended\nnext", "\nnext"),
        ("\x1bP1$r0m\x1b\\x\x1b(By\x1b7z\x1bc", "xyz"),
        ("\x9b31mC1\x9b0m \x9dtitle\x9cx", "C1 x"),
        ("cut \x1b[3", "cut "),
        ("a\x08\x07\x0b\x0cb\x7f", "ab"),
        ("nul \0", "nul \ufffd"),
        ("\u202eevil\u202c \u2066x\u2069 \u200f\u061c", "evil x "),
        ("in\u200bvis\ufeffi\U000e0041ble\u00ad", "invisible"),
        ("a\u2028b\u2029c\x85d", "a b cd"),
        ("a\r\nb\rc\td", "a\nb\rc\td"),
        ("\ud800 \ud83d\ude00", "\ufffd 😀"),
        ("👩\u200d🔬", "👩\u200d🔬"),
    ],
)
def test_only_text_is_left(raw: str, text: str) -> None:
    assert clean(raw) == text


def test_bytes_that_are_no_utf8_are_replaced() -> None:
    assert clean(b"a\xff\xc3b \xe4\xb8\xad") == "a\ufffd\ufffdb 中"


@given(st.text())
def test_cleaning_is_done_once(text: str) -> None:
    once = clean(text).replace("\r", "")
    assert clean(once) == once
    once.encode()


def test_the_last_state_of_a_line_is_what_a_terminal_shows() -> None:
    assert collapse("1\r2\r3\nx\n\r\r\n4\r  \r") == "3\nx\n\n4"


def test_one_line_is_one_line() -> None:
    assert one_line(" a\n\t b\r c ") == "a b c"


def test_cutting_says_that_something_is_missing() -> None:
    assert cut("abcdef", 4) == "abc…"
    assert cut("abcd", 4) == "abcd"
    assert cut_middle("a" * 50 + "b" * 50, 30) == "a" * 10 + " … " + "b" * 17
