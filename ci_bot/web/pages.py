"""The pages of the dashboard and their JSON: the list, and one experiment."""

from typing import Any

from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ci_bot.records import Experiment, Transition
from ci_bot.report.markdown import Ink
from ci_bot.report.plain import clean
from ci_bot.store import check_runs, experiments
from ci_bot.web import nodes, view
from ci_bot.web.logs import TAIL_BYTES, Place, line_start, read_piece
from ci_bot.web.lookup import Wanted, chosen_rank, readable_experiment, readable_page, readable_repositories
from ci_bot.web.room import Room, page, room_of, secrets_of
from launcher.keep import StoredFile
from launcher.state import TERMINAL, State

UNFINISHED = "unfinished"
MOST_FILES = 500


async def listing(request: Request) -> Response:
    """`/`: the newest experiments, by repository and state."""
    wanted, query = _wanted(request), request.query_params
    found, more = await readable_page(request, wanted)
    room = room_of(request)
    timelines = await room.read(lambda connection: _timelines(connection, found))
    now = room.clock()
    values: dict[str, Any] = {
        "rows": [view.row(each, timelines[each.id], now) for each in found],
        "older": found[-1].id if more and found else None,
        "before": wanted.before,
        "filters": {name: query[name] for name in ("repository", "state") if query.get(name)},
    }
    if query.get("part") == "rows":
        return page(request, "rows.html", **values)
    known = {each.id: clean(each.full_name) for each in await readable_repositories(request)}
    known |= {each.repository_id: clean(each.full_name) for each in found if each.repository_id not in known}
    repositories = sorted(known.items(), key=lambda item: item[1])
    states = [(state.value, state.words) for state in State]
    return page(request, "list.html", **values, repositories=repositories, states=states, unfinished=UNFINISHED)


def _timelines(connection: Connection, found: list[Experiment]) -> dict[int, list[Transition]]:
    """Those of experiments whose command was started; of others nothing is to be told."""
    started = [each.id for each in found if each.running_at is not None]
    return {each.id: [] for each in found} | experiments.timelines(connection, started)


async def listing_json(request: Request) -> Response:
    """`/experiments.json`: the same, for programs."""
    found, more = await readable_page(request, _wanted(request))
    older = found[-1].id if more and found else None
    return JSONResponse({"experiments": [view.record(each) for each in found], "older": older})


def _wanted(request: Request) -> Wanted:
    query = request.query_params
    repository, state, before = query.get("repository", ""), query.get("state", ""), query.get("before", "")
    states: frozenset[State] | None = None
    if state == UNFINISHED:
        states = frozenset(State) - TERMINAL
    elif state in State.__members__:
        states = frozenset({State[state]})
    return Wanted(
        repository_ids=[int(repository)] if _is_number(repository) else None,
        states=states,
        before=int(before) if _is_number(before) else None,
    )


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and int(text) < 2**63 if len(text) < 20 else False


async def experiment_page(request: Request) -> Response:
    """`/experiments/<id>`."""
    room, experiment = room_of(request), await readable_experiment(request)

    def look(connection: Connection) -> tuple[list[Transition], int | None]:
        runs = check_runs.of_experiment(connection, experiment.id)
        posted = [run.github_id for run in runs if run.github_id is not None]
        return experiments.transitions(connection, experiment.id), posted[-1] if posted else None

    transitions, check_run_id = await room.read(look)
    values = view.details(experiment, transitions, room.clock())
    values["artifacts"] = await _files(room, experiment)
    values["links"] = _links(room, experiment, check_run_id)
    default = await room.in_thread(lambda: room.telling_rank(experiment))
    values["rank"] = chosen_rank(request, experiment, unless_chosen=default)
    if request.query_params.get("part") == "state":
        return page(request, "state.html", **values)
    values |= {"parameters": view.parameters(experiment), "log": await _log(room, experiment, values["rank"])}
    return page(request, "experiment.html", **values)


async def experiment_json(request: Request) -> Response:
    """`/experiments/<id>.json`."""
    room, experiment = room_of(request), await readable_experiment(request)
    transitions = await room.read(lambda connection: experiments.transitions(connection, experiment.id))
    files = await room.files(experiment)
    return JSONResponse(
        view.record(experiment, transitions)
        | {
            "nodes": nodes.records(experiment, Ink(secrets_of(experiment))),
            "artifacts": [{"path": f.path, "size": f.size} for f in files],
        }
    )


async def _files(room: Room, experiment: Experiment) -> dict[str, Any]:
    files: list[StoredFile] = await room.files(experiment)
    shown = [{"path": f.path, "words": clean(f.path), "size": view.file_size(f.size)} for f in files[:MOST_FILES]]
    total = view.file_size(sum(f.size for f in files))
    return {"files": shown, "more": max(len(files) - MOST_FILES, 0), "count": len(files), "total": total}


def _links(room: Room, experiment: Experiment, check_run_id: int | None) -> dict[str, str]:
    base = f"{room.settings.github_url}/{experiment.full_name}"
    links = {"repository": base, "commit": f"{base}/commit/{experiment.head_sha}"}
    return links | ({"check": f"{base}/runs/{check_run_id}"} if check_run_id else {})


async def _log(room: Room, experiment: Experiment, rank: int) -> dict[str, Any]:
    """The end of a node's log as it is now, the place at which the stream goes on, and the nodes to choose from."""
    attempt, ended = experiment.progress.attempt, experiment.ended_at is not None
    segments = room.log_of(experiment.id, attempt, rank)
    names = nodes.names(experiment.specification)

    def look() -> dict[str, Any]:
        start = line_start(segments, segments.size - TAIL_BYTES)
        piece = read_piece(segments, start, secrets=secrets_of(experiment), final=ended)
        return {
            "html": piece.html,
            "partial": piece.partial,
            "place": str(Place(attempt, piece.end)),
            "earlier": view.file_size(start) if start else "",
            "size": view.file_size(piece.size) if piece.size else "",
            "attempt": attempt,
            "attempts": list(range(1, attempt)),
            "names": names,
            "whose": names[rank] if names else "",
            "choice": f"node={rank}" if names else "",
        }

    return await room.in_thread(look)
