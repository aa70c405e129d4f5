"""`make bench`: measure every row, or those that are named; print the table and write it as JSON."""

import argparse
import json
import signal
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path

from tests.bench import machine
from tests.bench.figures import Row, table

PARTS = {
    "launch": "launch, warm; new commit; push to running; end to finished check",
    "gang": "launch, 4 nodes",
    "intake": "signed pushes a second beside Probot and bare Starlette",
    "calls": "writes and reads of GitHub per experiment",
    "queue": "one admission decision with many waiting",
    "many": "500 one-second experiments beside submit_job",
    "log": "a million lines; the delay of a viewer",
    "code": "a tree of 100 MB to 3 nodes",
    "cancel": "Cancel pressed until nothing is left",
    "loss": "raylet killed, network cut, agent killed",
    "footprint": "memory, start-up time, installed size",
}
"""Each is the module of its name here, whose `measure()` yields rows."""


def measured(names: list[str]) -> Iterator[Row]:
    """The rows of these parts, one after another; each shows itself once it is measured."""
    for name in names:
        for row in import_module(f"tests.bench.{name}").measure():
            print(table([row]).splitlines()[-1], flush=True)
            for note in row.notes:
                print(f"    {note}", flush=True)
            yield row


def main() -> None:
    """Measure, print, write."""
    listed = "\n".join(f"  {name:10} {what}" for name, what in PARTS.items())
    parser = argparse.ArgumentParser(
        prog="make bench", epilog=f"parts:\n{listed}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", nargs="*", choices=[[], *PARTS], help="what to measure; everything if none is named")
    parser.add_argument("--json", type=Path, default=Path("bench.json"), help="where the figures go")
    wanted = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # everything is cleared up, as after a Ctrl-C
    before = machine.described()
    rows = list(measured(wanted.part or list(PARTS)))
    print(f"\n{table(rows)}\n\n{before}")
    at = datetime.now(UTC).isoformat(timespec="seconds")
    text = json.dumps({"at": at, "machine": before, "rows": [row.as_json() for row in rows]}, indent=1)
    wanted.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
