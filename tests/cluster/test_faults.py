"""Whatever dies on whichever host in whichever state: a true end; that nothing is left, `ground` sees to.

CELLS=n draws so many, CELLS=all takes the whole matrix; SEED=… draws the same again; CELL=name,name takes these.
"""

import os
import random

import pytest

from launcher.state import State
from tests.cluster import cells
from tests.cluster.cells import Cell
from tests.cluster.ground import Ground
from tests.cluster.striking import Strike
from tests.cluster.topologies import READY
from tests.e2e.stack import Repo

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(600)]
SAMPLE = 12
SEED = int(os.environ.get("SEED") or random.randrange(1_000_000))
os.environ["SEED"] = str(SEED)  # what is drawn here is what the session prints


def chosen() -> list[Cell]:
    """The cells of this session."""
    if names := os.environ.get("CELL"):
        return [cell for cell in cells.every(READY) if cell.words in names.split(",")]
    wanted = os.environ.get("CELLS") or str(SAMPLE)
    return cells.every(READY) if wanted == "all" else cells.drawn(READY, SEED, int(wanted))


@pytest.mark.parametrize("cell", chosen(), ids=lambda cell: cell.words)
def test_it_comes_to_a_true_end_and_leaves_nothing(
    cell: Cell, ground: Ground, repo: Repo, seed: int, struck: list[tuple[Cell, State, str]]
) -> None:
    strike = Strike(ground, repo, cell, random.Random(f"{seed} {cell.words}"))
    strike.run()
    assert strike.struck_in is not None
    struck.append((cell, strike.struck_in, strike.struck))
    print(strike.story())
    assert strike.untruths() == [], strike.story()
