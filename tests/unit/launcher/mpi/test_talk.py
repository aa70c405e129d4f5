"""What comes over the node agent's socket is a JSON object a line, or the end of that connection."""

import json

import pytest

from launcher.mpi.talk import MAX_LINE_BYTES, Lines


@pytest.mark.parametrize("size", [1, 3, 7, 1000])
def test_messages_come_out_as_they_went_in_however_they_are_cut(size: int) -> None:
    said = [{"a": 1}, {}, {"b": ["\n", None, 1.5]}]
    stream = b"".join(json.dumps(each).encode() + b"\n" for each in said)
    lines, heard = Lines(), []
    for start in range(0, len(stream), size):
        heard += lines.take(stream[start : start + size])
    assert heard == said


@pytest.mark.parametrize(
    "line",
    [b"", b"\0", b"[]", b"5", b"null", b'"x"', b"{", b"\xff\xfe", b"[" * 100_000, b'{"a":' * 100_000, b"9" * 5000],
    ids=lambda line: repr(line[:6]),
)
def test_what_is_no_message_is_a_value_error(line: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - json's own words
        list(Lines().take(line + b"\n"))


def test_a_line_has_an_end() -> None:
    lines = Lines()
    for _ in range(MAX_LINE_BYTES >> 16):
        assert list(lines.take(b"x" * (1 << 16))) == []
    with pytest.raises(ValueError, match="a line of more than"):
        list(lines.take(b"x"))


@pytest.mark.timeout(10)
def test_a_line_in_drips_costs_no_more_than_its_length() -> None:
    lines = Lines()
    for _ in range(MAX_LINE_BYTES // 4 - 10):
        assert next(lines.take(b"    "), None) is None
    assert list(lines.take(b"{}\n")) == [{}]
