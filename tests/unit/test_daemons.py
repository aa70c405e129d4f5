"""The daemons of a node: each ordered once, and known after any restart."""

import json
import time
from pathlib import Path

import pytest

from launcher import daemons as room
from launcher.daemons import RECORD, Daemons, ended_with_the_node, name_of, recorded
from launcher.launch_door import code_of
from launcher.node_types import Daemon, NodeError

ONE, TWO = "1" * 32, "2" * 32


def known(attempt: Path) -> tuple[Daemons, list[None]]:
    told: list[None] = []
    return Daemons(attempt, lambda: told.append(None)), told


def test_an_order_is_given_until_it_has_begun_and_never_again(tmp_path: Path) -> None:
    daemons, _ = known(tmp_path)
    assert daemons.order(ONE, "/usr/bin/orted -mca x")
    assert not daemons.order(ONE, "/usr/bin/orted -mca x")
    assert daemons.waiting() == [ONE]
    assert daemons.told(ONE) == {"id": ONE, "name": "orted", "command": "/usr/bin/orted -mca x"}
    daemons.hear({"began": {"id": ONE, "name": "orted"}})
    assert daemons.waiting() == []
    assert daemons.told(ONE) is None
    assert not daemons.order(ONE, "/usr/bin/orted -mca x")


def test_what_began_and_ended_is_known_after_a_restart(tmp_path: Path) -> None:
    daemons, told = known(tmp_path)
    assert daemons.wait(ONE, 0) is None
    daemons.hear({"began": {"id": ONE, "name": "orted"}})
    assert daemons.wait(ONE, 0) == Daemon(ONE, "orted", None, None, None)
    assert daemons.hear({"ended": {"id": ONE, "name": "orted", "exit_code": 3, "at": 5.0}}) == ONE
    daemons.hear({"began": {"id": TWO, "name": "prted"}})
    expected = (Daemon(ONE, "orted", 3, None, 5.0), Daemon(TWO, "prted", None, None, None))
    assert daemons.all() == tuple(recorded(tmp_path).values()) == known(tmp_path)[0].all() == expected
    assert len(told) == 3


def test_what_is_told_twice_changes_nothing(tmp_path: Path) -> None:
    daemons, told = known(tmp_path)
    for _ in range(2):
        assert daemons.hear({"ended": {"id": ONE, "name": "orted", "exit_code": 0, "at": 5}}) == ONE
    daemons.hear({"ended": {"id": ONE, "name": "orted", "signal": "SIGKILL", "at": 6}})
    daemons.hear({"began": {"id": ONE, "name": "orted"}})
    assert daemons.all() == (Daemon(ONE, "orted", 0, None, 5.0),)
    assert len(told) == 1


def test_a_line_that_a_full_disk_tore_is_no_daemon(tmp_path: Path) -> None:
    daemons, _ = known(tmp_path)
    daemons.hear({"began": {"id": ONE, "name": "orted"}})
    with (tmp_path / RECORD).open("a") as record:
        record.write('{"id": "22')
    assert list(recorded(tmp_path)) == [ONE]


ENDED = {"id": ONE, "name": "orted", "exit_code": 0, "signal": None, "at": 5}


@pytest.mark.parametrize(
    "said",
    [
        *(None, [], {}, True, "x"),
        *({**ENDED, "id": wrong} for wrong in (None, 5, 10**31, [ONE], "../" + "1" * 29, ONE + "\n")),
        *({**ENDED, "name": wrong} for wrong in (None, ["orted"], {}, 5)),
        *({**ENDED, "exit_code": wrong} for wrong in (None, -1, 256, 10**400, "0", True, 0.0, [])),
        *({**ENDED, "exit_code": None, "signal": wrong} for wrong in ("SIGNAL", "signal 65", ["SIGKILL"], {}, 9)),
        {**ENDED, "signal": "SIGKILL"},
        *({**ENDED, "at": wrong} for wrong in (None, "now", -1, True, [], float("nan"), -(10**400))),
    ],
)
def test_nonsense_is_refused(tmp_path: Path, said: object) -> None:
    daemons, told = known(tmp_path)
    with pytest.raises(ValueError, match="no "):
        daemons.hear({"ended": said})
    assert (daemons.all(), told, (tmp_path / RECORD).exists()) == ((), [], False)


