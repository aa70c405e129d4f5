"""Terminal text into HTML."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ci_bot.web.ansi import PLAIN, Style, to_html


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("plain\n", "plain\n"),
        ("<script>&", "&lt;script&gt;&amp;"),
        ("\x1b[31mred\x1b[0m not", '<span class="f1">red</span> not'),
        ("\x1b[1;4;92mx\x1b[22;24my", '<span class="f10 bold underline">x</span><span class="f10">y</span>'),
        ("\x1b[43mx\x1b[49my", '<span class="b3">x</span>y'),
        ("\x1b[38;5;196mx", '<span class="f1">x</span>'),
        ("\x1b[38;5;9mx", '<span class="f9">x</span>'),
        ("\x1b[48;5;255mx", '<span class="b15">x</span>'),
        ("\x1b[38;2;0;170;0mx", '<span class="f2">x</span>'),
        ("\x1b[38;5mx\x1b[38mx\x1b[999mx", "xxx"),
        ("\x1b[mx\x1b[;1mx", 'x<span class="bold">x</span>'),
        ("10%\r50%\r99%\n", "99%\n"),
        ("line\r\nnext\r\n", "line\nnext\n"),
        ("\x1b]0;title\x07x\x1b[2Ky\x1b(B", "xy"),
        ("a\u202eb\x00", "ab\ufffd"),
    ],
)
def test_colours_become_classes_and_nothing_else_is_left(text: str, html: str) -> None:
    assert to_html(text)[0] == html


def test_a_style_goes_on_in_the_next_piece() -> None:
    first, style = to_html("\x1b[2;3;31ma")
    assert (first, style) == ('<span class="f1 dim italic">a</span>', Style(foreground=1, dim=True, italic=True))
    assert to_html("b\x1b[0mc", style) == ('<span class="f1 dim italic">b</span>c', PLAIN)


@given(st.text(alphabet=st.sampled_from("\x1b[];0123456789mKh<>&\"'\r\n ax\x07")))
def test_no_text_makes_a_tag_of_its_own(text: str) -> None:
    html, _ = to_html(text)
    left = html.replace("</span>", "")
    for piece in left.split("<")[1:]:
        assert piece.startswith('span class="')
    assert "\x1b" not in html
