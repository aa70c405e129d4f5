"""Markdown as GitHub would show it, safely: raw HTML is text but for a few harmless tags, nothing is loaded. Pure."""

import re
from collections.abc import Sequence

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markdown_it.utils import EnvType, OptionsDict
from markupsafe import Markup, escape

_HARMLESS = re.compile(
    r"<(/?)(details|summary|b|i|strong|em|sub|sup|kbd|br|hr|code|samp|del|ins)(\s+open)?\s*/?>", re.IGNORECASE
)
_COMMENT = re.compile(r"<!--.*?(?:-->|\Z)", re.DOTALL)


def neutralised(html: str) -> str:
    """Raw HTML with its comments dropped and every tag but the harmless ones turned into text."""
    html = _COMMENT.sub("", html)
    done, at = [], 0
    for tag in _HARMLESS.finditer(html):
        slash, name, opened = tag[1], tag[2].lower(), " open" if tag[3] and tag[2].lower() == "details" else ""
        done += [str(escape(html[at : tag.start()])), f"<{slash}{name}{'' if slash else opened}>"]
        at = tag.end()
    return "".join([*done, str(escape(html[at:]))])


class _Renderer(RendererHTML):
    """Renders what markdown-it parsed, with raw HTML and images disarmed."""

    def html_block(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
        """A block of raw HTML."""
        return neutralised(tokens[idx].content)

    def html_inline(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
        """A piece of raw HTML within a line."""
        return neutralised(tokens[idx].content)

    def image(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
        """An image, as a link: GitHub would fetch it through a proxy of its own."""
        source = str(tokens[idx].attrGet("src") or "")
        return str(Markup('<a rel="nofollow noopener" href="{}">image: {}</a>').format(source, tokens[idx].content))

    def link_open(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
        """A link, that tells its target nothing."""
        tokens[idx].attrSet("rel", "nofollow noopener noreferrer")
        return self.renderToken(tokens, idx, options, env)


_PARSER = MarkdownIt("commonmark", renderer_cls=_Renderer).enable(["table", "strikethrough"])


def _balanced(html: str) -> str:
    """The HTML with an end for every <details> begun, and no end too many: the page around it stays whole."""
    depth, done = 0, []
    for part in re.split(r"(<details(?: open)?>|</details>)", html):
        if part == "</details>":
            if depth == 0:
                continue
            depth -= 1
        elif part.startswith("<details"):
            depth += 1
        done.append(part)
    return "".join(done) + "</details>" * depth


def render(text: str | None) -> Markup:
    """HTML of a text in GitHub's markdown; safe to put into a page."""
    return Markup(_balanced(_PARSER.render(text or "")))  # noqa: S704 - escaped above, that is this module's whole work
