"""`descent run`: the experiments of a commit of a local repository take the same walk, without GitHub.

The database, Ray's head, caches and `/storage` are temporary. Artifacts are copied to `artifacts-<experiment>` in the
current directory, or to the first of `artifacts-<experiment>-2`, -3… that is not there yet.
"""

import asyncio
import hashlib
import itertools
import json
import os
import re
import shutil
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from ci_bot import config
from ci_bot.app import machines, rules
from ci_bot.config import check as checking
from ci_bot.logs import configure_logging
from ci_bot.records import Claim, ClaimKind, Experiment, Transition, Wish
from ci_bot.report.amounts import plural
from ci_bot.report.terminal import artifact_line, problem_line
from ci_bot.run.follow import Follower
from ci_bot.run.local import Commit, NoCommit, find
from ci_bot.run.place import NoPlace, Place, temporary
from ci_bot.run.plan import Planner
from ci_bot.settings import Settings
from ci_bot.store import experiments
from ci_bot.store.experiments import Draft
from ci_bot.worker.launch import environment
from launcher.experiment import Specification
from launcher.sandbox import probe
from launcher.state import TERMINAL, Progress, State

WORKED, FAILED, WRONG_USAGE = 0, 1, 2
LOOK_S = 0.2
LISTED = 20
IGNORE = ".gitignore"
GITHUB_IDS = 1 << 62
"""No repository of GitHub's has an id above."""


@dataclass(frozen=True)
class Options:
    """What was asked for."""

    repository: Path
    ref: str | None
    plan: bool
    as_json: bool


def run(options: Options, environ: Mapping[str, str]) -> int:
    """Run, or plan; the exit code: 0 all STOPPED, 1 one is not or the configuration has errors, 2 wrong usage.

    Raises:
        SettingsError: the environment can't be used.
    """
    settings = Settings.from_env(environ)
    configure_logging(environ.get("LOG_LEVEL", "error"))
    try:
        commit = find(options.repository, options.ref or "HEAD")
        written = commit.configuration()
    except NoCommit as error:
        return _refuse(str(error))
    if written is None:
        where = f"{commit.sha[:7]} of {commit.repository}"
        return _refuse(f"{where} has no configuration file; expected one of {', '.join(config.SEARCH_ORDER)}")
    path, source = written
    parsed = config.parse(source, path=path, repository_name=commit.name, read_params=commit.read)
    if not parsed.ok:
        print(checking.json_line(parsed, path) if options.as_json else "\n".join(checking.lines(parsed, path)))
        return FAILED
    for warning in parsed.warnings:
        _remark(problem_line(warning))
    drafts = [_draft(commit, path, source, each.specification) for each in parsed.experiments]
    if options.ref is None and commit.has_uncommitted_changes():
        _remark(f"What is not committed is left out: this is {commit.sha[:7]}.")
    if options.plan:
        return _plan(options, settings, commit, drafts)
    return asyncio.run(_run(_on_this_host(settings), environ, commit, Work(drafts, options.as_json)))


@dataclass(frozen=True)
class Work:
    """What is to be run, and how it is shown."""

    drafts: Sequence[Draft]
    as_json: bool


def _plan(options: Options, settings: Settings, commit: Commit, drafts: Sequence[Draft]) -> int:
    planner = Planner(machines(settings), rules(settings))
    for draft in drafts:
        told = environment(_experiment(draft), commit.url)
        if options.as_json:
            print(json.dumps(planner.record(draft.specification, told)))
        else:
            print("\n".join(planner.lines(draft.specification, told)))
    return WORKED


async def _run(settings: Settings, environ: Mapping[str, str], commit: Commit, work: Work) -> int:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    known = machines(settings)
    if not settings.ray_address:
        _remark("Starting a local Ray head …")
    try:
        async with temporary(settings, environ, commit, known) as place:
            return await _follow(place, settings, work, stop)
    except NoPlace as error:
        return _refuse(str(error))


async def _follow(place: Place, settings: Settings, work: Work, stop: asyncio.Event) -> int:
    """Drive everything to its end and show it; a signal cancels what has not ended."""
    ids = await _create(place, work.drafts)
    followers = {
        each: Follower(place.keep, settings.log_max_bytes, work.as_json, f"{draft.name}: " if len(ids) > 1 else "")
        for each, draft in zip(ids, work.drafts, strict=True)
    }
    over = asyncio.Event()
    driving = asyncio.create_task(place.launch.run(over))
    try:
        while True:
            place.changed.clear()
            seen = [await _look(place, each) for each in ids]
            for experiment, history in seen:
                followers[experiment.id].show(experiment, history)
            if all(experiment.state in TERMINAL for experiment, _ in seen):
                break
            if driving.done():
                driving.result()  # it raised: it ends for no other reason before it is told to
            if stop.is_set():
                await _cancel(place, ids)
            await _until(place.changed, *([] if stop.is_set() else [stop]))
    finally:
        over.set()
        await asyncio.gather(driving, return_exceptions=True)
    for experiment, _ in seen:
        _keep_artifacts(place, experiment, as_json=work.as_json)
    return WORKED if all(experiment.state is State.STOPPED for experiment, _ in seen) else FAILED


