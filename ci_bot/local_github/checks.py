"""Check runs and check suites: the operations on them, their JSON and their webhooks."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from ci_bot.local_github import commits, git, shapes, webhooks
from ci_bot.local_github.calls import Answer, Call, Refusal, not_found, paged
from ci_bot.local_github.check_rules import CREATE_KEYS, UPDATE_KEYS, check_body
from ci_bot.local_github.shapes import stamp, stamp_or_none
from ci_bot.local_github.state import CheckRun, CheckSuite, Json, Repository, World

MOST_SAME_NAME = 1000
_WORST_FIRST = ("failure", "timed_out", "cancelled", "action_required", "success", "neutral", "skipped")


def pull_requests(world: World, repository: Repository, sha: str) -> list[Json]:
    """The open pull requests from this repository's own branches with this head; those of forks are not seen."""
    found = []
    for pull in world.pulls.values():
        own = pull.repository_id == repository.id == pull.head_repository_id
        if own and pull.state == "open" and pull.head_sha == sha:
            url = shapes.repository_url(world, repository)
            where = {"id": repository.id, "url": url, "name": repository.name}
            found.append(
                {
                    "url": f"{url}/pulls/{pull.number}",
                    "id": pull.id,
                    "number": pull.number,
                    "head": {"ref": pull.head_ref, "sha": pull.head_sha, "repo": where},
                    "base": {"ref": pull.base_ref, "sha": pull.base_sha, "repo": where},
                }
            )
    return found


def run_shape(world: World, run: CheckRun) -> Json:
    """A "check run"."""
    repository = world.repositories[run.repository_id]
    url = f"{shapes.repository_url(world, repository)}/check-runs/{run.id}"
    html = f"{world.html_url}/{repository.full_name}/runs/{run.id}"
    return {
        "id": run.id,
        "node_id": shapes.node_id("CheckRun", run.id),
        "head_sha": run.head_sha,
        "external_id": run.external_id or "",
        "url": url,
        "html_url": html,
        "details_url": run.details_url or world.apps[run.app_id].external_url,
        "status": run.status,
        "conclusion": run.conclusion,
        "started_at": stamp_or_none(run.started_at),
        "completed_at": stamp_or_none(run.completed_at),
        "output": {
            "title": run.title,
            "summary": run.summary,
            "text": run.text,
            "annotations_count": len(run.annotations),
            "annotations_url": f"{url}/annotations",
        },
        "name": run.name,
        "check_suite": {"id": run.suite_id},
        "app": shapes.app(world, world.apps[run.app_id]),
        "pull_requests": pull_requests(world, repository, run.head_sha),
    }


def runs_of(world: World, suite: CheckSuite, as_of: float | None = None) -> list[CheckRun]:
    """The check runs of a suite, oldest first."""
    return [run for run in world.check_runs.values(as_of) if run.suite_id == suite.id]


def latest(runs: Iterable[CheckRun]) -> list[CheckRun]:
    """The newest run of each name and App."""
    newest = {(run.app_id, run.name): run for run in sorted(runs, key=lambda run: run.id)}
    return list(newest.values())


def verdict(runs: Iterable[CheckRun]) -> tuple[str, str | None]:
    """Status and conclusion of a suite with these runs."""
    newest = latest(runs)
    if not newest:
        return "queued", None
    if all(run.status == "completed" for run in newest):
        return "completed", next(each for each in _WORST_FIRST if any(run.conclusion == each for run in newest))
    started = any(run.status != "queued" for run in newest)
    return "in_progress" if started else "queued", None


