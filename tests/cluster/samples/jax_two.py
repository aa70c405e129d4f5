"""A data-parallel training on two processes, one a node, with JAX on processors.

JAX (0.10) reads only the coordinator's address from the environment; how many processes there are, and which of them
this one is, must be said. Collectives between processors go through gloo, its default there.
"""

import os

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

jax.config.update("jax_platforms", "cpu")
jax.distributed.initialize(
    num_processes=int(os.environ["JAX_NUM_PROCESSES"]),
    process_id=int(os.environ["JAX_PROCESS_ID"]),
)
rank, size = jax.process_index(), jax.process_count()
print(f"process {rank} of {size}: {jax.local_device_count()} of {jax.device_count()} devices", flush=True)

mesh = Mesh(np.array(jax.devices()), ("data",))
split, whole = NamedSharding(mesh, PartitionSpec("data")), NamedSharding(mesh, PartitionSpec())
truth = np.array([1.0, -2.0, 3.0, 0.5], np.float32)


@jax.jit
def step(weights, inputs, wanted):
    """One step on a batch that is split over all processes; the gradient is of the whole batch."""
    loss, gradient = jax.value_and_grad(lambda w: jnp.mean((inputs @ w - wanted) ** 2))(weights)
    return weights - 0.1 * gradient, loss


dice = np.random.default_rng(1 + rank)  # every process has data of its own
weights = jax.make_array_from_process_local_data(whole, np.zeros(4, np.float32))
for _ in range(100):
    mine = dice.normal(size=(64, 4)).astype(np.float32)
    inputs = jax.make_array_from_process_local_data(split, mine)
    wanted = jax.make_array_from_process_local_data(split, mine @ truth)
    weights, loss = step(weights, inputs, wanted)

found = np.asarray(weights.addressable_data(0))
assert np.allclose(found, truth, atol=1e-3), found
if rank == 0:
    if "ARTIFACTS_DIR" in os.environ:
        np.save(os.path.join(os.environ["ARTIFACTS_DIR"], "weights.npy"), found)
    print(f"trained on {size} processes, loss {float(loss):.6f}", flush=True)
jax.distributed.shutdown()