@pytest.mark.parametrize("at", [10**400, float("inf"), 9e99])
def test_no_time_is_later_than_now(tmp_path: Path, at: float) -> None:
    daemons, _ = known(tmp_path)
    assert daemons.hear({"ended": {**ENDED, "at": at}}) == ONE
    assert (daemons.all()[0].at or 9e99) <= time.time()


def test_a_time_to_come_is_now_and_a_name_is_plain_and_short(tmp_path: Path) -> None:
    daemons, _ = known(tmp_path)
    daemons.hear({"ended": {"id": ONE, "name": "\x1b[31m" + "x" * 99, "exit_code": 0, "at": 9e99}})
    (daemon,) = daemons.all()
    assert daemon.name == "[31m" + "x" * 36
    assert daemon.at is not None
    assert daemon.at < 9e98
    assert json.loads((tmp_path / RECORD).read_text())["at"] == daemon.at


def test_there_is_a_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "MOST", 1)
    daemons, _ = known(tmp_path)
    daemons.order(ONE, "true")
    with pytest.raises(NodeError, match="the most"):
        daemons.order(TWO, "true")


def test_past_the_most_nothing_is_written_or_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "MOST", 1)
    daemons, told = known(tmp_path)
    for number in range(3):
        for kind in ("began", "ended"):
            daemons.hear({kind: {**ENDED, "id": f"{number:032}"}})
    assert (len(daemons.all()), len(told), len((tmp_path / RECORD).read_text().splitlines())) == (1, 2, 2)


def test_what_waits_to_be_started_holds_only_so_much_memory(tmp_path: Path) -> None:
    daemons, _ = known(tmp_path)
    command = "x" * (room.MAX_COMMAND_BYTES - 4) + "\U0001f600"  # four bytes a letter, once it is text
    assert all(daemons.order(f"{number:032x}", command) for number in range(63))
    with pytest.raises(NodeError, match=f"hold {32 << 20} bytes, which is the most"):
        daemons.order(ONE, command)
    daemons.hear({"began": {"id": f"{0:032x}", "name": "x"}})
    assert daemons.order(ONE, command)


@pytest.mark.parametrize(("launch_id", "command"), [("x", "true"), (ONE, "x" * (room.MAX_COMMAND_BYTES + 1))])
def test_an_order_that_nothing_could_carry_out_is_refused(tmp_path: Path, launch_id: str, command: str) -> None:
    with pytest.raises(NodeError, match="a command of at most 131071 bytes is wanted"):
        known(tmp_path)[0].order(launch_id, command)


def test_a_node_that_ended_has_killed_what_ran() -> None:
    runs, ended = Daemon(ONE, "orted", None, None, None), Daemon(TWO, "orted", 0, None, 5.0)
    assert ended_with_the_node((runs, ended), 7.0) == (Daemon(ONE, "orted", None, "SIGKILL", 7.0), ended)


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ('PATH=/usr/bin:$PATH ; export PATH ; /usr/bin/orted -mca ess "env"', "orted"),
        ("prted --prtemca ess env", "prted"),
        ('"/venv/bin/hydra_pmi_proxy" --control-port h:1', "hydra_pmi_proxy"),
        ("/bin/true x", "true"),
        ("", ""),
    ],
)
def test_daemons_have_names(command: str, name: str) -> None:
    assert name_of(command) == name


@pytest.mark.parametrize(
    ("exit_code", "signal", "code"),
    [(7, None, 7), (None, "SIGKILL", 137), (None, "signal 40", 168), (None, None, None)],
)
def test_ends_have_the_codes_of_a_shell(exit_code: int | None, signal: str | None, code: int | None) -> None:
    assert code_of(Daemon(ONE, "orted", exit_code, signal, 1.0)) == code
