"""The pages about repositories: commits and pull requests with their check runs and buttons."""

import functools
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, RedirectResponse, Response
from starlette.routing import Route

from ci_bot.local_github import app_pages, checks, commands, git, pulls
from ci_bot.local_github.calls import Refusal, not_found
from ci_bot.local_github.hub import Hub
from ci_bot.local_github.session import (
    KEY_HINT,
    TEMPLATES,
    form_of,
    has_key,
    local_path,
    must_sign_in,
    page,
    sign_in,
    signed_in,
    take_key,
)
from ci_bot.local_github.state import CheckRun, Json, Repository

Page = Callable[[Hub, Request], Awaitable[Response]]
HISTORY_SHOWN = 30
_STATIC = ("style.css", "live.js")
_MAY_PRESS = ("write", "maintain", "admin")
_REFUSED = {403: "Not allowed", 404: "Not found", 422: "This can't be done"}
_WORDS = {
    "success": "successful",
    "failure": "failing",
    "timed_out": "timed out",
    "cancelled": "cancelled",
    "neutral": "neutral",
    "skipped": "skipped",
    "action_required": "action required",
    "queued": "queued",
    "in_progress": "in progress",
}


def guarded(hub: Hub, serve: Page) -> Callable[[Request], Awaitable[Response]]:
    """A page whose refusals are pages too."""

    @functools.wraps(serve)
    async def endpoint(request: Request) -> Response:
        try:
            return take_key(hub, request) or await serve(hub, request)
        except Refusal as refusal:
            title = _REFUSED.get(refusal.status, f"Refused ({refusal.status})")
            values = {"title": title, "message": refusal.message, "errors": refusal.errors or []}
            return page(hub, request, "refusal.html", values, status=refusal.status)

    return endpoint


def _repository(hub: Hub, request: Request) -> Repository:
    found = hub.world.repository(request.path_params["owner"], request.path_params["repo"])
    if found is None or found.role_of(signed_in(hub, request)) is None:
        raise not_found()
    return found


def state_of(run: CheckRun) -> str:
    """The one word that an icon shows: the conclusion, or the status before there is one."""
    return run.conclusion or run.status


def took(run: CheckRun, now: float) -> str:
    """How long a run took, or has taken."""
    if run.started_at is None:
        return ""
    whole_s = int(max(0.0, (run.completed_at or now) - run.started_at))
    return f"{whole_s // 60}m {whole_s % 60}s" if whole_s >= 60 else f"{whole_s}s"


def suites(hub: Hub, repository: Repository, sha: str) -> list[Json]:
    """The check suites of a commit, as the template shows them."""
    shown = []
    for suite in list(hub.world.suites.values()):
        if (suite.repository_id, suite.head_sha) == (repository.id, sha):
            every = checks.runs_of(hub.world, suite)
            runs = sorted(checks.latest(every), key=lambda run: run.name)
            status, conclusion = checks.verdict(runs)
            states = [state_of(run) for run in runs]
            counts = [f"{states.count(state)} {_WORDS[state]}" for state in _WORDS if state in states]
            lines = [
                {
                    "run": run,
                    "state": state_of(run),
                    "words": _WORDS[state_of(run)],
                    "took": took(run, hub.world.clock()),
                }
                for run in runs
            ]
            shown.append(
                {
                    "suite": suite,
                    "app": hub.world.apps[suite.app_id],
                    "state": conclusion or status,
                    "counts": ", ".join(counts),
                    "lines": lines,
                    "older": len(every) - len(runs),
                }
            )
    return shown


def _verdict(hub: Hub, repository: Repository, sha: str) -> str | None:
    """The one word for a commit, where it has check runs."""
    mine = (repository.id, sha)
    runs = [run for run in hub.world.check_runs.values() if (run.repository_id, run.head_sha) == mine]
    status, conclusion = checks.verdict(runs)
    return (conclusion or status) if runs else None


async def _index(hub: Hub, request: Request) -> Response:
    viewer = signed_in(hub, request)
    seen = [each for each in list(hub.world.repositories.values()) if each.role_of(viewer) is not None]
    return page(hub, request, "index.html", {"repositories": seen, "apps": list(hub.world.apps.values())})


def _overview(hub: Hub, repository: Repository) -> Json:
    heads = {ref: sha for ref, sha in git.refs(repository.path).items() if ref.startswith("refs/heads/")}
    history = (
        git.commits(repository.path, f"--max-count={HISTORY_SHOWN}", *sorted(set(heads.values()))) if heads else []
    )
    lines = [
        {
            "commit": commit,
            "state": _verdict(hub, repository, commit.sha),
            "branches": [ref.removeprefix("refs/heads/") for ref, sha in heads.items() if sha == commit.sha],
        }
        for commit in history
    ]
    mine = [each for each in hub.world.pulls.values() if each.repository_id == repository.id]
    return {"repository": repository, "lines": lines, "pulls": sorted(mine, key=lambda each: -each.number)}


async def _show_repository(hub: Hub, request: Request) -> Response:
    values = await run_in_threadpool(_overview, hub, _repository(hub, request))
    return page(hub, request, "repository.html", values)


def _commit_values(hub: Hub, repository: Repository, sha: str, viewer: str | None) -> Json:
    with hub.world.lock:
        commit = git.commit(repository.path, sha)
        return {
            "repository": repository,
            "commit": commit,
            "suites": suites(hub, repository, sha),
            "may_press": repository.role_of(viewer) in _MAY_PRESS,
        }


