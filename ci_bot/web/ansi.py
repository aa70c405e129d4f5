"""Log text into HTML: terminal colours become classes, everything else is cleaned and escaped. Pure."""

import html
import re
from dataclasses import dataclass, replace

from ci_bot.report.plain import clean, collapse

_SGR = re.compile(r"\x1b\[([0-9;:]{0,64})m")
_CUBE = (0, 95, 135, 175, 215, 255)
_BASIC = (
    (0, 0, 0), (170, 0, 0), (0, 170, 0), (170, 85, 0), (0, 0, 170), (170, 0, 170), (0, 170, 170), (170, 170, 170),
    (85, 85, 85), (255, 85, 85), (85, 255, 85), (255, 255, 85), (85, 85, 255), (255, 85, 255), (85, 255, 255),
    (255, 255, 255),
)  # fmt: skip


@dataclass(frozen=True)
class Style:
    """How text looks; colours are 0 to 15, the terminal's own, since a strict page has no inline styles."""

    foreground: int | None = None
    background: int | None = None
    bold: bool = False
    dim: bool = False
    italic: bool = False
    underline: bool = False

    @property
    def classes(self) -> str:
        """The classes of its span; "" for plain text."""
        names = [
            f"f{self.foreground}" if self.foreground is not None else "",
            f"b{self.background}" if self.background is not None else "",
            *(name for name in ("bold", "dim", "italic", "underline") if getattr(self, name)),
        ]
        return " ".join(name for name in names if name)


PLAIN = Style()
_ON = {1: {"bold": True}, 2: {"dim": True}, 3: {"italic": True}, 4: {"underline": True}}
_OFF = {
    22: {"bold": False, "dim": False},
    23: {"italic": False},
    24: {"underline": False},
    39: {"foreground": None},
    49: {"background": None},
}


def to_html(text: str, style: Style = PLAIN) -> tuple[str, Style]:
    """Text as HTML, and the style that goes on behind it; of what `\\r` overwrites in a line the last state is left."""
    pieces = _SGR.split(collapse(text.replace("\r\n", "\n")))
    parts: list[str] = []
    for place, piece in enumerate(pieces):
        if place % 2:
            style = _changed(style, piece)
        elif shown := html.escape(clean(piece), quote=False):
            parts.append(f'<span class="{style.classes}">{shown}</span>' if style.classes else shown)
    return "".join(parts), style


def _changed(style: Style, parameters: str) -> Style:
    codes = [int(code) if code else 0 for code in re.split("[;:]", parameters)]
    while codes:
        code = codes.pop(0)
        if code == 0:
            style = PLAIN
        elif code in _ON:
            style = replace(style, **_ON[code])
        elif code in _OFF:
            style = replace(style, **_OFF[code])  # type: ignore[arg-type]
        elif code in (38, 48):
            colour = _extended(codes)
            style = replace(style, foreground=colour) if code == 38 else replace(style, background=colour)
        elif 30 <= code <= 37 or 90 <= code <= 97:
            style = replace(style, foreground=code - 30 if code < 90 else code - 82)
        elif 40 <= code <= 47 or 100 <= code <= 107:
            style = replace(style, background=code - 40 if code < 100 else code - 92)
    return style


def _extended(codes: list[int]) -> int | None:
    """The colour that follows 38 or 48, taken out of the codes: 5;n or 2;r;g;b, as the nearest of the sixteen."""
    kind = codes.pop(0) if codes else 0
    if kind == 5 and codes:
        number = codes.pop(0)
        return number if number < 16 else _nearest(_palette(min(number, 255)))
    if kind == 2 and len(codes) >= 3:
        red, green, blue = (min(codes.pop(0), 255) for _ in range(3))
        return _nearest((red, green, blue))
    codes.clear()
    return None


def _palette(number: int) -> tuple[int, int, int]:
    """One of xterm's 256 colours, from the 16th on: a cube, then greys."""
    if number >= 232:
        grey = 8 + 10 * (number - 232)
        return grey, grey, grey
    number -= 16
    return _CUBE[number // 36], _CUBE[number // 6 % 6], _CUBE[number % 6]


def _nearest(colour: tuple[int, int, int]) -> int:
    def distance(number: int) -> int:
        return sum((a - b) ** 2 for a, b in zip(_BASIC[number], colour, strict=True))

    return min(range(16), key=distance)
