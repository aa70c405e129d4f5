"""Softmax regression on scikit-learn's handwritten digits, on as many processes as mpirun starts.

Every process has its part of the digits; after each step all have the average of all gradients, so that all have the
same weights. Start it with `python -m mpi4py`: an error in one process then ends the others too.
"""

import json
import os
from pathlib import Path

import numpy as np
from mpi4py import MPI
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

EPOCHS, BATCH, RATE = 30, 32, 0.5

world = MPI.COMM_WORLD
rank, size = world.Get_rank(), world.Get_size()
print(f"process {rank} of {size} on {MPI.Get_processor_name()}", flush=True)

images, labels = load_digits(return_X_y=True)
inputs = np.hstack([images / 16, np.ones((len(images), 1))])
train_x, test_x, train_y, test_y = train_test_split(inputs, labels, test_size=0.25, random_state=7)
each = len(train_x) // size  # the same for all, who must make the same number of steps
mine_x, mine_y = train_x[rank * each :][:each], train_y[rank * each :][:each]


def softmax(scores):
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


dice = np.random.default_rng(rank)
weights, gradient = np.zeros((inputs.shape[1], 10)), np.empty((inputs.shape[1], 10))
for epoch in range(1, EPOCHS + 1):
    for batch in np.array_split(dice.permutation(each), max(1, each // BATCH)):
        error = softmax(mine_x[batch] @ weights) - np.eye(10)[mine_y[batch]]
        world.Allreduce(mine_x[batch].T @ error / len(batch), gradient)
        weights -= RATE * gradient / size
    if rank == 0:
        found = softmax(test_x @ weights)
        loss = float(-np.log(found[np.arange(len(test_y)), test_y]).mean())
        accuracy = float((found.argmax(axis=1) == test_y).mean())
        print(f"epoch {epoch:2d}/{EPOCHS}  loss {loss:.4f}  accuracy {accuracy:.4f}", flush=True)

if rank == 0:
    artifacts = Path(os.environ["ARTIFACTS_DIR"])
    (artifacts / "metrics.json").write_text(json.dumps({"loss": loss, "accuracy": accuracy}))
    np.save(artifacts / "weights.npy", weights)
    print(f"Trained by {size} processes on commit {os.environ['PS_GRADIENT_CI_GIT_SHA'][:7]}.")
