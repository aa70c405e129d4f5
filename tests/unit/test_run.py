"""What `descent run` shows: a plan before anything starts, and experiments as they go."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ci_bot.records import Experiment, Transition
from ci_bot.run import GITHUB_IDS, Options, _keep_artifacts, _repository_id, run
from ci_bot.run.follow import Follower
from ci_bot.run.local import find, git
from ci_bot.run.place import OnlyOurs
from ci_bot.run.plan import Planner
from ci_bot.worker.launch import Launch
from launcher.controller import Rules
from launcher.experiment import NodeGroup, Role, Specification
from launcher.keep import Keep
from launcher.machines import GIB, Machine, Machines
from launcher.state import Cause, Progress, State

CAP_BYTES = 1 << 20
RULES = Rules(time_limit_s=3600)


def specification(**group: Any) -> Specification:
    worker = NodeGroup(role=Role.WORKER, command="python train.py --api-key hunter22", **group)
    return Specification(name="digits", topology="single", groups=(worker,), env={"API_TOKEN": "hunter22"})


def experiment(state: State, attempt: int = 1, **more: Any) -> Experiment:
    said = {"detail": {}, "created_at": 0.0, "state_at": 0.0, **more}
    return Experiment(
        7, 1, 0, "digits", "a" * 40, "refs/heads/main", "digits", 0, "Train", specification(), "config.yaml", "",
        Progress(state=state, attempt=attempt), **said,
    )  # fmt: skip


def history(*states: State, attempt: int = 1) -> list[Transition]:
    return [Transition(number, attempt, state, float(number)) for number, state in enumerate(states)]


def follower(root: Path, *, as_json: bool = False) -> Follower:
    return Follower(Keep(root), CAP_BYTES, as_json)


def log(root: Path, attempt: int, text: str, rank: int = 0) -> None:
    segments = Keep(root).log(7, attempt, rank, CAP_BYTES)
    segments.put(segments.size, text.encode())
    segments.close()


def test_a_plan_says_what_a_machine_type_means_here() -> None:
    table = {"P4000": Machine("P4000", gpus=1, cpus=8, memory_bytes=30 * GIB)}
    lines = Planner(Machines(table), RULES).lines(specification(machine_type="P4000", count=2), {})
    assert lines[0] == "digits: single, ended after 1 h 00 min, 0 retries"
    assert "  worker × 2 on P4000: 8 CPUs, 1 GPU, 30 GiB of memory" in lines


def test_a_plan_says_that_a_machine_type_is_not_there() -> None:
    lines = Planner(Machines({"C3": Machine("C3")}), RULES).lines(specification(machine_type="K80"), {})
    assert "    never starts: machine type K80 is not in machines.yaml; it has C3" in lines


def test_a_plan_shows_no_credential() -> None:
    planner, told = Planner(Machines(), RULES), {"API_TOKEN": "hunter22", "EPOCHS": "3"}
    shown = "\n".join(planner.lines(specification(), told)) + json.dumps(planner.record(specification(), told))
    assert "hunter22" not in shown
    assert "EPOCHS=3" in shown


def test_the_record_of_a_plan_has_a_row_for_each_node() -> None:
    record = Planner(Machines(), RULES).record(specification(count=2, machine_type="P4000"), {})
    assert [(node["role"], node["index"]) for node in record["nodes"]] == [("worker", 0), ("worker", 1)]
    assert record["nodes"][0]["resources"] == {"CPU": 1, "GPU": 1}


GANG = Specification(
    name="mpi",
    topology="multi-mpi",
    groups=(
        NodeGroup(role=Role.MASTER, command="mpirun python train.py"),
        NodeGroup(role=Role.WORKER, count=2, command="sleep infinity"),
    ),
)
TORCH = GANG.model_copy(
    update={"topology": "multi-torch", "groups": (NodeGroup(role=Role.WORKER, count=9, command="torchrun x"),)}
)


def test_a_plan_says_of_each_role_which_ranks_it_has_and_whose_end_decides() -> None:
    lines = Planner(Machines(), RULES).lines(GANG, {})
    assert lines[lines.index("  master × 1: 1 CPU") + 1] == "    rank 0; its end is the experiment's; started last"
    assert lines[lines.index("  worker × 2: 1 CPU") + 1] == "    ranks 1 to 2; stopped when the experiment has ended"


def test_a_plan_has_placeholders_for_what_is_known_only_later() -> None:
    lines = Planner(Machines(), RULES).lines(TORCH, {})
    assert "    MASTER_ADDR=<address of worker 0>" in lines
    assert "    JAX_COORDINATOR_ADDRESS=<address of worker 0>:<port jax of worker 0>" in lines
    mpi = Planner(Machines(), RULES).lines(GANG, {})
    assert "    OMPI_MCA_btl_tcp_if_include=<from the addresses of all nodes>" in mpi
    assert mpi[mpi.index("  /generated/hostfile:") + 1] == "    <name of master 0>"


def test_a_plan_says_once_what_every_node_is_told_and_names_what_it_leaves_out() -> None:
    lines = Planner(Machines(), RULES).lines(TORCH, {})
    assert lines.count("    NNODES=9") == 1
    assert [line for line in lines if line.startswith("    RANK=")] == [f"    RANK={rank}" for rank in range(8)]
    assert "  and the environments of 1 more nodes; --json has them all" in lines


def test_the_record_of_a_gang_is_json_with_everything_that_each_node_is_told() -> None:
    record = json.loads(json.dumps(Planner(Machines(), RULES).record(TORCH, {})))
    last = record["nodes"][8]
    assert (last["rank"], last["role"], last["index"], last["decides"]) == (8, "worker", 8, True)
    assert last["ports"]["jax"] == "<port jax of worker 8>"
    assert (last["env"]["RANK"], last["command"]) == ("8", "torchrun x")


def test_what_the_configuration_sets_itself_is_shown_as_that() -> None:
    lines = Planner(Machines(), RULES).lines(TORCH, {"PET_NPROC_PER_NODE": "2"})
    assert [line for line in lines if "PET_NPROC_PER_NODE" in line] == ["    PET_NPROC_PER_NODE=2"]


def test_every_transition_and_every_line_is_shown_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    showing = follower(tmp_path)
    states = history(State.CREATED, State.PENDING, attempt=0) + history(State.PROVISIONING, State.RUNNING)
    showing.show(experiment(State.RUNNING), states)
    log(tmp_path, 1, "one\nhalf a ")
    showing.show(experiment(State.RUNNING), states)
    log(tmp_path, 1, "line\nthe end")
    ended = replace(experiment(State.STOPPED), progress=Progress(State.STOPPED, 1, Cause.SUCCEEDED))
    states += history(State.NETWORK_TEARDOWN, State.STOPPED)
    showing.show(ended, states)
    showing.show(ended, states)
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "digits at aaaaaaa of digits: Train"
    assert [line for line in said if "│" in line] == ["  │ one", "  │ half a line", "  │ the end"]
    assert [line.split()[2] for line in said if line.lstrip().startswith("+")] == [each.state for each in states]
    assert said[-1].startswith("STOPPED")


def test_a_retry_shows_its_own_log_from_the_beginning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    showing = follower(tmp_path)
    log(tmp_path, 1, "first\n")
    log(tmp_path, 2, "second\n")
    states = history(State.RUNNING, State.NETWORK_TEARDOWN, State.PENDING)
    showing.show(experiment(State.PENDING), states)
    showing.show(experiment(State.RUNNING, 2), states + history(State.RUNNING, attempt=2))
    said = capsys.readouterr().out
    assert (said.count("│ first"), said.count("│ second")) == (1, 1)


def test_each_line_of_several_nodes_says_whose_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    groups = (
        NodeGroup(role=Role.WORKER, count=2, command="python train.py"),
        NodeGroup(role=Role.PARAMETER_SERVER, command="python serve.py"),
    )
    gang = Specification(name="digits", topology="multi-grpc", groups=groups)
    runs = replace(experiment(State.RUNNING), specification=gang)
    showing, states = follower(tmp_path), history(State.RUNNING)
    log(tmp_path, 1, "one\nhalf a ", rank=1)
    showing.show(runs, states)
    log(tmp_path, 1, "first\n")
    log(tmp_path, 1, "line\n", rank=1)
    log(tmp_path, 1, "ready", rank=2)
    showing.show(runs, states)
    showing.show(runs, states + history(State.PENDING))  # the end of an attempt ends each node's last line
    said = [line for line in capsys.readouterr().out.splitlines() if "│" in line]
    assert said == [
        "  worker 1           │ one",
        "  worker 0           │ first",
        "  worker 1           │ half a line",
        "  parameter-server 0 │ ready",
    ]


def test_json_has_transitions_alone_and_the_log_is_beside_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log(tmp_path, 1, "the token is hunter22\n")
    reason = "Waits for a machine."
    follower(tmp_path, as_json=True).show(experiment(State.RUNNING, pending_reason=reason), history(State.RUNNING))
    said = capsys.readouterr()
    assert [json.loads(line)["state"] for line in said.out.splitlines()] == ["RUNNING"]
    assert "│ the token is ***" in said.err
    assert reason in said.err


def test_on_a_cluster_that_is_not_ours_alone_nothing_is_swept_away() -> None:
    assert "_sweep" in vars(Launch), "the launch loop sweeps elsewhere now: OnlyOurs must leave that out"
    assert "_sweep" in vars(OnlyOurs)


def test_a_repository_keeps_an_id_that_no_other_folder_and_no_repository_of_githubs_has() -> None:
    one = _repository_id(Path("/home/me/digits"), "laptop")
    assert one == _repository_id(Path("/home/me/digits"), "laptop")
    assert one not in {_repository_id(Path("/home/me/other"), "laptop"), _repository_id(Path("/home/me/digits"), "pc")}
    assert GITHUB_IDS <= one < 1 << 63


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clean working tree with a configuration, in which we are."""
    place = tmp_path / "digits"
    place.mkdir()
    (place / "config.yaml").write_text("version: 1\ntype: single\nworker:\n  command: python train.py\n")
    who = ("-c", "user.name=Ada", "-c", "user.email=ada@example.org", "-c", "commit.gpgsign=false")
    for words in (("init", "--quiet"), ("add", "."), (*who, "commit", "--quiet", "-m", "Train")):
        assert git(place, *words).returncode == 0
    monkeypatch.chdir(place)
    return place


