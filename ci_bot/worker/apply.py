"""Decisions into rows, in the caller's transaction; no policy."""

from collections.abc import Sequence

from sqlalchemy import Connection

from ci_bot import decide
from ci_bot.config import mask
from ci_bot.decide import Decision, Report
from ci_bot.records import CheckRun, Repository, Wish
from ci_bot.report import other_checks
from ci_bot.report.other_checks import REFUSED_RERUN, refused_rerun
from ci_bot.store import approvals, check_runs, claims, experiments, repositories
from ci_bot.store.approvals import Approval
from ci_bot.store.experiments import Draft
from launcher.state import Progress

TRUSTED = "repository"
FORK = "fork"


def apply(connection: Connection, repository: Repository | None, decisions: Sequence[Decision], at: float) -> None:
    """Write what was decided about a repository."""
    if repository is None:
        return
    if any(isinstance(decision, decide.Start | decide.Report | decide.Approve) for decision in decisions):
        # GitHub was asked, so it is there. An end may be told late, of a repository that was removed since.
        repositories.remember(connection, repository)
    for decision in decisions:
        match decision:
            case decide.Start():
                _start(connection, repository, decision, at)
            case decide.EndClaims():
                _end_claims(connection, repository, decision, at)
            case decide.Approve(head_sha=head_sha, approver=approver):
                approvals.approve(connection, Approval(repository.id, head_sha, approver, at))
            case decide.Cancel(experiment_id=experiment_id, by=by, why=why):
                experiments.wish(connection, experiment_id, Wish(by, why, at))
            case decide.RefuseRerun(experiment_id=experiment_id, by=by, at=asked_at):
                told = refused_rerun(by, asked_at)
                experiments.remark(connection, experiment_id, [told], replacing=REFUSED_RERUN)
            case decide.Forget() | decide.Welcome() | decide.Nothing():
                pass
            case _:
                _report(connection, repository, decision)


def _start(connection: Connection, repository: Repository, start: decide.Start, at: float) -> None:
    newest = experiments.newest(connection, repository.id, start.head_sha, start.specification.name)
    draft = Draft(
        repository_id=repository.id,
        installation_id=repository.installation_id,
        full_name=repository.full_name,
        head_sha=start.head_sha,
        ref=start.ref,
        name=start.specification.name,
        specification=start.specification,
        configuration_path=start.configuration_path,
        configuration_source=start.configuration_source,
        rerun=decide.rerun_number(start, newest),
        title=start.title,
        trusted=start.trusted,
        notes=start.notes,
        progress=Progress(user_retries=start.specification.retries),
    )
    experiments.create(connection, draft, start.claim, at)


def _end_claims(connection: Connection, repository: Repository, ending: decide.EndClaims, at: float) -> None:
    unwanted = claims.end(
        connection,
        repository_id=repository.id,
        kind=ending.kind,
        key=ending.key,
        why=ending.why,
        at=at,
        except_sha=ending.except_sha,
        only_sha=ending.only_sha,
    )
    for experiment_id in unwanted:
        experiments.wish(connection, experiment_id, Wish(decide.DESCENT, ending.why, at))


def _report(connection: Connection, repository: Repository, report: Report) -> None:
    """A check run that belongs to no experiment; one that an experiment has already is left to it."""
    wanted = render(report)
    last = check_runs.newest(connection, repository.id, wanted.head_sha, wanted.name)
    if last is not None and (last.experiment_id is not None or last.wanted == wanted):
        return
    if isinstance(report, decide.ReportFine) and last is None:
        return  # only an older verdict on the file is corrected
    check_runs.want(connection, wanted, repository_id=repository.id)


def render(report: Report) -> CheckRun:
    """The check run of a report; its external id keeps whether the commit was pushed to the repository itself."""
    return _drawn(report).model_copy(update={"external_id": TRUSTED if report.trusted else FORK})


def _drawn(report: Report) -> CheckRun:
    match report:
        case decide.ReportProblems(head_sha=head_sha, configuration=read):
            return other_checks.configuration_check(
                read.path, read.configuration.problems, head_sha, commit=read.commit
            )
        case decide.ReportFine(head_sha=head_sha, configuration=read):
            return other_checks.configuration_fine(read.path, read.configuration.problems, head_sha)
        case decide.ReportSkipped(head_sha=head_sha, name=name, why=why):
            return other_checks.skipped(name, head_sha, why)
        case decide.ReportNotMatching(head_sha=head_sha, name=name, tested=tested):
            return other_checks.not_matching(name, head_sha, tested)
        case decide.ReportMissed(head_sha=head_sha, name=name):
            return other_checks.missed(name, head_sha)
        case decide.ReportWaiting(head_sha=head_sha, name=name, number=number, configuration=read):
            return other_checks.fork_waiting(
                name, head_sha, number, path=read.path, source=mask(read.source), commit=read.commit
            )
