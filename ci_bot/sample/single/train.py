"""Train a small neural network on scikit-learn's handwritten digits, and keep what came of it."""

import json
import os
import pickle
import time
from pathlib import Path

from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import StandardScaler

EPOCHS = 30

images, labels = load_digits(return_X_y=True)
train_x, test_x, train_y, test_y = train_test_split(images, labels, test_size=0.25, random_state=7)
scaler = StandardScaler().fit(train_x)
train_x, test_x = scaler.transform(train_x), scaler.transform(test_x)

model = MLPClassifier(hidden_layer_sizes=(64,), learning_rate_init=0.01, random_state=7)
classes = sorted(set(labels))
for epoch in range(1, EPOCHS + 1):
    model.partial_fit(train_x, train_y, classes=classes)
    accuracy = model.score(test_x, test_y)
    print(f"epoch {epoch:2d}/{EPOCHS}  loss {model.loss_:.4f}  accuracy {accuracy:.4f}", flush=True)
    time.sleep(0.1)  # slow enough to be watched

artifacts = Path(os.environ["ARTIFACTS_DIR"])
(artifacts / "metrics.json").write_text(json.dumps({"loss": model.loss_, "accuracy": accuracy}))
(artifacts / "model.pickle").write_bytes(pickle.dumps((scaler, model)))
print(f"Trained on {len(train_x)} digits of commit {os.environ['PS_GRADIENT_CI_GIT_SHA'][:7]}.")
