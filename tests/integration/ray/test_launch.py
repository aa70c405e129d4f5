"""A command on one node has another started on a peer, agent to agent over Ray."""

import asyncio

from launcher.node_types import Launch, LaunchPeer, PrepareOrder, StartOrder
from tests.integration.node.conftest import packed
from tests.integration.ray.test_agents import answered, the_node

CODE = "42-launch"
MASTER, WORKER = "exp-8-a1-n0", "exp-8-a1-n1"
AGENT = "$OMPI_MCA_plm_rsh_agent"


def order(command: str, launch: Launch) -> StartOrder:
    return StartOrder(command, {}, (), "none", None, None, 1 << 20, 1, 15, launch=launch)


def test_a_peers_agent_starts_a_daemon_and_tells_its_end(on_ray):
    async def test(backend):
        node_id = await the_node(backend)
        agent = backend.agent(node_id)
        await answered(agent.facts)
        if await agent.code_offset(CODE) >= 0:
            await agent.put_code(CODE, 0, packed({"x": "y"}), True)
        for key in (MASTER, WORKER):
            await agent.prepare(key, PrepareOrder(CODE, "42", trusted=True, isolation="none"))
        peers = {"here": LaunchPeer(node_id, WORKER)}
        peers["idle"] = LaunchPeer(node_id, MASTER)
        await agent.start(WORKER, order("sleep infinity", Launch(serves=True, peers={})))
        command = f"{AGENT} here 'echo started; exit 7'; echo $?; {AGENT} idle true; echo $?"
        await agent.start(MASTER, order(command, Launch(serves=False, peers=peers)))
        async with asyncio.timeout(60):
            mark = 0
            while (status := await agent.status([MASTER, WORKER]))[MASTER].phase != "ended":
                mark = await agent.watch(mark, 5)
        said = [(await agent.read_log(key, 0, 1000)).data.decode() for key in (MASTER, WORKER)]
        await agent.stop(WORKER, 0)
        async with asyncio.timeout(60):
            while not all([(await agent.clean(key)).empty for key in (MASTER, WORKER)]):
                await asyncio.sleep(0.1)
        return status, said

    status, (master, worker) = on_ray(test)
    assert master == "7\ndescent: node idle: nothing there waits for an mpirun\n255\n"
    assert worker == "started\n"
    assert [(each.exit_code, each.signal) for each in status[WORKER].daemons] == [(7, None)]
