"""What is written into the rows is told to whoever shows them."""

import asyncio
from dataclasses import replace
from pathlib import Path

from ci_bot.worker.books import Books
from ci_bot.worker.journal import Journal
from launcher.experiment import Held, HeldNode, NodeState
from tests.unit.worker.test_launch import House

NODE = HeldNode("exp-1-a1-n1", "n1", "host-b", "10.0.0.2", role="worker", index=1)


def test_what_becomes_of_a_node_is_shown_without_waiting_for_the_next_state(books: Books, tmp_path: Path) -> None:
    house = House(books, tmp_path)
    told: list[int] = []

    async def story() -> None:
        found = await house.get(await house.create(at=0.0))
        journal = Journal(books, changed=lambda: told.append(1), moved=lambda *_: None)
        held = Held("exp-1-a1", "c1", (replace(NODE, state=NodeState.ENDED, exit_code=137),))
        await journal.hold(found.id, found.progress, held)
        assert (await house.get(found.id)).held == held

    asyncio.run(story())
    assert told == [1]
