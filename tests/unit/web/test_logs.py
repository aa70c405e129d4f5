"""Pieces of a log."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ci_bot.web.logs import LINE_BYTES, SKIP_BYTES, Place, behind, line_start, read_piece
from launcher.guardian.segments import Segments


def log(directory: Path, data: bytes, max_bytes: int = 1 << 30) -> Segments:
    made = Segments(directory / "log", max_bytes)
    made.append(data)
    made.close()
    return made


def test_whole_lines_are_given_and_the_one_being_written_apart(tmp_path: Path) -> None:
    written = log(tmp_path, b"one\ntwo\nthr")
    piece = read_piece(written, 0)
    assert (piece.html, piece.partial, piece.end, piece.size) == ("one\ntwo\n", "thr", 8, 11)
    assert read_piece(written, 8).html == ""
    written.append(b"ee\n")
    assert read_piece(written, 8).html == "three\n"


def test_at_the_end_the_last_line_needs_no_line_end(tmp_path: Path) -> None:
    piece = read_piece(log(tmp_path, b"one\ntwo"), 0, final=True)
    assert (piece.html, piece.partial, piece.end) == ("one\ntwo", "", 7)


def test_a_progress_bar_shows_its_last_state_however_long_it_runs(tmp_path: Path) -> None:
    states = b"".join(b"\r%6d/100000 |####      |" % number for number in range(2000))
    written = log(tmp_path, b"start\n" + states)
    first = read_piece(written, 0)
    assert first.html == "start\n"
    assert first.partial.strip() == "1999/100000 |####      |"
    assert first.end > 6 + LINE_BYTES  # what is overwritten is not read again
    assert read_piece(written, first.end).partial.strip() == first.partial.strip()


def test_a_line_without_end_is_broken_between_characters(tmp_path: Path) -> None:
    text = "ä€𝄞" * 4000
    data = text.encode()
    written = log(tmp_path, data)
    shown, offset = "", 0
    while offset < len(data):
        piece = read_piece(written, offset, final=len(data) - offset < LINE_BYTES)
        assert piece.end > offset
        shown, offset = shown + piece.html, piece.end
    assert shown == text


def test_secrets_are_masked(tmp_path: Path) -> None:
    token = "ghp_" + "a" * 36
    piece = read_piece(log(tmp_path, f"push with {token} and hunter2\n".encode()), 0, secrets=("hunter2",))
    assert piece.html == "push with *** and ***\n"


def test_a_cut_in_the_middle_is_marked(tmp_path: Path) -> None:
    written = log(tmp_path, b"".join(b"line %06d\n" % number for number in range(10_000)), max_bytes=16_000)
    shown, offset = "", 0
    while offset < written.size:
        piece = read_piece(written, offset, limit=4000)
        assert piece.end > offset
        shown, offset = shown + piece.html, piece.end
    assert shown.startswith("line 000000\nline 000001\n")
    assert shown.count("cut here") == 1
    assert shown.endswith("line 009998\nline 009999\n")


def test_who_is_far_behind_is_taken_to_the_end_and_told_so(tmp_path: Path) -> None:
    line = b"x" * 99 + b"\n"
    written = log(tmp_path, line * (SKIP_BYTES // 50))
    offset, mark = behind(0, written)
    assert offset % 100 == 0
    assert written.size - offset < SKIP_BYTES
    assert "not shown here" in mark
    assert behind(offset, written) == (offset, "")


@given(st.lists(st.sampled_from([b"a", b"bb\n", b"\r", b"\n", b"ccc"])), st.integers(0, 40))
def test_a_line_start_is_behind_a_line_end(
    tmp_path_factory: pytest.TempPathFactory, parts: list[bytes], at: int
) -> None:
    data = b"".join(parts)
    start = line_start(log(tmp_path_factory.mktemp("log"), data), at)
    assert start >= min(at, len(data)) or at > len(data)
    broken = b"\n" in data[at:-1] or b"\r" in data[at:-1]
    assert start == 0 or not broken or data[start - 1 : start] in {b"\n", b"\r"}


@pytest.mark.parametrize(
    ("text", "place"),
    [("2-77", Place(2, 77)), ("0-0", Place()), ("", None), ("2", None), ("-1", None), ("1-", None), ("²-1", None),
     ("1-" + "9" * 30, None), ("1-2-3", None)],
)  # fmt: skip
def test_a_place_is_read_as_it_was_written_or_not_at_all(text: str, place: Place | None) -> None:
    assert Place.parse(text) == place
    assert place is None or str(place) == text
