"""The Ray cluster: reached as the worker reaches it, its nodes and what their agents say of them."""

import asyncio
import os
import stat
from collections.abc import Mapping

from ci_bot.app import cluster
from ci_bot.doctor import judge, ray_settings
from ci_bot.doctor.findings import Finding, ok, problem, told, warning
from ci_bot.report.amounts import plural, resources
from ci_bot.settings import Settings
from launcher.backend import BackendError, Capacity
from launcher.node_types import NodeError, NodeFacts
from launcher.ray_backend import Connection, RayBackend

LISTENS_S = 5.0
REACH_S = 30.0
ADVICE = "is its head up, is RAY_ADDRESS its host:port, is the token the cluster's?"
HEAD = "node:__internal_head__"
"""The resource by which Ray marks the head's node."""
SHOWN = ("CPU", "GPU", "memory")


async def ray(settings: Settings, environ: Mapping[str, str]) -> list[Finding]:
    """Is the cluster there, and can its nodes run experiments?

    Agents are made with FENCE_S, STORAGE_DIR and this version's code, and one that was made otherwise is not asked; so
    an examination must see the same settings as the worker does.
    """
    connection = cluster(settings, environ)
    if connection is None:
        return [warning("ray", "there is no Ray head", "`descent up` starts one; for your own cluster set RAY_ADDRESS")]
    found = token(connection)
    if why := await _unheard(connection.address):
        return [*found, problem("ray", f"{connection.address}: nobody answers there: {why}", ADVICE)]
    backend = RayBackend(
        lambda: connection,
        environment=environ,
        fence_s=settings.fence_s,
        storage_dir=settings.storage_dir,
        guest=True,
    )
    try:
        await backend.connect(REACH_S)
        capacity = await backend.capacity()
        found.append(ok("ray", f"{connection.address} answers: {words(capacity)}"))
        met = await asyncio.gather(*(_meet(backend, node.node_id) for node in capacity.alive))
        known = [
            (node, answer) for node, answer in zip(capacity.alive, met, strict=True) if isinstance(answer, NodeFacts)
        ]
        found += [answer for answer in met if isinstance(answer, Finding)]
        for _, facts in known:
            found += judge.node(facts, settings.isolation)
        found += judge.identities([facts for _, facts in known])
        found += ray_settings.nodes([(facts, HEAD in node.total) for node, facts in known], settings.fence_s)
    except BackendError as error:
        found.append(problem("ray", f"{connection.address}: {error}", ADVICE))
    finally:
        await backend.close()
    return found


def token(connection: Connection) -> list[Finding]:
    """The file with the cluster's token is there, and only ours to read."""
    path = connection.token_path
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError as error:
        text = f"the token file {path} can't be read: {error.strerror}"
        return [problem("ray", text, "set RAY_AUTH_TOKEN_PATH to a file with the cluster's token")]
    finding = judge.mode("ray", str(path), mode, 0o600)
    return [finding] if finding else []


def words(capacity: Capacity) -> str:
    """A cluster in a few words."""
    total = {name: sum(node.total.get(name, 0.0) for node in capacity.alive) for name in SHOWN}
    have = resources({name: amount for name, amount in total.items() if amount})
    return f"{plural(len(capacity.alive), 'node')} with {have}"


async def _unheard(address: str) -> str:
    """Why nobody can be reached there, which Ray takes half a minute to say; empty if somebody listens."""
    host, _, port = address.rpartition(":")
    try:
        _, writer = await asyncio.wait_for(asyncio.open_connection(host.strip("[]"), int(port)), LISTENS_S)
    except TimeoutError:
        return f"no answer within {LISTENS_S:.0f} s"
    except OSError as error:
        return os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror or str(error)
    writer.close()
    return ""


async def _meet(backend: RayBackend, node_id: str) -> NodeFacts | Finding:
    what = f"node {node_id[:8]}"
    try:
        return await backend.agent(node_id).facts()
    except NodeError as error:
        return problem(what, error.why, "run this in the worker's environment; a worker replaces agents that differ")
    except BackendError as error:
        return problem(what, f"its agent does not answer: {told(error)}", "see Ray's log there")
