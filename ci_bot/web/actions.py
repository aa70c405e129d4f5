"""What people do on the dashboard: cancel, and run again. The rules of a re-run are those of `decide`."""

from dataclasses import replace

from sqlalchemy import Connection
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from ci_bot import decide
from ci_bot.config import Configuration, ConfiguredExperiment
from ci_bot.decide import Commit, Known, Nothing, Read, RefuseRerun, Start
from ci_bot.records import Experiment, Wish
from ci_bot.store import approvals, experiments, repositories
from ci_bot.web.guard import checked_form
from ci_bot.web.lookup import readable_experiment, writable_repository
from ci_bot.web.room import room_of, viewer_of
from ci_bot.worker.apply import apply


async def cancel(request: Request) -> Response:
    """`POST /experiments/<id>/cancel`: a wish; the launch loop makes it true."""
    await checked_form(request)
    room, viewer = room_of(request), viewer_of(request)
    experiment = await readable_experiment(request)
    await writable_repository(request, experiment)
    wish = Wish(viewer.name, f"cancelled by {viewer.name}", room.clock())
    wished = await room.write(lambda connection: experiments.wish(connection, experiment.id, wish))
    if not wished and experiment.wish is None:
        raise HTTPException(409, f"{experiment.name} has ended already; there is nothing to cancel.")
    room.nudge()
    return RedirectResponse(f"/experiments/{experiment.id}", 303)


async def rerun(request: Request) -> Response:
    """`POST /experiments/<id>/rerun`: the same experiment at the same commit, once more."""
    await checked_form(request)
    room, viewer = room_of(request), viewer_of(request)
    experiment = await readable_experiment(request)
    await writable_repository(request, experiment)

    def run_again(connection: Connection) -> int | Nothing:
        return start_again(connection, experiment, who=viewer.name, at=room.clock())

    begun = await room.write(run_again)
    if isinstance(begun, Nothing):
        raise HTTPException(409, f"Not run again: {begun.why}.")
    room.nudge()
    return RedirectResponse(f"/experiments/{begun}", 303)


def start_again(connection: Connection, experiment: Experiment, *, who: str, at: float) -> int | Nothing:
    """Write the next run of an experiment's name at its commit; its id, or why there is none."""
    repository = repositories.get(connection, experiment.repository_id)
    if repository is None:
        return Nothing(f"the App was removed from {experiment.full_name}, or suspended")
    newest = experiments.newest(connection, experiment.repository_id, experiment.head_sha, experiment.name)
    newest = newest or experiment
    approval = approvals.approval(connection, newest.repository_id, newest.head_sha)
    known = Known(
        Commit(newest.head_sha, newest.ref, newest.title),
        _as_read(newest),
        approver=approval.approver if approval else None,
        existing=(newest,),
    )
    decisions = decide.on_rerun(None, who, known, fork=not newest.trusted, at=at)
    starts = [each for each in decisions if isinstance(each, Start)]
    if not starts:
        refusals = (each.why for each in decisions if isinstance(each, Nothing | RefuseRerun))
        return Nothing(next(refusals, "nothing is to be started"))
    apply(connection, repository, [replace(starts[0], notes=_notes(newest))], at)
    begun = experiments.newest(connection, newest.repository_id, newest.head_sha, newest.name)
    return begun.id if begun else Nothing("nothing was started")


def _as_read(experiment: Experiment) -> Read:
    """The configuration as this experiment has it, parameters file and all; GitHub is not asked again."""
    configured = ConfiguredExperiment(specification=experiment.specification, line=1)
    configuration = Configuration(
        path=experiment.configuration_path, version=None, experiments=(configured,), problems=()
    )
    return Read(experiment.configuration_path, experiment.configuration_source, configuration, experiment.head_sha)


def _notes(experiment: Experiment) -> tuple[str, ...]:
    """The remarks on the configuration; those on the former run are its own."""
    return tuple(note for note in experiment.notes if note.startswith(f"{experiment.configuration_path}:"))
