"""Writing check runs, and finding those that we wrote."""

from dataclasses import replace

from ci_bot.github import answers, payload
from ci_bot.github.answers import PostedCheckRun
from ci_bot.github.repositories import Place, access, names
from ci_bot.github.session import Session
from ci_bot.github.tokens import CHECKS
from ci_bot.records import CheckRun


class CheckCalls:
    """Check runs of one repository."""

    def __init__(self, session: Session, app_id: int | None) -> None:
        self._session = session
        self._app_id = app_id

    async def create_check_run(self, repo: Place, run: CheckRun) -> PostedCheckRun:
        """Post a new check run with its first 50 annotations; `update_check_run` appends the others.

        Not idempotent: after a crash between this and its acknowledgement, `find_check_run` tells whether it is there.
        """
        url = "/repos/{owner}/{repo}/check-runs"
        body = payload.create_body(run)
        posted = await self._session.post(access(repo, CHECKS), url, body, answers.check_run, paced=True, **names(repo))
        return replace(posted, annotations=payload.sent_annotations(run, 0))

    async def update_check_run(
        self, repo: Place, check_run_id: int, run: CheckRun, annotations_from: int
    ) -> PostedCheckRun:
        """Make a check run look like `run`, in one request, which appends up to 50 annotations.

        Args:
            repo: where it is.
            check_run_id: GitHub's number of it.
            run: what it should be.
            annotations_from: how many of run.annotations GitHub has; the answer's `annotations` is the next value.
        """
        url = "/repos/{owner}/{repo}/check-runs/{check_run_id}"
        body = payload.update_body(run, annotations_from)
        posted = await self._session.patch(
            access(repo, CHECKS), url, body, answers.check_run, paced=True, check_run_id=check_run_id, **names(repo)
        )
        return replace(posted, annotations=payload.sent_annotations(run, annotations_from))

    async def find_check_run(self, repo: Place, sha: str, name: str, external_id: str) -> PostedCheckRun | None:
        """Our newest check run of that name and external_id on a commit, or None."""
        url = "/repos/{owner}/{repo}/commits/{sha}/check-runs{?check_name,filter,app_id,per_page}"
        runs = await self._session.list(
            access(repo, CHECKS),
            url,
            answers.check_run,
            key="check_runs",
            sha=sha,
            check_name=name,
            filter="all",  # "latest" would hide a run behind another of its name
            app_id=self._app_id,
            **names(repo),
        )
        ours = [r for r in runs if r.name == name and r.external_id == external_id and r.app_id in {None, self._app_id}]
        return max(ours, key=lambda r: r.id, default=None)

    async def suite_check_runs(self, repo: Place, check_suite_id: int) -> tuple[PostedCheckRun, ...]:
        """The newest check run of each name in a suite."""
        url = "/repos/{owner}/{repo}/check-suites/{suite_id}/check-runs{?per_page}"
        return await self._session.list(
            access(repo, CHECKS), url, answers.check_run, key="check_runs", suite_id=check_suite_id, **names(repo)
        )
