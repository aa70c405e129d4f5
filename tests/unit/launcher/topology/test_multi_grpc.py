"""What TensorFlow, and scripts written for the original, are told."""

import base64
import json

import pytest

from launcher.topology import Decides, shape_of
from tests.unit.launcher.topology.example import placed, specification, told

GANG = specification("multi-grpc", worker=3, server=1)
ALL = ["10.0.0.1:7000", "10.0.0.2:7000", "10.0.0.3:7000"]


@pytest.mark.parametrize(("rank", "task"), [(0, ("chief", 0)), (1, ("worker", 0)), (2, ("worker", 1)), (3, ("ps", 0))])
def test_worker_0_is_the_chief_and_each_task_is_where_the_cluster_says(rank: int, task: tuple[str, int]) -> None:
    config = json.loads(told(GANG, rank)["TF_CONFIG"])
    assert config["cluster"] == {"chief": ALL[:1], "worker": ALL[1:], "ps": ["10.0.0.4:7000"]}
    assert (config["task"]["type"], config["task"]["index"]) == task
    assert config["cluster"][task[0]][task[1]] == placed(GANG).nodes[rank].endpoint("grpc")


@pytest.mark.parametrize(("rank", "task"), [(0, ("master", 0)), (1, ("worker", 1)), (2, ("worker", 2)), (3, ("ps", 0))])
def test_the_originals_configuration_has_the_master_among_the_workers(rank: int, task: tuple[str, int]) -> None:
    env = told(GANG, rank)
    config = json.loads(base64.urlsafe_b64decode(env["PS_CONFIG"]).decode("utf-8"))  # as gradient_utils 0.5.0 does
    assert config["cluster"] == {"master": ALL[:1], "worker": ALL, "ps": ["10.0.0.4:7000"]}
    assert config["task"] == {"type": task[0], "index": task[1]}
    assert config["environment"] == "cloud"
    assert (env["TYPE"], int(env["INDEX"])) == task
    assert config["cluster"][task[0]][task[1]] == placed(GANG).nodes[rank].endpoint("grpc")


def test_hosts_are_lists_with_commas() -> None:
    assert told(GANG, 1)["WORKER_HOSTS"] == ",".join(ALL)
    assert told(GANG, 1)["PS_HOSTS"] == "10.0.0.4:7000"


def test_a_job_without_tasks_is_not_in_the_cluster() -> None:
    config = json.loads(told(specification("multi-grpc", worker=1, server=1), 0)["TF_CONFIG"])
    assert set(config["cluster"]) == {"chief", "ps"}


def test_what_never_ends_by_itself_is_given_a_moment_and_decides_nothing() -> None:
    shape = shape_of(GANG)
    assert [group.decides for group in shape.groups(GANG)] == [Decides.FIRST, Decides.NONE]
    assert shape.linger_s > 0
