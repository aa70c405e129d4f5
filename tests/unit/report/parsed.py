"""Markdown as a second implementation (markdown-it) understands it, for the tests of the reports."""

import re
from collections.abc import Iterator

from markdown_it import MarkdownIt
from markdown_it.token import Token

PARSER = MarkdownIt("commonmark").enable("table").enable("strikethrough")

# What GitHub would link, or notify somebody of, in text that is rendered already.
LIVE = re.compile(r"@\w|#\d|\bgh-\d|://|\bwww\.", re.IGNORECASE)


def tokens(markdown: str) -> Iterator[Token]:
    """Every token, those inside lines included."""
    for token in PARSER.parse(markdown):
        yield token
        yield from token.children or ()


def shape(markdown: str) -> list[str]:
    """The kinds of the block tokens, in order: what the text's structure is."""
    return [token.type for token in PARSER.parse(markdown)]


def visible(markdown: str) -> str:
    """The text outside of code that a reader sees, zero-width spaces kept."""
    return " ".join(token.content for token in tokens(markdown) if token.type in ("text", "text_special"))


def fenced(markdown: str) -> list[str]:
    """The contents of the fenced blocks."""
    return [token.content for token in tokens(markdown) if token.type == "fence"]


def html(markdown: str) -> list[str]:
    """Every piece of raw HTML."""
    return [token.content.strip() for token in tokens(markdown) if token.type in ("html_block", "html_inline")]
