"""Output reaches the log whole, in order, and never holds the command up."""

import time

from launcher.guardian.segments import Segments
from launcher.guardian_client import Limits
from launcher.state import Cause
from tests.integration.guardian.ground import Attempt


def test_both_streams_arrive_in_order(attempt: Attempt) -> None:
    attempt.run("echo one; echo two >&2; printf 'three\\rfour'")
    assert attempt.log() == b"one\ntwo\nthree\rfour"


def test_a_million_lines_arrive_whole(attempt: Attempt) -> None:
    line = "x" * 99
    began = time.monotonic()
    ended = attempt.run(f"yes {line} | head -n 1000000")
    assert ended["cause"] == Cause.SUCCEEDED
    data = attempt.log()
    assert len(data) == 100_000_000
    assert data.count(b"\n") == 1_000_000
    assert time.monotonic() - began < 30


def test_a_log_over_its_limit_keeps_its_head_and_its_tail_and_the_command_goes_on(attempt: Attempt) -> None:
    limit = 1 << 20
    ended = attempt.run("seq 1000000; exit 6", limits=Limits(log_max_bytes=limit))
    assert ended["exit_code"] == 6
    log = Segments(attempt.directory / "log", limit)
    whole = b"".join(b"%d\n" % number for number in range(1, 1_000_001))
    assert log.size == len(whole)
    head = log.read(0, limit)
    assert head.data == whole[: len(head.data)]
    assert len(head.data) >= limit // 2
    tail = log.read(head.next_offset, limit)
    assert tail.offset > head.next_offset
    assert tail.data == whole[tail.offset :]


def test_a_process_that_keeps_the_output_open_does_not_keep_the_attempt(attempt: Attempt) -> None:
    assert attempt.run("setsid sleep 1000 & echo done")["cause"] == Cause.SUCCEEDED
    assert attempt.log() == b"done\n"