async def _create(place: Place, drafts: Sequence[Draft]) -> list[int]:
    claim = Claim(ClaimKind.BRANCH, drafts[0].ref, lasting=True)
    return await place.books.write(lambda c: [experiments.create(c, each, claim, time.time())[0] for each in drafts])


async def _look(place: Place, experiment_id: int) -> tuple[Experiment, list[Transition]]:
    def look(connection: Any) -> tuple[Experiment | None, list[Transition]]:
        return experiments.get(connection, experiment_id), experiments.transitions(connection, experiment_id)

    experiment, history = await place.books.read(look)
    if experiment is None:
        raise LookupError(f"experiment {experiment_id} is gone from its own database")
    return experiment, history


async def _cancel(place: Place, ids: Sequence[int]) -> None:
    wished = Wish("you", "cancelled by Ctrl-C", time.time())
    await place.books.write(lambda c: [experiments.wish(c, each, wished) for each in ids])
    place.launch.wake.set()


async def _until(*events: asyncio.Event) -> None:
    """One of them, or a moment: pieces of a log come without an event."""
    waiters = [asyncio.ensure_future(event.wait()) for event in events]
    await asyncio.wait(waiters, timeout=LOOK_S, return_when=asyncio.FIRST_COMPLETED)
    for waiter in waiters:
        waiter.cancel()


def _keep_artifacts(place: Place, experiment: Experiment, *, as_json: bool) -> None:
    """Copy what the last attempt left to a new directory here, which git is not to take for a change of the user's."""
    store = place.keep.artifacts(experiment.id, experiment.progress.attempt)
    files = store.files()
    if not files:
        return
    name = f"artifacts-{re.sub(r'[^A-Za-z0-9._-]+', '-', experiment.name)}"
    numbered = (Path(f"{name}-{number}") for number in itertools.count(2))
    target = next(path for path in itertools.chain([Path(name)], numbered) if not path.exists())
    shutil.copytree(store.directory, target)
    if not os.path.lexists(target / IGNORE):  # else it is an artifact
        (target / IGNORE).write_text("*\n")
    out = sys.stderr if as_json else sys.stdout
    print(f"{plural(len(files), 'artifact')} in {target}:", file=out)
    for file in files[:LISTED]:
        print(artifact_line(file.path, file.size), file=out)
    if len(files) > LISTED:
        print(f"  and {len(files) - LISTED} more", file=out)


def _draft(commit: Commit, path: str, source: bytes, specification: Specification) -> Draft:
    return Draft(
        repository_id=_repository_id(commit.repository, socket.gethostname()),
        installation_id=0,
        full_name=commit.name,
        head_sha=commit.sha,
        ref=commit.ref,
        name=specification.name,
        specification=specification,
        configuration_path=path,
        configuration_source=source.decode("utf-8", "replace"),
        title=commit.title,
        progress=Progress(user_retries=specification.retries),
    )


def _repository_id(repository: Path, host: str) -> int:
    """An id that a folder keeps: by it a cluster's nodes find its `/storage` and caches, and nobody else's."""
    digest = hashlib.sha256(f"{host}:{repository}".encode()).digest()
    return GITHUB_IDS + int.from_bytes(digest[:7])


def _experiment(draft: Draft) -> Experiment:
    """An experiment that exists on paper only."""
    said = {each.name: getattr(draft, each.name) for each in fields(draft)}
    return Experiment(id=0, detail={}, created_at=0.0, state_at=0.0, **said)


def _on_this_host(settings: Settings) -> Settings:
    """Settings for a Ray head of our own: all nodes of a gang are here, where else; and `auto` takes what works.

    That is bubblewrap, else no isolation: the code is the user's own, so that is no danger.
    """
    if settings.ray_address:
        return settings
    settings = replace(settings, allow_shared_hosts=True)
    if settings.isolation != "auto":
        return settings
    capable = probe()
    if not capable.ok:
        _remark(f"Commands run without isolation: {capable.why}.")
    return replace(settings, isolation="bubblewrap" if capable.ok else "none")


def _refuse(text: str) -> int:
    _remark(text)
    return WRONG_USAGE


def _remark(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
