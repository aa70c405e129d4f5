"""Experiments on several nodes, all of them on this host: who finds whom, whose end counts, and what is left."""

import json
import re
import shutil
import subprocess
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from ci_bot.records import Experiment
from launcher.experiment import NodeState
from launcher.state import State
from tests.e2e.killing import listening, marked
from tests.e2e.stack import Repo, Stack, wait_for
from tests.namespace import Network

CONFIGURATION = ".descent/config.yaml"

PEERS = """
import base64, json, os, signal, socket, time

def meet(own, others):
    \"\"\"Listen on our own port at once; reach every other, and be reached by them.\"\"\"
    listener = socket.create_server(own)
    for address, port in others:
        while True:
            try:
                socket.create_connection((address, port), 1).close()
                break
            except ConnectionRefusedError:
                time.sleep(0.02)  # it has yet to begin
    for _ in others:
        listener.accept()
    return listener

def at(endpoint):
    host, _, port = endpoint.rpartition(":")
    return host, int(port)

tf_config = json.loads(os.environ["TF_CONFIG"])
cluster, task = tf_config["cluster"], tf_config["task"]
every = [at(each) for job in ("chief", "worker", "ps") for each in cluster[job]]
own = at(cluster[task["type"]][task["index"]])
listener = meet(own, [each for each in every if each != own])

old = json.loads(base64.urlsafe_b64decode(os.environ["PS_CONFIG"]))
assert old["cluster"] == {
    "master": cluster["chief"], "worker": cluster["chief"] + cluster["worker"], "ps": cluster["ps"]
}, old
assert (old["task"]["type"], str(old["task"]["index"])) == (os.environ["TYPE"], os.environ["INDEX"])
assert os.environ["WORKER_HOSTS"].split(",") == cluster["chief"] + cluster["worker"]
assert os.environ["PS_HOSTS"].split(",") == cluster["ps"]
"""

NAMES = """
hosts = [line.split() for line in open("/etc/hosts")]
names = [name for _, *rest in hosts for name in rest if name.startswith("exp-")]
assert len(set(names)) == 3, names
assert socket.gethostname() in names
assert all(socket.getaddrinfo(name, None) for name in names)
"""

THEN = """
print("met", task["type"], task["index"], flush=True)
if task["type"] != "chief":
    signal.pause()
"""


def gang(kind: str, name: str = "exp", **keys: Any) -> str:
    """A version 1 file of that type, as JSON, which is YAML too."""
    return json.dumps({"version": 1, "experiment": name, "type": kind, **keys})


def grpc(command: str) -> str:
    """Two workers and a parameter server that run the same."""
    workers = {"command": command, "count": 2}
    return gang("multi-grpc", worker=workers, **{"parameter-server": {"command": command, "count": 1}})


def torch(command: str, **more: Any) -> str:
    """Two equal nodes."""
    return gang("multi-torch", worker={"command": command, "count": 2}, **more)


def held(repo: Repo, sha: str, wanted: State = State.RUNNING) -> Experiment:
    """The experiment once it is that far."""
    return repo.wait(sha, lambda e: e.state is wanted)


def log_of(stack: Stack, experiment: Experiment, rank: int, attempt: int = 1) -> str:
    """What a node of the gang printed."""
    directory = stack.data_dir / "logs" / str(experiment.id) / str(attempt) / str(rank)
    return b"".join(path.read_bytes() for path in sorted(directory.glob("*.log"))).decode()


def left_of(stack: Stack, experiment: Experiment) -> list[object]:
    """Directories, processes and listening ports of the gang."""
    keys = [node.key for node in experiment.held.nodes]
    there = [path.name for path in (stack.data_dir / "node" / "attempts").iterdir() if path.name in keys]
    ports = {port for node in experiment.held.nodes for port in node.ports.values()}
    return [*there, *marked(stack, keys), *(ports & listening())]


def test_a_chief_its_worker_and_its_server_find_each_other_and_end_with_the_chief(repo: Repo, stack: Stack) -> None:
    sha = repo.push({CONFIGURATION: grpc("python peers.py"), "peers.py": PEERS + NAMES + THEN})
    check = repo.check(sha)
    experiment = repo.wait(sha, lambda e: True)
    logs = [log_of(stack, experiment, rank) for rank in range(3)]
    assert check["conclusion"] == "success", (check["output"]["title"], logs)
    assert logs == ["met chief 0\n", "met worker 0\n", "met ps 0\n"]
    nodes = experiment.held.nodes
    assert [node.state for node in nodes] == [NodeState.ENDED, NodeState.STOPPED, NodeState.STOPPED]
    assert nodes[0].exit_code == 0
    assert "parameter-server 0" in check["output"]["summary"]
    assert left_of(stack, experiment) == []


def test_a_worker_that_fails_ends_the_gang_and_is_named_with_its_own_last_words(repo: Repo, stack: Stack) -> None:
    fails = 'test "$TYPE$INDEX" = worker1 && { echo my last words; exit 3; }; echo still here; sleep 100'
    check = repo.check(repo.push({CONFIGURATION: grpc(fails)}))
    assert check["conclusion"] == "failure"
    summary, text = check["output"]["summary"], check["output"]["text"]
    assert re.search(
        r"Worker 1 on \S+: .*exited with (exit )?code 3 .*at \d\d:\d\d:\d\d.*; 2 others were stopped", summary
    ), summary
    assert "my last words" in text
    assert "still here" not in text


