"""The control API under `/_local`: commands, inspection and the hooks' door, for whoever has the token."""

import hmac

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ci_bot.local_github import checks, git, hook_log, hooks, pushes
from ci_bot.local_github.calls import Refusal
from ci_bot.local_github.commands import COMMANDS, repository_of
from ci_bot.local_github.hub import Hub
from ci_bot.local_github.state import Json


def _bears(request: Request, token: str) -> bool:
    given = request.headers.get("authorization", "").removeprefix("Bearer ")
    return hmac.compare_digest(given.encode(), token.encode())


def _refused(refusal: Refusal) -> Response:
    return JSONResponse(refusal.body("the local GitHub's control API"), refusal.status)


def _inspect(hub: Hub, what: str, query: Json) -> object:
    if what == "requests":
        return hub.journal.since(int(query.get("since", 0)))
    if what == "deliveries":
        with hub.world.lock:
            return [hook_log.shape(each) | {"app_id": each.app_id} for each in hub.world.deliveries.values()]
    if what == "faults":
        return hub.faults.listing()
    if what == "check-runs":
        with hub.world.lock:
            where = repository_of(hub.world, query["repository"])
            found = [run for run in hub.world.check_runs.values() if run.repository_id == where.id]
            wanted = [run for run in found if run.head_sha == query.get("sha", run.head_sha)]
            return [checks.run_shape(hub.world, run) | {"actions": list(run.actions)} for run in wanted]
    raise Refusal(404, f"Nothing to inspect under {what}")


def routes(hub: Hub) -> list[Route]:
    """The routes of the control API."""

    async def command(request: Request) -> Response:
        name = request.path_params["name"]
        if not _bears(request, hub.control_token):
            return _refused(Refusal(401, "The control API wants its token"))
        if name not in COMMANDS:
            return _refused(Refusal(404, f"There is no command {name}; there are {', '.join(COMMANDS)}"))
        said = await request.json()

        def obey() -> Json:
            with hub.world.lock:
                return COMMANDS[name](hub, said)

        try:
            return JSONResponse(await run_in_threadpool(obey))
        except KeyError as problem:
            return _refused(Refusal(422, f"{name}: {problem} is missing or unknown"))
        except git.GitError as problem:
            return _refused(Refusal(422, f"{name}: {problem}"))
        except Refusal as refusal:
            return _refused(refusal)

    async def inspect(request: Request) -> Response:
        if not _bears(request, hub.control_token):
            return _refused(Refusal(401, "The control API wants its token"))
        try:
            query = dict(request.query_params)
            return JSONResponse(await run_in_threadpool(_inspect, hub, request.path_params["what"], query))
        except Refusal as refusal:
            return _refused(refusal)

    async def post_receive(request: Request) -> Response:
        if not _bears(request, hub.hook_token):
            return _refused(Refusal(401, "This door is for the hooks"))
        told = await request.body()

        def take() -> None:
            with hub.pushing:
                with hub.world.lock:
                    understood = hooks.understand(hub.world, told)
                if understood is None:
                    raise Refusal(404, "No repository of mine")
                pushes.record(hub.world, *understood)

        try:
            await run_in_threadpool(take)
        except git.GitError as problem:  # the repository was deleted meanwhile, say
            return _refused(Refusal(422, f"push: {problem}"))
        except Refusal as refusal:
            return _refused(refusal)
        return JSONResponse({})

    return [
        Route("/_local/post-receive", post_receive, methods=["POST"]),
        Route("/_local/{name}", command, methods=["POST"]),
        Route("/_local/{what}", inspect, methods=["GET"]),
    ]
