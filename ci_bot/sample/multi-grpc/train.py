"""Softmax regression on scikit-learn's handwritten digits, by asynchronous gradient descent with a parameter server.

The same program on every node: TF_CONFIG says which of them this one is. Worker and server never end by themselves
once the chief has what it wants; Descent stops them when it has ended.
"""

import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np

EPOCHS, BATCH, RATE = 30, 32, 0.3
SHAPE = (65, 10)  # 8 x 8 pixels and a constant; ten digits
SERVICE = "digits.ParameterServer"


class Weights:
    """What the server keeps; requests and answers are the bytes of an array."""

    def __init__(self, workers):
        self.values = np.zeros(SHAPE, np.float32)
        self.lock = threading.Lock()
        self.all_here = threading.Barrier(workers)

    def join(self, request, context):
        """The weights, once every worker has asked for them: none begins before the others."""
        self.all_here.wait()
        return self.values.tobytes()

    def push(self, gradient, context):
        """The weights after this step, and whatever steps others made in between."""
        with self.lock:
            self.values -= RATE * np.frombuffer(gradient, np.float32).reshape(SHAPE)
            return self.values.tobytes()


def serve(address, workers):
    """Be the parameter server."""
    weights = Weights(workers)
    methods = {
        "Join": grpc.unary_unary_rpc_method_handler(weights.join),
        "Push": grpc.unary_unary_rpc_method_handler(weights.push),
    }
    server = grpc.server(ThreadPoolExecutor(workers))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))
    server.add_insecure_port(address)
    server.start()
    print(f"serving on {address}", flush=True)
    server.wait_for_termination()


def digits():
    """Images and labels to learn from, and to be judged by."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    inputs = np.hstack([images / 16, np.ones((len(images), 1))]).astype(np.float32)
    return train_test_split(inputs, labels, test_size=0.25, random_state=7)


def softmax(scores):
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def train(server, number, workers):
    """Learn from this worker's share of the digits; gives what came of it."""
    train_x, test_x, train_y, test_y = digits()
    mine_x, mine_y = train_x[number::workers], train_y[number::workers]
    # A proxy for the way out is none for the way to the next node.
    channel = grpc.insecure_channel(server, options=[("grpc.enable_http_proxy", 0)])
    join = channel.unary_unary(f"/{SERVICE}/Join")
    push = channel.unary_unary(f"/{SERVICE}/Push")
    weights = np.frombuffer(join(b"", wait_for_ready=True), np.float32).reshape(SHAPE)
    dice = np.random.default_rng(number)
    for epoch in range(1, EPOCHS + 1):
        for batch in np.array_split(dice.permutation(len(mine_x)), len(mine_x) // BATCH):
            wanted = np.eye(10, dtype=np.float32)[mine_y[batch]]
            found = softmax(mine_x[batch] @ weights)
            gradient = mine_x[batch].T @ (found - wanted) / len(batch)
            weights = np.frombuffer(push(gradient.tobytes()), np.float32).reshape(SHAPE)
        found = softmax(test_x @ weights)
        loss = float(-np.log(found[np.arange(len(test_y)), test_y]).mean())
        accuracy = float((found.argmax(axis=1) == test_y).mean())
        print(f"epoch {epoch:2d}/{EPOCHS}  loss {loss:.4f}  accuracy {accuracy:.4f}", flush=True)
    return weights, {"loss": loss, "accuracy": accuracy}


def main():
    config = json.loads(os.environ["TF_CONFIG"])
    cluster, task = config["cluster"], config["task"]
    workers = len(cluster["chief"]) + len(cluster.get("worker", []))
    if task["type"] == "ps":
        serve(cluster["ps"][task["index"]], workers)
    number = 0 if task["type"] == "chief" else 1 + task["index"]
    weights, metrics = train(cluster["ps"][0], number, workers)
    if task["type"] == "chief":
        artifacts = Path(os.environ["ARTIFACTS_DIR"])
        (artifacts / "metrics.json").write_text(json.dumps(metrics))
        np.save(artifacts / "weights.npy", weights)
        print(f"Trained by {workers} workers on commit {os.environ['PS_GRADIENT_CI_GIT_SHA'][:7]}.")


if __name__ == "__main__":
    main()
