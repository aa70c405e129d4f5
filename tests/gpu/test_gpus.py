"""Real GPUs: each experiment sees those it was given and no other, and NCCL finds its peers."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher.gpus import survey
from launcher.state import State
from tests.e2e.stack import Stack, stack_in

GPUS = survey()
SEES = "nvidia-smi --query-gpu=uuid --format=csv,noheader"
TORCH_S = 900
"""What installing torch with CUDA may take, the first time."""
REDUCE = """
import os, torch, torch.distributed as dist
dist.init_process_group("nccl")
torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
value = torch.ones(1 << 20, device="cuda") * (dist.get_rank() + 1)
dist.all_reduce(value)
world = dist.get_world_size()
assert value.eq(world * (world + 1) / 2).all(), value
print(f"reduced over {world} GPUs: {value[0].item():g}")
dist.destroy_process_group()
"""

pytestmark = [
    pytest.mark.skipif(not GPUS or not shutil.which("nvidia-smi"), reason="no NVIDIA GPU here"),
    pytest.mark.timeout(2 * TORCH_S),
]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack whose Ray node has the host's GPUs."""
    root = tmp_path_factory.mktemp("gpu")
    root.chmod(0o755)
    (root / "machines.yaml").write_text(f"one: {{cpus: 1, gpus: 1}}\nall: {{cpus: 1, gpus: {len(GPUS)}}}\n")
    with stack_in(root, MACHINES=str(root / "machines.yaml"), ALLOW_SHARED_HOSTS="true") as stack:
        stack.gpus = len(GPUS)
        stack.start()
        yield stack


def test_an_experiment_sees_its_own_gpu_and_no_other(stack: Stack) -> None:
    repos = [stack.repository(f"sees-{n}") for n in range(min(2, len(GPUS)))]
    shas = [repo.run(f"{SEES} && sleep 10", worker={"machine-type": "one"}) for repo in repos]
    found = [repo.wait(sha, lambda e: e.state is State.RUNNING) for repo, sha in zip(repos, shas, strict=True)]
    for repo, sha in zip(repos, shas, strict=True):
        assert repo.check(sha)["conclusion"] == "success"
    seen = [repo.log(experiment).split() for repo, experiment in zip(repos, found, strict=True)]
    given = [[GPUS[int(gpu)].uuid for gpu in experiment.held.nodes[0].gpu_ids] for experiment in found]
    assert seen == given
    assert all(len(each) == 1 for each in seen)
    assert len({uuid for each in seen for uuid in each}) == len(repos)


def test_without_a_gpu_none_is_seen(stack: Stack) -> None:
    repo = stack.repository("sees-none")
    sha = repo.run(f"{SEES} || echo none")
    repo.check(sha)
    experiment = repo.experiment(sha)
    assert experiment is not None
    assert not any(gpu.uuid in repo.log(experiment) for gpu in GPUS)


def test_what_waits_for_a_gpu_gets_it_when_the_first_has_ended(stack: Stack) -> None:
    first, second = stack.repository("first"), stack.repository("second")
    running = first.run("sleep 5", worker={"machine-type": "all"})
    first.wait(running, lambda e: e.state is State.RUNNING)
    waits = second.run(SEES, worker={"machine-type": "all"})
    second.wait(waits, lambda e: "GPU" in e.pending_reason)
    assert second.check(waits)["conclusion"] == "success"


@pytest.mark.skipif(len(GPUS) < 2, reason="one GPU here: NCCL wants one for each rank")
def test_nccl_reduces_over_the_nodes_of_a_gang(stack: Stack, tmp_path: Path) -> None:
    repo = stack.repository("nccl")
    repo.commit({"reduce.py": REDUCE, "requirements.txt": "torch==2.13.0\nnumpy\n"})
    command = "pip install -q -r requirements.txt && torchrun reduce.py"
    sha = repo.run(command, type="multi-torch", worker={"machine-type": "one", "count": 2})
    assert repo.check(sha, timeout_s=TORCH_S)["conclusion"] == "success"
    experiment = repo.experiment(sha)
    assert experiment is not None
    assert "reduced over 2 GPUs: 3" in repo.log(experiment)


def test_nccl_reduces_over_the_gpus_of_one_node(stack: Stack) -> None:
    repo = stack.repository("nccl-one")
    repo.commit({"reduce.py": REDUCE, "requirements.txt": "torch==2.13.0\nnumpy\n"})
    command = f"pip install -q -r requirements.txt && torchrun --nproc-per-node {len(GPUS)} reduce.py"
    sha = repo.run(command, type="multi-torch", worker={"machine-type": "all", "count": 1})
    assert repo.check(sha, timeout_s=TORCH_S)["conclusion"] == "success"