TWO = """
import os, socket, sys, time
rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
where = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
if rank == 0:
    listener = socket.create_server(where)
    connections = [listener.accept()[0] for _ in range(size - 1)]
    total = sum(int(connection.recv(9)) for connection in connections)
    for connection in connections:
        connection.sendall(b"%d" % total)
else:
    while True:
        try:
            connection = socket.create_connection(where)
            break
        except ConnectionRefusedError:
            time.sleep(0.02)
    connection.sendall(b"%d" % (rank + 6))
    total = int(connection.recv(9))
print("sum", total, flush=True)
assert os.environ["NODE_RANK"] == str(rank) and os.environ["LOCAL_RANK"] == "0"
found = os.path.join(os.environ["ARTIFACTS_DIR"], "checkpoint")
if os.environ["ATTEMPT"] == "2":
    assert open(found).read() == f"of {rank}", os.listdir(os.environ["ARTIFACTS_DIR"])
else:
    open(found, "w").write(f"of {rank}")
    sys.exit(rank)
"""


def test_equal_nodes_meet_at_the_master_and_a_retry_finds_the_artifacts_of_before(repo: Repo, stack: Stack) -> None:
    sha = repo.push({CONFIGURATION: torch("python two.py", retries=1), "two.py": TWO})
    check = repo.check(sha)
    experiment = repo.wait(sha, lambda e: True)
    logs = [log_of(stack, experiment, rank, attempt) for attempt in (1, 2) for rank in (0, 1)]
    assert check["conclusion"] == "success", (check["output"]["title"], logs)
    assert logs == ["sum 7\n"] * 4
    assert experiment.progress.attempt == 2
    assert [(node.state, node.exit_code) for node in experiment.held.nodes] == [(NodeState.ENDED, 0)] * 2
    kept = stack.data_dir / "artifacts" / str(experiment.id) / "2"
    assert [(kept / f"worker-{rank}" / "checkpoint").read_text() for rank in (0, 1)] == ["of 0", "of 1"]


def test_two_gangs_never_share_a_port_and_cancelling_one_leaves_nothing_of_it(repo: Repo, stack: Stack) -> None:
    other = stack.repository("other-gang")
    stubborn = "trap '' TERM; (setsid sleep 1000 &); python peers.py; while true; do sleep 1; done"
    files = {CONFIGURATION: grpc(stubborn), "peers.py": PEERS + 'print("met", flush=True); signal.pause()'}
    shas = [(each, each.push(files)) for each in (repo, other)]
    gangs = [held(each, sha) for each, sha in shas]
    ports = [port for experiment in gangs for node in experiment.held.nodes for port in node.ports.values()]
    assert len(set(ports)) == len(ports) == 6
    for experiment in gangs:
        for rank in range(3):
            wait_for(lambda e=experiment, r=rank: "met" in log_of(stack, e, r), 20)
    assert listening() >= set(ports)
    for each, sha in shas:
        runs = each.checks(sha, lambda runs: any(run["actions"] for run in runs))
        stack.control.click(runs[-1]["id"], "cancel")
    for each, sha in shas:
        assert each.check(sha)["conclusion"] == "cancelled"
    assert [left_of(stack, experiment) for experiment in gangs] == [[], []]


@pytest.fixture
def mpi(tmp_path: Path, network: Network | None) -> Mapping[str, bytes]:
    """What a repository needs to have an MPI: nothing where the host has one, else a wheel."""
    if shutil.which("mpirun"):
        return {}
    pip = ["python3", "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(tmp_path), "mpich"]
    with network.left() if network else nullcontext():
        done = subprocess.run(pip, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no mpirun here, and no mpich wheel: {done.stderr.strip()[-200:]}")
    return {wheel.name: wheel.read_bytes() for wheel in tmp_path.glob("*.whl")}


def test_mpirun_starts_a_process_on_every_node_and_its_end_is_success(
    repo: Repo, stack: Stack, mpi: Mapping[str, bytes]
) -> None:
    prepare = "".join(f"pip install -q --no-index --no-deps ./{name} && " for name in mpi)
    plain = """mpirun sh -c 'echo "rank $OMPI_COMM_WORLD_RANK$PMI_RANK on $(hostname) of $MINE"'"""
    literal = "mpirun --allow-run-as-root -np 3 --hostfile /generated/hostfile hostname"
    written = gang(
        "multi-mpi",
        master={"command": f"{prepare}{plain} && {literal}", "count": 1},
        worker={"command": f"{prepare}sleep infinity", "count": 2},
        experimentEnv={"MINE": "mona"},
    )
    sha = repo.push({CONFIGURATION: written, **mpi})
    check = repo.check(sha)
    experiment = repo.wait(sha, lambda e: True)
    log = log_of(stack, experiment, 0)
    assert check["conclusion"] == "success", (check["output"]["title"], log)
    names = [node.key for node in experiment.held.nodes]
    assert sorted(re.findall(r"rank (\d) on (\S+) of mona", log)) == [(str(r), name) for r, name in enumerate(names)]
    assert {line for line in log.splitlines() if line in names} == set(names)
    assert experiment.held.nodes[0].state is NodeState.ENDED
    assert left_of(stack, experiment) == []
