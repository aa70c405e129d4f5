"""A record is there whole or not at all."""

import os
from pathlib import Path

from launcher.guardian import durable, record


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    durable.write(str(path), b"long before")
    durable.write(str(path), b"after")
    assert path.read_bytes() == b"after"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_an_exit_record_takes_the_room_reserved_for_it(tmp_path: Path) -> None:
    durable.reserve_exit(str(tmp_path))
    reserved = (tmp_path / "exit.part").stat()
    assert record.read_exit(str(tmp_path)) is None
    record.write_ended(str(tmp_path), {"cause": "succeeded"})
    assert (tmp_path / "exit.json").stat().st_ino == reserved.st_ino
    assert record.read_exit(str(tmp_path)) == {"cause": "succeeded"}
    assert record.read_journal(str(tmp_path)) == [{"event": "ended", "cause": "succeeded"}]


def test_an_exit_record_needs_no_reservation(tmp_path: Path) -> None:
    record.write_ended(str(tmp_path), {"cause": "succeeded"})
    assert record.read_exit(str(tmp_path)) == {"cause": "succeeded"}


def test_a_torn_last_line_of_the_journal_is_none(tmp_path: Path) -> None:
    durable.append(os.path.join(tmp_path, "journal.jsonl"), b'{"event":"started"}\n')
    durable.append(os.path.join(tmp_path, "journal.jsonl"), b'{"event":"en')
    assert record.read_journal(str(tmp_path)) == [{"event": "started"}]
    assert record.read_journal(str(tmp_path / "none")) == []