async def _show_commit(hub: Hub, request: Request) -> Response:
    repository = _repository(hub, request)
    sha = await run_in_threadpool(git.resolve, repository.path, request.path_params["sha"])
    if sha is None:
        raise not_found()
    values = await run_in_threadpool(_commit_values, hub, repository, sha, signed_in(hub, request))
    return page(hub, request, "commit.html", values)


async def _show_pull(hub: Hub, request: Request) -> Response:
    repository = _repository(hub, request)
    pull = pulls.find(hub.world, repository, request.path_params["number"])
    if pull is None:
        raise not_found()
    values = await run_in_threadpool(_commit_values, hub, repository, pull.head_sha, signed_in(hub, request))
    talk = [
        each
        for each in list(hub.world.comments.values())
        if (each.repository_id, each.number) == (repository.id, pull.number)
    ]
    head = hub.world.repositories.get(pull.head_repository_id)
    return page(hub, request, "pull.html", {**values, "pull": pull, "comments": talk, "head": head})


def _run(hub: Hub, request: Request) -> CheckRun:
    run = hub.world.check_runs.get(request.path_params["run_id"])
    if run is None or run.repository_id != _repository(hub, request).id:
        raise not_found()
    return run


async def _show_run(hub: Hub, request: Request) -> Response:
    run = _run(hub, request)
    where = f"/{_repository(hub, request).full_name}/commit/{run.head_sha}#run-{run.id}"
    return RedirectResponse(where, 303)


def _read_blob(repository: Repository, ref: str, path: str) -> list[str]:
    sha = git.resolve(repository.path, ref)
    entry = git.entry(repository.path, sha, path) if sha else None
    if entry is None or entry.type != "blob":
        raise not_found()
    return git.blob(repository.path, entry.sha)[: 1024 * 1024].decode(errors="replace").splitlines()


async def _show_blob(hub: Hub, request: Request) -> Response:
    repository, path = _repository(hub, request), request.path_params["path"]
    lines = await run_in_threadpool(_read_blob, repository, request.path_params["ref"], path)
    return page(hub, request, "blob.html", {"repository": repository, "path": path, "lines": lines})


async def _press(hub: Hub, request: Request) -> Response:
    """A button of a page: an action of a check run, or a re-run. Only who may write sees one and may press it."""
    repository, viewer = _repository(hub, request), signed_in(hub, request)
    if viewer is None:
        return must_sign_in(request)
    form = await form_of(hub, request)
    if repository.role_of(viewer) not in _MAY_PRESS:
        raise Refusal(403, f"{viewer} may not press this: it needs write permission for {repository.full_name}.")
    said: dict[str, Any] = {"user": viewer}
    if form.get("check_suite_id"):
        suite = hub.world.suites.get(int(str(form["check_suite_id"])))
        if suite is None or suite.repository_id != repository.id:
            raise not_found()
        await run_in_threadpool(commands.rerun, hub, said | {"check_suite_id": suite.id})
    else:
        run = hub.world.check_runs.get(int(str(form.get("check_run_id", "0"))))
        if run is None or run.repository_id != repository.id:
            raise not_found()
        said["check_run_id"] = run.id
        identifier = str(form.get("identifier") or "")
        command = commands.click if identifier else commands.rerun
        await run_in_threadpool(command, hub, said | ({"identifier": identifier} if identifier else {}))
    return RedirectResponse(local_path(form.get("return_to")), 303)


async def _login(hub: Hub, request: Request) -> Response:
    if not has_key(hub, request):
        raise Refusal(403, f"Whoever signs in needs the key. {KEY_HINT}")
    back = local_path(request.query_params.get("return_to"))
    if request.method == "GET":
        return page(hub, request, "login.html", {"return_to": back})
    form = await form_of(hub, request)
    login = str(form.get("login", "")).lower()
    if login not in hub.world.accounts:
        raise Refusal(422, f"There is nobody called {login}")
    answer = RedirectResponse(local_path(form.get("return_to")), 303)
    return sign_in(hub, answer, hub.world.accounts[login].login)


async def _nothing(hub: Hub, request: Request) -> Response:
    raise not_found()


async def _static(_: Hub, request: Request) -> Response:
    if request.path_params["name"] not in _STATIC:
        raise not_found()
    return FileResponse(TEMPLATES / request.path_params["name"])


def routes(hub: Hub) -> list[Route]:
    """The routes of all pages."""

    def at(path: str, serve: Page, *methods: str) -> Route:
        return Route(path, guarded(hub, serve), methods=methods or ("GET",))

    own = [at(path, serve, *methods) for path, serve, methods in app_pages.PAGES]
    return [
        at("/", _index),
        at("/_static/{name}", _static),
        at("/login", _login, "GET", "POST"),
        *own,
        at("/{owner}/{repo}", _show_repository),
        at("/{owner}/{repo}/commit/{sha}", _show_commit),
        at("/{owner}/{repo}/pull/{number:int}", _show_pull),
        at("/{owner}/{repo}/runs/{run_id:int}", _show_run),
        at("/{owner}/{repo}/blob/{ref}/{path:path}", _show_blob),
        at("/{owner}/{repo}/press", _press, "POST"),
        at("/{path:path}", _nothing),
    ]