@pytest.mark.parametrize(("ref", "dirty", "said"), [(None, True, True), (None, False, False), ("HEAD", True, False)])
def test_a_plan_too_says_that_what_is_not_committed_is_left_out(
    repository: Path, capsys: pytest.CaptureFixture[str], ref: str | None, dirty: bool, said: bool
) -> None:
    if dirty:
        (repository / "config.yaml").write_text("changed")
    options = Options(repository, ref, plan=True, as_json=True)
    assert run(options, {"DATA_DIR": str(repository)}) == 0
    sha = find(repository, "HEAD").sha[:7]
    words = f"What is not committed is left out: this is {sha}.\n"
    assert capsys.readouterr().err == (words if said else "")


def copied(repository: Path, name: str, text: str) -> None:
    """An experiment's only artifact, as `descent run` copies it."""
    keep = Keep(repository.parent / "keep")
    kept = keep.artifacts(7, 1).directory
    kept.mkdir(parents=True)
    (kept / name).write_text(text)
    _keep_artifacts(SimpleNamespace(keep=keep), experiment(State.STOPPED), as_json=False)  # type: ignore[arg-type]


def test_artifacts_that_were_copied_are_no_change_of_the_users(repository: Path) -> None:
    copied(repository, "model.pkl", "7")
    assert (repository / "artifacts-digits" / "model.pkl").read_text() == "7"
    assert not find(repository, "HEAD").has_uncommitted_changes()


def test_a_gitignore_that_is_an_artifact_is_kept_as_it_is(repository: Path) -> None:
    copied(repository, ".gitignore", "*.tmp\n")
    assert (repository / "artifacts-digits" / ".gitignore").read_text() == "*.tmp\n"