def suite_shape(world: World, suite: CheckSuite) -> Json:
    """A "check suite"."""
    repository = world.repositories[suite.repository_id]
    runs = runs_of(world, suite)
    status, conclusion = verdict(runs)
    url = f"{shapes.repository_url(world, repository)}/check-suites/{suite.id}"
    changed = max([suite.created_at, *(run.completed_at or run.started_at or 0.0 for run in runs)])
    return {
        "id": suite.id,
        "node_id": shapes.node_id("CheckSuite", suite.id),
        "head_branch": suite.head_branch,
        "head_sha": suite.head_sha,
        "status": status,
        "conclusion": conclusion,
        "url": url,
        "before": suite.before,
        "after": suite.head_sha,
        "pull_requests": pull_requests(world, repository, suite.head_sha),
        "app": shapes.app(world, world.apps[suite.app_id]),
        "created_at": stamp(suite.created_at),
        "updated_at": stamp(changed),
        "rerequestable": True,
        "runs_rerequestable": True,
        "latest_check_runs_count": len(latest(runs)),
        "check_runs_url": f"{url}/check-runs",
        "head_commit": commits.simple(git.commit(repository.path, suite.head_sha)),
    }


def suite_for(
    world: World,
    app_id: int,
    repository: Repository,
    sha: str,
    before: str | None = None,
    branch: str | None = None,
) -> CheckSuite:
    """The suite of an App on a commit, made now where there was none; its branch is that, or one that is there."""
    with world.lock:
        for suite in world.suites.values():
            if (suite.app_id, suite.repository_id, suite.head_sha) == (app_id, repository.id, sha):
                return suite
        branch = branch or _branch_at(repository, sha)
        made = CheckSuite(world.next_id(), app_id, repository.id, sha, branch, before, world.clock())
        world.suites[made.id] = made
        return made


def _branch_at(repository: Repository, sha: str) -> str | None:
    heads = [ref for ref, at in git.refs(repository.path).items() if at == sha and ref.startswith("refs/heads/")]
    return heads[0].removeprefix("refs/heads/") if heads else None


def tell_run(world: World, run: CheckRun, action: str, sender: str, **more: Any) -> None:
    """Send a `check_run` event; all but created and completed go to the run's own App alone."""
    repository = world.repositories[run.repository_id]
    suite = suite_shape(world, world.suites[run.suite_id])
    shape = run_shape(world, run) | {
        "check_suite": {key: suite[key] for key in suite if key not in ("head_commit", "check_runs_url")}
    }
    payload = {"action": action, "check_run": shape, **more, "sender": shapes.person(world, sender)}
    only = None if action in ("created", "completed") else run.app_id
    webhooks.emit(world, repository, "check_run", payload, only_app=only)


def tell_suite(world: World, suite: CheckSuite, action: str, sender: str) -> None:
    """Send a `check_suite` event to the suite's App."""
    repository = world.repositories[suite.repository_id]
    payload = {"action": action, "check_suite": suite_shape(world, suite), "sender": shapes.person(world, sender)}
    webhooks.emit(world, repository, "check_suite", payload, only_app=suite.app_id)


def _changed(run: CheckRun, body: Json, now: float) -> CheckRun:
    """The run with what a body says; a conclusion completes it, and a completed one stays so."""
    known: Json = {key: body[key] for key in ("name", "details_url", "external_id") if key in body}
    output = body.get("output", {})
    known |= {key: output[key] for key in ("title", "summary", "text") if key in output}
    if "started_at" in body:
        known["started_at"] = shapes.moment(body["started_at"])
    if "actions" in body:
        known["actions"] = tuple(body["actions"])
    if "images" in output:
        known["images"] = run.images + tuple(output["images"])
    known["annotations"] = run.annotations + tuple(output.get("annotations", ()))
    if "conclusion" in body:
        at = shapes.moment(body["completed_at"]) if "completed_at" in body else (run.completed_at or now)
        known |= {"status": "completed", "conclusion": body["conclusion"], "completed_at": at}
    elif run.status != "completed" and "status" in body:
        known["status"] = body["status"]
    # GitHub fills in the time at which a run was first heard of as not queued
    if known.get("status", run.status) != "queued" and run.started_at is None:
        known.setdefault("started_at", now)
    return replace(run, **known)


