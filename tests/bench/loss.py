"""How soon it is known: a raylet killed, a cable pulled, an agent killed."""

import asyncio
import os
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from ci_bot.records import Experiment
from launcher.backend import BackendError
from launcher.ray_backend import Connection, RayBackend
from launcher.ray_head import Head
from launcher.state import State
from tests.bench.figures import Figure, Reach, Row
from tests.bench.ground import alone, ended, file, rounds
from tests.cluster.ground import Ground, ground_in
from tests.cluster.hosts import Host, missing
from tests.e2e.killing import Victim, kill
from tests.e2e.stack import Repo, Stack, config

ROUNDS = 3
AGENT_ROUNDS = 5
UNTIL_ENOUGH = "while [ ! -e $PS_JOBSPACE/enough ]; do sleep 0.1; done"
FOREVER = "sleep 600"
LIMIT_S = 90.0
FENCE_S = 120.0
"""The worker's default: a guest whose order is another is refused by the agents."""
RAYS_OWN = "Ray's defaults, measured before and not in this run: 14 s for a killed raylet, 64 s for a pulled cable"


def measure() -> Iterator[Row]:
    """The row of what is lost."""
    notes, figures, reaches = [RAYS_OWN], [], []
    with alone() as stack:
        agents = Figure("agent killed → its successor knows the command", "s", tuple(agents_killed(stack)))
    if why := missing():
        notes.append(f"raylet and cable not measured: {why}")
    else:
        with tempfile.TemporaryDirectory() as directory, ground_in(Path(directory)) as on:
            killed, cut = on_hosts(on)
        figures = [
            Figure("raylet killed → no longer RUNNING", "s", tuple(killed)),
            Figure("cable pulled → no longer RUNNING", "s", tuple(cut)),
        ]
        limits = (("raylet, s ≤ 5", 5.0), ("cable, s ≤ 15", 15.0))
        reaches = [Reach(words, each.median, limit) for each, (words, limit) in zip(figures, limits, strict=True)]
    reaches.append(Reach("agent, s ≤ 3", agents.median, 3.0))
    yield Row("loss", (*figures, agents), (), tuple(reaches), tuple(notes))


# --- a raylet, a cable ---


def on_hosts(on: Ground) -> tuple[list[float], list[float]]:
    """Seconds until an attempt left RUNNING: of killed raylets, and of pulled cables."""
    killed, cut = [], []
    repo = on.stack.repository("bench")
    for number in range(rounds(ROUNDS)):
        killed.append(lost(on, repo, f"raylet {number}", cable=False))
        cut.append(lost(on, repo, f"cable {number}", cable=True))
    return killed, cut


def lost(on: Ground, repo: Repo, message: str, *, cable: bool) -> float:
    """Seconds until the attempt on a host leaves RUNNING, once that host is struck."""
    on.cluster.heal()
    sha = repo.push({".descent/config.yaml": _elsewhere(), "message": message})
    found = repo.wait(sha, lambda e: e.state is State.RUNNING, LIMIT_S)
    host = on.hosts[found.held.nodes[0].host]
    struck = _strike(on, host, cable=cable)
    repo.wait(sha, lambda e: e.state is not State.RUNNING, LIMIT_S)
    left = next(each.at for each in on.stack.timeline(found.id) if each.state is State.NETWORK_TEARDOWN)
    if cable:
        on.hosts.link_up(host)
    runs = repo.checks(sha, lambda runs: bool(runs and runs[-1]["actions"]))
    on.stack.control.click(runs[-1]["id"], "cancel")  # else its next attempt would run on
    return left - struck


def _strike(on: Ground, host: Host, *, cable: bool) -> float:
    if cable:
        struck = time.time()
        on.hosts.link_down(host)
        return struck
    raylet = on.cluster.nodes[host.name].raylet()
    assert raylet is not None
    struck = time.time()
    os.kill(raylet.pid, signal.SIGKILL)
    return struck


def _elsewhere() -> str:
    return config(FOREVER, worker={"machine-type": "elsewhere"})


# --- an agent ---


def agents_killed(stack: Stack) -> list[float]:
    """Seconds until an agent's successor tells of the command that its predecessor started; the command goes on."""
    repo = stack.repository("bench")
    sha = repo.push(file(UNTIL_ENOUGH))
    found = repo.wait(sha, lambda e: e.state is State.RUNNING)
    taken = asyncio.run(_kill_agents(stack, found))
    (stack.data_dir / "node" / "storage" / str(found.repository_id) / "enough").touch()
    over = ended(repo, sha)
    assert over.experiment.progress.attempt == 1, f"the experiment noticed: {over.timeline}"
    return taken


async def _kill_agents(stack: Stack, found: Experiment) -> list[float]:
    head = Head.load(stack.record()["ray"])
    where = Connection(head.address, head.token_path)
    backend = RayBackend(lambda: where, environment=os.environ, fence_s=FENCE_S, guest=True)
    await backend.connect()
    try:
        return [await _kill_agent(stack, backend, found) for _ in range(rounds(AGENT_ROUNDS))]
    finally:
        await backend.close()


async def _kill_agent(stack: Stack, backend: RayBackend, found: Experiment) -> float:
    (node,) = found.held.nodes
    agent = backend.agent(node.node_id)
    await agent.status([node.key])
    began = time.time()
    assert kill(stack, Victim.AGENT)
    while time.time() < began + LIMIT_S:
        try:
            status = (await agent.status([node.key]))[node.key]
        except BackendError:
            await asyncio.sleep(0.02)
            continue
        assert status.phase == "running", status
        return time.time() - began
    raise AssertionError("no successor")
