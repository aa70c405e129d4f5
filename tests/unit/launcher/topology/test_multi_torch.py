"""What torchrun, plain PyTorch and JAX are told."""

from launcher.topology import shape_of
from tests.unit.launcher.topology.example import placed, specification, told

GANG = specification("multi-torch", worker=2)


def test_plain_python_is_one_process_a_node() -> None:
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "NODE_RANK", "NNODES")
    assert [told(GANG, 1)[name] for name in names] == ["1", "2", "0", "1", "1", "2"]
    assert [told(GANG, 1)[name] for name in ("MASTER_ADDR", "MASTER_PORT")] == ["10.0.0.1", "7000"]


def test_torchrun_takes_its_options_from_the_environment() -> None:
    found = {name: value for name, value in told(GANG, 1).items() if name.startswith("PET_")}
    assert found == {
        "PET_NNODES": "2",
        "PET_NODE_RANK": "1",
        "PET_NPROC_PER_NODE": "1",
        "PET_MASTER_ADDR": "10.0.0.1",
        "PET_MASTER_PORT": "7001",
        "PET_LOCAL_ADDR": "10.0.0.2",
    }


def test_torchrun_starts_a_process_for_each_gpu() -> None:
    network = placed(GANG, gpus=(4, 4))
    assert shape_of(GANG).environment(network, 0)["PET_NPROC_PER_NODE"] == "4"


def test_jax_finds_its_coordinator() -> None:
    names = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
    assert [told(GANG, 1)[name] for name in names] == ["10.0.0.1:7002", "2", "1"]


def test_no_two_of_them_meet_at_one_port() -> None:
    env = told(GANG, 0)
    ports = {env["MASTER_PORT"], env["PET_MASTER_PORT"], env["JAX_COORDINATOR_ADDRESS"].rpartition(":")[2]}
    assert len(ports) == 3
