"""Whatever the bytes: no exception, every problem within its file, no experiment from a file with an error."""

from hypothesis import given, settings
from hypothesis import strategies as st

from ci_bot.config import Configuration, is_ours, mask
from ci_bot.config.check import json_line, lines
from tests.unit.config.example import FILE, ONE_NODE, STEP, read
from tests.unit.config.test_version1 import EVERY_KEY

SEEDS = (
    ONE_NODE,
    STEP,
    EVERY_KEY,
    STEP + "      triggers:\n        branches:\n          only: x\n      checks:\n        a: 1\n",
    STEP.replace("        params:\n          command: python train.py", "        paramsFile: p.yaml"),
    'a: "b" [c]\n',
)
PIECES = st.sampled_from(
    [
        ":",
        ": ",
        "- ",
        "\n",
        "  ",
        "\t",
        '"',
        "'",
        "[",
        "]",
        "{",
        "}",
        "*",
        "&a ",
        "*a",
        "<<: ",
        "!!int ",
        "!x ",
        "|",
        ">",
        "#",
        "\x85",
        "\u2028",
        "\0",
        "\r",
        "~",
        "null",
        "---\n",
        "...\n",
        '"\\0"',
        '"\\ud800"',
        "😀",
        "? ",
        "%TAG",
        "secret:x",
        "9" * 12,
        "1:30",
        "=",
        "\ufeff",
        '"a\\nb"',
        "triggers:",
        "checks:",
        "steps:",
        "version: 2\n",
        "workflows:\n",
        "a:b\n",
        "：",
        '"\\xzz"',
        "---\na: 1\n",
        "worker:\n",
    ]
)


@st.composite
def mutated(draw: st.DrawFn) -> str:
    text = draw(st.sampled_from(SEEDS))
    for _ in range(draw(st.integers(1, 5))):
        start = draw(st.integers(0, len(text)))
        text = text[:start] + draw(PIECES) + text[start + draw(st.integers(0, 6)) :]
    return text


def holds(found: Configuration, content: bytes) -> None:
    text = content.decode("utf-8", "replace").replace("\r\n", "\n").replace("\r", "\n").split("\n")
    for each in found.problems:
        if each.path == FILE:
            assert 1 <= each.line <= len(text)
            assert 1 <= each.column <= len(text[each.line - 1]) + 1
    assert found.ok == bool(found.experiments)
    assert len(lines(found, "f")) >= 1
    assert "\n" not in json_line(found, "f")
    assert Configuration.model_validate_json(found.model_dump_json()) == found


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_no_bytes_raise(content: bytes) -> None:
    holds(read(content, {"p.yaml": content}), content)
    is_ours(content)


@settings(max_examples=600, deadline=None)
@given(mutated())
def test_no_mistake_in_a_good_file_raises(text: str) -> None:
    content = text.encode("utf-8", "replace")
    holds(read(content, {"p.yaml": content}), content)
    is_ours(content)
    mask(text.encode("utf-8", "replace").decode())
