"""Softmax regression on scikit-learn's handwritten digits, with JAX on two processes, one a node.

JAX reads the coordinator's address from the environment; how many processes there are, and which of them this one is,
must be said. Collectives between processors go through gloo, which older versions have to be told.
PyTorch's way is the same: `torchrun train.py`, and `torch.distributed.init_process_group("gloo")` in it.
"""

import json
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

EPOCHS, BATCH, RATE = 30, 32, 0.5

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize(
    num_processes=int(os.environ["JAX_NUM_PROCESSES"]),
    process_id=int(os.environ["JAX_PROCESS_ID"]),
)
rank, size = jax.process_index(), jax.process_count()
print(f"process {rank} of {size}: {jax.local_device_count()} of {jax.device_count()} devices", flush=True)

mesh = Mesh(np.array(jax.devices()), ("data",))
split, whole = NamedSharding(mesh, PartitionSpec("data")), NamedSharding(mesh, PartitionSpec())

images, labels = load_digits(return_X_y=True)
inputs = np.hstack([images / 16, np.ones((len(images), 1))]).astype(np.float32)
train_x, test_x, train_y, test_y = train_test_split(inputs, labels, test_size=0.25, random_state=7)
each = len(train_x) // size // BATCH * BATCH  # the same for all, who must make the same number of steps
mine_x, mine_y = train_x[rank * each :][:each], train_y[rank * each :][:each]


def loss_of(weights, images, labels):
    return -jnp.take_along_axis(jax.nn.log_softmax(images @ weights), labels[:, None], axis=1).mean()


@jax.jit
def step(weights, images, labels):
    """One step on a batch that is split over all processes; the gradient is of the whole batch."""
    return weights - RATE * jax.grad(loss_of)(weights, images, labels)


dice = np.random.default_rng(rank)
weights = jax.make_array_from_process_local_data(whole, np.zeros((inputs.shape[1], 10), np.float32))
for epoch in range(1, EPOCHS + 1):
    for batch in dice.permutation(each).reshape(-1, BATCH):
        part_x = jax.make_array_from_process_local_data(split, mine_x[batch])
        part_y = jax.make_array_from_process_local_data(split, mine_y[batch])
        weights = step(weights, part_x, part_y)
    if rank == 0:
        found = np.asarray(weights.addressable_data(0))
        loss = float(loss_of(found, test_x, test_y))
        accuracy = float(((test_x @ found).argmax(axis=1) == test_y).mean())
        print(f"epoch {epoch:2d}/{EPOCHS}  loss {loss:.4f}  accuracy {accuracy:.4f}", flush=True)

if rank == 0:
    artifacts = Path(os.environ["ARTIFACTS_DIR"])
    (artifacts / "metrics.json").write_text(json.dumps({"loss": loss, "accuracy": accuracy}))
    np.save(artifacts / "weights.npy", found)
    print(f"Trained by {size} processes on commit {os.environ['PS_GRADIENT_CI_GIT_SHA'][:7]}.")
jax.distributed.shutdown()
