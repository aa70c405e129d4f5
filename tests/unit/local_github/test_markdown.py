"""Markdown is shown as GitHub would, and can harm nothing."""

import pytest

from ci_bot.local_github.markdown import render


def test_tables_code_lists_and_details_are_rendered() -> None:
    details = "<details open><summary>s</summary>\n\n**d**\n\n</details>"
    text = f"# T\n\n| a |\n|---|\n| `b` |\n\n```\n<x>\n```\n\n- ~~c~~\n\n{details}"
    shown = render(text)
    for piece in (
        "<h1>T</h1>",
        "<td><code>b</code></td>",
        "&lt;x&gt;",
        "<s>c</s>",
        "<details open>",
        "<strong>d</strong>",
    ):
        assert piece in shown


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        "a <script src=//x></script> b",
        "<img src=x onerror=alert(1)>",
        "<details onclick=alert(1)>",
        "<details open onclick=alert(1)>",
        '<b style="x">',
        "<iframe>",
        "<style>",
        "<div>",
        "</main></body>",
        "<svg/onload=alert(1)>",
        "<!-- <script> -->",
        "<a href=javascript:alert(1)>x</a>",
    ],
)
def test_html_that_could_do_something_is_text(text: str) -> None:
    shown = render(text)
    assert "<script" not in shown
    for tag in ("<img", "<iframe", "<style", "<div", "</main", "<svg", "<a ", "onclick=alert(1)>", '<b style="x">'):
        assert tag not in shown


@pytest.mark.parametrize(
    "text", ["[x](javascript:alert(1))", "[x](vbscript:x)", "[x](data:text/html,x)", "![x](data:text/html,x)"]
)
def test_links_lead_to_the_web_only(text: str) -> None:
    assert "href" not in render(text)


def test_images_are_links_and_nothing_is_loaded() -> None:
    shown = render('![a"b](http://x/y.png)')
    assert '<a rel="nofollow noopener" href="http://x/y.png">' in shown
    assert "<img" not in shown


def test_comments_are_not_shown() -> None:
    assert "marker" not in render("a\n\n<!-- marker -->\n\nb <!-- marker --> c\n\n<!-- marker")


@pytest.mark.parametrize(
    "text", ["</details>", "<details>\n\nx", "</details>\n\n<details>\n\n</details>\n\n</details>"]
)
def test_details_are_always_balanced(text: str) -> None:
    shown = render(text)
    assert shown.count("<details>") == shown.count("</details>")
    assert not shown.strip().startswith("</details>")


def test_nothing_is_nothing() -> None:
    assert render(None) == render("") == ""
