"""Experiments by their address, for who may see them; whatever may not be seen looks as if it did not exist."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import partial

from sqlalchemy import Connection
from starlette.exceptions import HTTPException
from starlette.requests import Request

from ci_bot.records import Experiment, Repository
from ci_bot.report.nodes import node_count
from ci_bot.store import experiments, repositories
from ci_bot.web.room import place_of, room_of, viewer_of
from launcher.state import State

NOT_FOUND = "There is no such experiment, or it is not yours to see."
PAGE_ROWS = 50
MOST_ROWS = 1000
"""How many experiments are looked at for one page, when most are of repositories that the viewer can't read."""


@dataclass(frozen=True)
class Wanted:
    """Which experiments a page asks for."""

    repository_ids: Collection[int] | None = None
    states: Collection[State] | None = None
    before: int | None = None


async def readable_experiment(request: Request) -> Experiment:
    """The experiment of the address.

    Raises:
        HTTPException: 404, there is none that this viewer may read.
    """
    room, experiment_id = room_of(request), int(request.path_params["id"])
    if experiment_id >= 2**63:
        raise HTTPException(404, NOT_FOUND)
    experiment = await room.read(lambda connection: experiments.get(connection, experiment_id))
    if experiment is None:
        raise HTTPException(404, NOT_FOUND)
    repository = await room.read(lambda connection: place_of(connection, experiment))
    if not await viewer_of(request).may_read(repository):
        raise HTTPException(404, NOT_FOUND)
    return experiment


def number(request: Request, name: str, default: int) -> int:
    """A whole number of the address's query.

    Raises:
        HTTPException: 400, it is none.
    """
    text = request.query_params.get(name, "")
    if not text:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise HTTPException(400, f"{name} must be a whole number, got {text[:40]!r}.")
    return int(text)


def chosen_rank(request: Request, experiment: Experiment, *, unless_chosen: int) -> int:
    """The node whose log is asked for with `?node=<rank>`.

    Raises:
        HTTPException: 400, it is no number; 404, the experiment has no such node.
    """
    rank, count = number(request, "node", unless_chosen), node_count(experiment)
    if rank >= count:
        raise HTTPException(404, f"There is no node {rank}: {experiment.name} has {count}, counted from 0.")
    return rank


async def writable_repository(request: Request, experiment: Experiment) -> Repository:
    """The experiment's repository, for who may act in it.

    Raises:
        HTTPException: 403, GitHub gives this person no write permission.
    """
    room, viewer = room_of(request), viewer_of(request)
    repository = await room.read(lambda connection: place_of(connection, experiment))
    if not await viewer.may_write(repository):
        raise HTTPException(403, f"{viewer.name} may not: that needs write permission in {repository.full_name}.")
    return repository


async def readable_repositories(request: Request) -> list[Repository]:
    """Those that this viewer may read, by name."""
    room, viewer = room_of(request), viewer_of(request)
    return [each for each in await room.read(repositories.present) if await viewer.may_read(each)]


async def readable_page(request: Request, wanted: Wanted, rows: int = PAGE_ROWS) -> tuple[list[Experiment], bool]:
    """The newest experiments that this viewer may read, and whether there are more."""
    room, viewer = room_of(request), viewer_of(request)
    found: list[Experiment] = []
    before, looked = wanted.before, 0
    while looked < MOST_ROWS:
        batch = await room.read(partial(_batch, wanted=replace(wanted, before=before), limit=rows + 1))
        for experiment, repository in batch:
            if await viewer.may_read(repository):
                found.append(experiment)
                if len(found) > rows:
                    return found[:rows], True
        if len(batch) <= rows:
            return found, False
        before, looked = batch[-1][0].id, looked + len(batch)
    return found, True


def _batch(connection: Connection, *, wanted: Wanted, limit: int) -> list[tuple[Experiment, Repository]]:
    rows = experiments.listed(
        connection, repository_ids=wanted.repository_ids, states=wanted.states, before=wanted.before, limit=limit
    )
    places = {each.repository_id: place_of(connection, each) for each in rows}
    return [(each, places[each.repository_id]) for each in rows]
