"""Who runs when, on which GPUs, and what the others are told."""

from launcher.state import State
from tests.e2e.stack import Repo, Stack


def test_gpus_are_bound_and_two_experiments_never_share_one(repo: Repo, stack: Stack) -> None:
    other = stack.repository("other-gpus")
    show = 'echo "gpus=$CUDA_VISIBLE_DEVICES"; sleep 12'
    shas = [repo.run(show, worker={"machine-type": "P4000"}), other.run(show, worker={"machine-type": "P4000"})]
    found = [r.wait(s, lambda e: e.state is State.RUNNING) for r, s in zip((repo, other), shas, strict=True)]
    assert repo.wait(shas[0], lambda e: True).state is State.RUNNING
    gpus = [experiment.held.nodes[0].gpu_ids for experiment in found]
    assert [len(each) for each in gpus] == [1, 1]
    assert gpus[0] != gpus[1]
    assert repo.check(shas[0])["conclusion"] == other.check(shas[1])["conclusion"] == "success"
    assert f"gpus={gpus[0][0]}" in repo.log(found[0])
    without = repo.run('echo "gpus=$CUDA_VISIBLE_DEVICES"')
    repo.check(without)
    experiment = repo.experiment(without)
    assert experiment is not None
    assert "gpus=\n" in repo.log(experiment)


def test_what_waits_says_why_on_its_check_run_and_starts_in_order(repo: Repo, stack: Stack) -> None:
    other = stack.repository("in-the-way")
    first = other.run("sleep 15", worker={"machine-type": "A100x2"})
    other.wait(first, lambda e: e.state is State.RUNNING)
    second = repo.run("true", worker={"machine-type": "A100x2"})
    runs = repo.checks(second, lambda runs: bool(runs) and "free" in runs[-1]["output"]["summary"])
    assert runs[-1]["status"] == "queued"
    assert "GPU" in runs[-1]["output"]["summary"]
    assert repo.check(second)["conclusion"] == "success"
