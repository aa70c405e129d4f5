"""Times, amounts and reasons to wait read as a person would say them."""

from dataclasses import dataclass, field

import pytest

from ci_bot.report import amounts, durations
from ci_bot.report.pending import named, too_many, unknown_machine_type, unsatisfiable, why_pending


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-1, "0.0 s"),
        (0.04, "0.0 s"),
        (3.21, "3.2 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (725, "12 min 05 s"),
        (3599.7, "1 h 00 min"),
        (3840, "1 h 04 min"),
        (86_399.9, "1 d 00 h"),
        (2 * 86_400 + 3 * 3600 + 59, "2 d 03 h"),
    ],
)
def test_durations_have_two_units_at_most(seconds: float, words: str) -> None:
    assert durations.duration(seconds) == words


def test_times_are_utc() -> None:
    at = 1_772_366_584.1254
    assert durations.rfc3339(at) == "2026-03-01T12:03:04.125Z"
    assert durations.rfc3339(0) == "1970-01-01T00:00:00.000Z"
    assert durations.clock(at) == "12:03:04 UTC"
    assert durations.date_clock(at) == "2026-03-01 12:03:04"


def test_ages_are_coarse() -> None:
    assert [durations.age(s) for s in (0, 599, 600, 3600, 86_399, 86_400, 10**7)] == [
        "",
        "",
        "10 minutes",
        "1 hour",
        "12 hours",
        "1 day",
        "7 days",
    ]


def test_amounts_have_their_units() -> None:
    assert [amounts.size(n) for n in (0, 1, 1023, 1024, 1536, 2**30 - 1, 17_072_495_001, 2**40, 2**60)] == [
        "0 bytes",
        "1 byte",
        "1\u202f023 bytes",
        "1 KiB",
        "1.5 KiB",
        "1 GiB",
        "15.9 GiB",
        "1 TiB",
        "1048576 TiB",
    ]
    assert amounts.count(1234567) == "1\u202f234\u202f567"
    assert [amounts.plural(n, "file") for n in (0, 1, 2)] == ["0 files", "1 file", "2 files"]
    assert amounts.resources({"memory": 2**34, "CPU": 8.0, "GPU": 0.5, "rack": 1}) == (
        "0.5 GPUs, 8 CPUs, 16 GiB of memory, 1 × rack"
    )
    assert amounts.resources({}) == "nothing"


@dataclass(frozen=True)
class Short:
    """What the queue says."""

    blocked: str = "machines"
    ahead: int = 0
    needed: dict[str, float] = field(default_factory=dict)
    free: dict[str, float] = field(default_factory=dict)
    missing: dict[str, float] = field(default_factory=dict)
    host: str = ""
    limit: int | None = None


NEEDED = {"GPU": 1.0, "CPU": 8.0}


@pytest.mark.parametrize(
    ("shortage", "words"),
    [
        (
            Short(ahead=3, needed=NEEDED, free={"GPU": 0, "CPU": 8}, missing={"GPU": 1}, host="host-a"),
            "Waits for 1 × P4000 (1 GPU, 8 CPUs): the closest node, host-a, has 0 GPUs, 8 CPUs free and lacks 1 GPU; "
            "3 experiments are ahead.",
        ),
        (
            Short(needed=NEEDED, missing=NEEDED),
            "Waits for 1 × P4000 (1 GPU, 8 CPUs): no such machine is here now; it is next in line.",
        ),
        (
            Short("ahead", ahead=1, needed=NEEDED, free=NEEDED, host="host-a"),
            "Waits for 1 × P4000 (1 GPU, 8 CPUs): the closest node, host-a, has 1 GPU, 8 CPUs free; "
            "1 experiment is ahead.",
        ),
        (
            Short("unplaced", needed=NEEDED),
            "Waits for 1 × P4000 (1 GPU, 8 CPUs): by Descent's count there is room, but Ray could not place it, so "
            "something else on the cluster uses that; it is tried again after growing pauses of up to half an hour; "
            "it is next in line.",
        ),
        (
            Short("max running", ahead=2, limit=4),
            "Waits for others to end: MAX_RUNNING=4 is reached; 2 experiments are ahead.",
        ),
        (
            Short("max running per repository", limit=0),
            "Waits for others to end: MAX_RUNNING_PER_REPOSITORY=0 is reached; it is next in line.",
        ),
    ],
)
def test_why_it_waits_is_always_answered(shortage: Short, words: str) -> None:
    assert why_pending(shortage, machine_type="P4000") == words


def test_a_host_that_gets_nothing_is_named() -> None:
    text = why_pending(Short(needed=NEEDED, host="host-a"), nodes=2, quarantined=("host-b", "host-c"))
    assert text == (
        "Waits for 1 GPU, 8 CPUs: the closest node, host-a, has 0 GPUs, 0 CPUs free; "
        "host-b, host-c get nothing until proven clean; it is next in line."
    )


def test_what_can_never_run_says_what_would_fit() -> None:
    assert unsatisfiable("8 GPUs", {"GPU": 2.0}, ["P4000", "CPU"]) == (
        "No machine here can ever run this: it needs 8 GPUs, the largest node has 2 GPUs. "
        "Change machine-type to one of: P4000, CPU."
    )
    ray = {"node:10.0.0.5": 1.0, "CPU": 8.0, "object_store_memory": 2.0**30, "memory": 2.0**34}
    assert "the largest node has 0 GPUs, 8 CPUs, 16 GiB of memory." in unsatisfiable("1 GPU", ray)
    assert unsatisfiable("8 GPUs", "4 CPUs").endswith("has 4 CPUs. Ask for less, or add such a machine.")
    assert "there is no machine type P9. Change machine-type to one of: P4000." in unknown_machine_type("P9", ["P4000"])
    assert unknown_machine_type("P9", []).endswith("The operator's table has none.")
    assert named([f"m{n}" for n in range(10)]) == "m0, m1, m2, m3, m4, m5, m6, m7 and 2 more"


def test_too_many_nodes_for_the_hosts_say_how_many_there_are_and_what_would_help() -> None:
    assert too_many("4 nodes of 1 CPU", 4, 3, shared_hosts=False) == (
        "No machines here can ever run this: it needs 4 hosts (4 nodes of 1 CPU), this cluster has 3. "
        "Ask for less, add hosts, or let nodes share a host (ALLOW_SHARED_HOSTS=1)."
    )
    assert "this cluster has room for 3 of the 4 nodes at a time" in too_many("x", 4, 3, shared_hosts=True)
