"""multi-grpc: workers and parameter servers that speak gRPC, as TensorFlow's do; worker 0 is the master. Pure."""

import json
from base64 import urlsafe_b64encode
from collections.abc import Mapping

from launcher.experiment import Role, Specification
from launcher.network import Network
from launcher.topology.shape import Decides, Group, Shape

PORT = "grpc"
LINGER_S = 5.0
"""For what ends by itself (a training loop of TensorFlow 1): the workers and servers of TensorFlow 2 never do."""

DECIDES = {Role.WORKER: Decides.FIRST}


def groups(specification: Specification) -> tuple[Group, ...]:
    """Workers, then parameter servers."""
    return tuple(
        Group(group.role, source, group.count, group.command, DECIDES.get(group.role, Decides.NONE), (PORT,))
        for source, group in enumerate(specification.groups)
    )


def environment(network: Network, rank: int) -> Mapping[str, str]:
    """What TensorFlow reads today (TF_CONFIG), and what the original gave.

    In TF_CONFIG worker 0 is the `chief` and the list of workers begins after it. In the original's PS_CONFIG, TYPE and
    INDEX it is the `master`, and stands in the list of workers too, so that worker 1 has the index 1.

    Sources: https://www.tensorflow.org/guide/distributed_training#setting_up_the_tf_config_environment_variable;
    gradient_utils 0.5.0, get_tf_config: `json.loads(base64.urlsafe_b64decode(os.environ["PS_CONFIG"]))`.
    """
    node = network.nodes[rank]
    workers = [each.endpoint(PORT) for each in network.of(Role.WORKER)]
    servers = [each.endpoint(PORT) for each in network.of(Role.PARAMETER_SERVER)]
    kind = "ps" if node.role == Role.PARAMETER_SERVER else "worker" if node.index else "master"
    cluster = {"chief": workers[:1], "worker": workers[1:], "ps": servers}
    # tf.train.ClusterSpec takes a job without tasks for one that is there
    tf_config = {
        "cluster": {job: tasks for job, tasks in cluster.items() if tasks},
        "task": _task("chief" if kind == "master" else kind, node.index - 1 if kind == "worker" else node.index),
    }
    ps_config = {
        "cluster": {"master": workers[:1], "worker": workers, "ps": servers},
        "task": _task(kind, node.index),
        "environment": "cloud",
    }
    return {
        "TF_CONFIG": json.dumps(tf_config),
        "PS_CONFIG": urlsafe_b64encode(json.dumps(ps_config).encode()).decode(),
        "TYPE": kind,
        "INDEX": str(node.index),
        "WORKER_HOSTS": ",".join(workers),
        "PS_HOSTS": ",".join(servers),
    }


def files(_network: Network) -> Mapping[str, str]:
    """None."""
    return {}


def _task(kind: str, index: int) -> dict[str, str | int]:
    return {"type": kind, "index": index}


SHAPE = Shape(
    roles=(Role.WORKER, Role.PARAMETER_SERVER),
    commands=("experiment.run_multi_node",),
    groups=groups,
    environment=environment,
    files=files,
    words=("grpc",),
    linger_s=LINGER_S,
)
