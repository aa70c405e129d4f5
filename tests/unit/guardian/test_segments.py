"""The log of a command by logical offset."""

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from launcher.guardian.segments import Chunk, Segments, cut_mark

writes = st.lists(st.binary(min_size=0, max_size=90), max_size=40)
caps = st.integers(min_value=1, max_value=700)


def pattern(count: int) -> bytes:
    """Bytes that tell where they stood."""
    return b"".join(b"%d," % number for number in range(count))[:count]


def whole(log: Segments, limit: int = 1 << 20) -> list[Chunk]:
    chunks, offset = [], 0
    while (chunk := log.read(offset, limit)).data:
        chunks.append(chunk)
        offset = chunk.next_offset
    return chunks


def stored_bytes(directory: str) -> int:
    return sum(entry.stat().st_size for entry in os.scandir(directory))


@settings(deadline=None, max_examples=60)  # the disk of a busy machine takes its time
@given(writes=writes, cap=caps, limit=st.integers(1, 50), reopen=st.booleans())
def test_what_is_read_is_what_was_written_there(writes: list[bytes], cap: int, limit: int, reopen: bool) -> None:
    with tempfile.TemporaryDirectory() as directory:
        log, said = Segments(directory, cap), b""
        for data in writes:
            if reopen:
                log.close()
                log = Segments(directory, cap)
            log.append(data)
            said += data
            assert stored_bytes(directory) <= cap
        log.close()
        reader = Segments(directory, cap)
        assert reader.size == len(said)
        for chunk in whole(reader, limit):
            assert chunk.data == said[chunk.offset : chunk.next_offset]
            assert len(chunk.data) <= limit
            assert chunk.size == len(said)


@settings(deadline=None, max_examples=60)  # the disk of a busy machine takes its time
@given(writes=writes, cap=caps)
def test_nothing_is_cut_up_to_the_cap(writes: list[bytes], cap: int) -> None:
    said = b"".join(writes)[:cap]
    with tempfile.TemporaryDirectory() as directory:
        log = Segments(directory, cap)
        for start in range(0, len(said), 7):
            log.append(said[start : start + 7])
        assert log.read(0, cap).data == said
        log.close()


@settings(deadline=None, max_examples=60)  # the disk of a busy machine takes its time
@given(cap=st.integers(32, 700), count=st.integers(0, 4000))
def test_over_the_cap_head_and_tail_remain(cap: int, count: int) -> None:
    said = pattern(count)
    with tempfile.TemporaryDirectory() as directory:
        log = Segments(directory, cap)
        for start in range(0, count, 64):
            log.append(said[start : start + 64])
        chunks = whole(log)
        kept = b"".join(chunk.data for chunk in chunks)
        segment = log.segment_bytes
        assert kept.startswith(said[: cap // 2 - segment])
        assert kept.endswith(said[-(cap // 2 - 2 * segment) :] if count and cap // 2 > 2 * segment else b"")
        assert len(chunks) <= 2
        log.close()


def test_a_cut_is_seen_by_the_offset_and_marked(tmp_path: Path) -> None:
    log = Segments(tmp_path, 160)
    log.append(pattern(1000))
    head = log.read(0, 1000)
    tail = log.read(head.next_offset, 1000)
    missing = tail.offset - head.next_offset
    assert (head.offset, missing, tail.next_offset) == (0, 1000 - 160, 1000)
    assert cut_mark(head.next_offset, tail).decode() == f"\n[… {missing} bytes cut …]\n"
    assert cut_mark(0, head) == b""
    log.close()


def test_reading_past_the_end_gives_nothing_and_the_size(tmp_path: Path) -> None:
    log = Segments(tmp_path / "none", 100)
    assert log.read(0, 10) == Chunk(0, b"", 0, 0)
    log.append(b"abc")
    assert log.read(3, 10) == Chunk(3, b"", 3, 3)
    assert log.read(90, 10) == Chunk(90, b"", 90, 3)
    log.close()


def test_a_piece_that_comes_twice_is_stored_once(tmp_path: Path) -> None:
    log = Segments(tmp_path, 1000)
    log.put(0, b"abcdef")
    log.put(0, b"abcdef")
    log.put(4, b"efgh")
    assert log.read(0, 100).data == b"abcdefgh"
    log.close()


def test_a_gap_stays_a_gap(tmp_path: Path) -> None:
    log = Segments(tmp_path, 1000)
    log.put(0, b"ab")
    log.put(10, b"cd")
    log.close()
    again = Segments(tmp_path, 1000)
    assert [chunk[:3] for chunk in whole(again)] == [(0, b"ab", 2), (10, b"cd", 12)]
    again.append(b"e")
    assert again.read(10, 9).data == b"cde"
    again.close()


def test_a_full_disk_is_told_and_what_is_written_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = Segments(tmp_path, 160)
    log.append(b"abc")

    def refuse(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("os.write", refuse)
        with pytest.raises(OSError, match="No space"):
            log.append(b"def")
    assert log.size == 3
    log.put(6, b"ghi")
    assert [chunk[:2] for chunk in whole(log)] == [(0, b"abc"), (6, b"ghi")]
    log.close()


def test_files_are_few_and_big(tmp_path: Path) -> None:
    log = Segments(tmp_path, 1 << 20)
    log.append(bytes(5 << 20))
    assert len(list(tmp_path.iterdir())) <= 16
    log.close()


def test_foreign_files_are_none_of_it(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "x.log").write_text("x")
    assert Segments(tmp_path, 100).size == 0


def test_a_log_has_room_for_a_byte_at_least(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least 1, got 0"):
        Segments(tmp_path, 0)