def create_run(call: Call) -> Answer:
    """`checks/create`."""
    world, repository = call.world, call.repository
    body = call.fields(CREATE_KEYS, ("name", "head_sha"))
    check_body(body, creating=True)
    sha = body["head_sha"]
    if len(sha) != 40 or git.resolve(repository.path, sha) != sha:
        raise Refusal(422, f"No commit found for SHA: {sha}")
    with world.lock:
        suite = suite_for(world, call.app.id, repository, sha)
        fresh = CheckRun(
            world.next_id(), suite.id, call.app.id, repository.id, sha, body["name"], "queued", None, None, None
        )
        run = _changed(fresh, body, world.clock())
        world.check_runs.put(run.id, run)
        same = [each.id for each in runs_of(world, suite) if each.name == run.name]
        for old in same[:-MOST_SAME_NAME]:
            world.check_runs.put(old, None)
        _tell(world, None, run, call.caller.writer)
        return Answer(run_shape(world, run), 201, {"Location": run_shape(world, run)["url"]})


def _tell(world: World, before: CheckRun | None, run: CheckRun, sender: str) -> None:
    if before is None:
        tell_run(world, run, "created", sender)
    if run.status == "completed" and (before is None or before.status != "completed"):
        tell_run(world, run, "completed", sender)
        suite = world.suites[run.suite_id]
        if verdict(runs_of(world, suite))[0] == "completed":
            tell_suite(world, suite, "completed", sender)


def _run(call: Call) -> CheckRun:
    run = call.world.check_runs.get(call.number("check_run_id"), call.as_of)
    if run is None or run.repository_id != call.repository.id:
        raise not_found()
    return run


def get_run(call: Call) -> Answer:
    """`checks/get`."""
    return Answer(run_shape(call.world, _run(call)))


def update_run(call: Call) -> Answer:
    """`checks/update`; only the App that made a run may."""
    body = call.fields(UPDATE_KEYS)
    check_body(body, creating=False)
    world = call.world
    with world.lock:
        run = _run(call)
        if run.app_id != call.app.id:
            raise Refusal(403, "Invalid app_id `" + str(call.app.id) + "` - check run can only be modified by its app")
        changed = _changed(run, body, world.clock())
        world.check_runs.put(run.id, changed)
        _tell(world, run, changed, call.caller.writer)
        return Answer(run_shape(world, changed))


def list_annotations(call: Call) -> Answer:
    """`checks/list-annotations`."""
    run = _run(call)
    blob = f"{call.world.html_url}/{call.repository.full_name}/blob/{run.head_sha}/"
    nothing = dict.fromkeys(("start_column", "end_column", "title", "raw_details"))
    return paged(call, [nothing | each | {"blob_href": blob + each["path"]} for each in run.annotations])


def _listing(call: Call, runs: Iterable[CheckRun]) -> Answer:
    query = call.query
    wanted = list(runs)
    if query.get("filter", "latest") == "latest":
        wanted = latest(wanted)
    for key, value in (("name", query.get("check_name")), ("status", query.get("status"))):
        wanted = [run for run in wanted if value is None or getattr(run, key) == value]
    if query.get("app_id", "").isdecimal():
        wanted = [run for run in wanted if run.app_id == int(query["app_id"])]
    wanted.sort(key=lambda run: -run.id)
    shown = [run_shape(call.world, run) for run in wanted]
    return paged(call, shown, lambda page: {"total_count": len(shown), "check_runs": page})


def list_for_ref(call: Call) -> Answer:
    """`checks/list-for-ref`."""
    sha = commits.find(call, call.path["ref"])
    runs = call.world.check_runs.values(call.as_of)
    return _listing(call, [run for run in runs if (run.repository_id, run.head_sha) == (call.repository.id, sha)])


def _suite(call: Call) -> CheckSuite:
    suite = call.world.suites.get(call.number("check_suite_id"))
    if suite is None or suite.repository_id != call.repository.id:
        raise not_found()
    return suite


def list_for_suite(call: Call) -> Answer:
    """`checks/list-for-suite`."""
    return _listing(call, runs_of(call.world, _suite(call), call.as_of))


def get_suite(call: Call) -> Answer:
    """`checks/get-suite`."""
    shape = suite_shape(call.world, _suite(call))
    return Answer(shape | {"repository": shapes.minimal_repository(call.world, call.repository)})
