"""A small model trained with parameter servers: the same program on the chief, the workers and the servers.

TF_CONFIG says which of them this one is. Workers and servers never end by themselves; the chief does.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import numpy as np
import tensorflow as tf

STEPS, BATCH = 40, 64

tf.config.threading.set_intra_op_parallelism_threads(1)
cluster = tf.distribute.cluster_resolver.TFConfigClusterResolver()
print(f"{cluster.task_type} {cluster.task_id} of {cluster.cluster_spec().as_dict()}", flush=True)

if cluster.task_type in ("worker", "ps"):
    server = tf.distribute.Server(
        cluster.cluster_spec(),
        job_name=cluster.task_type,
        task_index=cluster.task_id,
        protocol="grpc",
        start=True,
    )
    server.join()

strategy = tf.distribute.experimental.ParameterServerStrategy(cluster)
coordinator = tf.distribute.coordinator.ClusterCoordinator(strategy)

with strategy.scope():
    weights = tf.Variable(tf.zeros([4, 1]))

truth = tf.constant([[1.0], [-2.0], [3.0], [0.5]])


def batches():
    """Each worker makes its own."""

    def one(seed):
        inputs = tf.random.stateless_normal([BATCH, 4], seed=tf.stack([seed, 7]))
        return inputs, inputs @ truth

    return tf.data.Dataset.range(1_000_000).map(one).prefetch(2)


@tf.function
def step(iterator):
    """One batch on one worker; the variables are on the servers."""
    inputs, wanted = next(iterator)
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(tf.square(inputs @ weights - wanted))
    weights.assign_sub(0.05 * tape.gradient(loss, weights))  # at once, whatever the others do meanwhile
    return loss


iterator = iter(coordinator.create_per_worker_dataset(batches))
losses = [coordinator.schedule(step, args=(iterator,)) for _ in range(STEPS)]
coordinator.join()
first, last = losses[0].fetch(), losses[-1].fetch()
assert last < first / 10, (first, last)

if "ARTIFACTS_DIR" in os.environ:
    np.save(os.path.join(os.environ["ARTIFACTS_DIR"], "weights.npy"), weights.numpy())
workers = len(cluster.cluster_spec().as_dict()["worker"])
print(f"chief: trained with {workers} workers, loss {first:.3f} to {last:.6f}", flush=True)
