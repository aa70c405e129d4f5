"""Writes keep a polite pace; pauses that GitHub asks for are kept."""

from ci_bot.github.pace import BURST, Pace


def test_the_states_of_one_experiment_go_out_at_once() -> None:
    pace = Pace()
    assert [pace.reserve_write_s(1, 100.0) for _ in range(BURST)] == [0.0] * BURST


def test_after_a_burst_writes_are_a_second_apart() -> None:
    pace = Pace()
    waits = [pace.reserve_write_s(1, 100.0) for _ in range(BURST + 3)]
    assert waits[BURST:] == [1.0, 2.0, 3.0]


def test_quiet_time_earns_the_burst_back() -> None:
    pace = Pace()
    for _ in range(BURST + 3):
        pace.reserve_write_s(1, 100.0)
    assert pace.reserve_write_s(1, 200.0) == 0.0


def test_no_minute_has_more_writes_than_github_allows() -> None:
    pace = Pace()
    starts = [100.0 + pace.reserve_write_s(1, 100.0) for _ in range(300)]
    assert max(sum(1 for s in starts if a <= s < a + 60) for a in starts) <= 80


def test_installations_do_not_wait_for_each_other() -> None:
    pace = Pace()
    for _ in range(BURST + 5):
        pace.reserve_write_s(1, 100.0)
    assert pace.reserve_write_s(2, 100.0) == 0.0


def test_a_pause_ends_by_itself_and_the_longest_counts() -> None:
    pace = Pace()
    pace.limited(1, 160.0)
    pace.limited(1, 130.0)
    assert pace.silent_until(1, 159.0) == 160.0
    assert pace.silent_until(1, 160.0) is None
    assert pace.silent_until(2, 159.0) is None


def test_pauses_in_a_row_are_counted_until_a_call_goes_through() -> None:
    pace = Pace()
    pace.limited(1, 160.0)
    pace.limited(1, 260.0)
    assert pace.attempt(1) == 3
    pace.succeeded(1)
    assert pace.attempt(1) == 1


def test_a_removed_installation_leaves_nothing() -> None:
    pace = Pace()
    pace.limited(1, 160.0)
    pace.forget(1)
    assert pace.silent_until(1, 100.0) is None
    assert pace.attempt(1) == 1
