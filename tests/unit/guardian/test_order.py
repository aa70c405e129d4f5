"""What of an order goes where."""

import json
from pathlib import Path

from launcher.guardian_order import Enclosure, Order, marks, public, to_wire
from launcher.sandbox import Mount, SandboxOrder

ORDER = Order(
    key="exp-1-a1-n0",
    command="train --token hunter2",
    env={"TOKEN": "hunter2"},
    cwd="/workspace",
    sandbox=SandboxOrder(mounts=(Mount("/n/w", "/workspace", writable=True),), uid=4000, gid=4001),
)
DIRECTORY = Path("/n/attempts/exp-1-a1-n0")


def test_what_lies_on_disk_holds_neither_environment_nor_command() -> None:
    text = json.dumps(public(ORDER))
    assert "hunter2" not in text
    assert json.loads(text)["sandbox"]["mounts"][0]["target"] == "/workspace"


def test_the_guardian_gets_all_of_it_and_the_mark() -> None:
    wire = to_wire(DIRECTORY, ORDER, Enclosure(bwrap=["bwrap"], copied=[], init=["python"], root=True))
    assert wire["env"] == {"TOKEN": "hunter2", **marks(DIRECTORY, "exp-1-a1-n0")}
    assert (wire["command"], wire["uid"], wire["gid"]) == ("train --token hunter2", 4000, 4001)
    assert wire["limits"]["log_max_bytes"] == 1 << 30


def test_only_root_changes_the_user() -> None:
    wire = to_wire(DIRECTORY, ORDER, Enclosure(bwrap=["bwrap"], copied=[], init=["python"], root=False))
    assert (wire["uid"], wire["gid"]) == (None, None)


def test_a_plain_order_has_no_sandbox() -> None:
    wire = to_wire(DIRECTORY, Order(key="k", command="c", env={}, cwd="/"), None)
    assert (wire["bwrap"], wire["uid"]) == (None, None)


def test_attempts_of_one_key_in_two_places_differ() -> None:
    here, there = marks(DIRECTORY, "exp-1-a1-n0"), marks(Path("/other") / DIRECTORY.name, "exp-1-a1-n0")
    assert here["DESCENT_ATTEMPT"] == there["DESCENT_ATTEMPT"] == "exp-1-a1-n0"
    assert here["DESCENT_PLACE"] != there["DESCENT_PLACE"]
    assert "attempts" not in here["DESCENT_PLACE"]
