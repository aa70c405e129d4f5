"""The most that the cluster ever had, as the database keeps it: what decides about waiting outlives a worker. Pure."""

import json

from launcher.backend import Capacity, NodeCapacity

MARK = "most"
NAMES = ("CPU", "GPU")
"""All that can be asked for without a table of machines; what else Ray counts is another at each start."""
MAX_NODES = 1000
"""Where addresses come and go nodes would be remembered without end; the largest are those that matter."""
NOTHING = Capacity((), "")


def dump(most: Capacity) -> str:
    """The text to be kept; equal when nothing has grown."""
    nodes = ([node.address, *(node.total.get(name, 0.0) for name in NAMES)] for node in most.alive)
    largest = sorted(nodes, key=lambda node: node[::-1], reverse=True)
    return json.dumps(largest[:MAX_NODES])


def load(text: str | None) -> Capacity:
    """What was kept; nothing at first."""
    return Capacity(tuple(_node(address, amounts) for address, *amounts in json.loads(text or "[]")), "")


def _node(address: str, amounts: list[float]) -> NodeCapacity:
    return NodeCapacity("", address, address, alive=True, total=dict(zip(NAMES, amounts, strict=True)))
