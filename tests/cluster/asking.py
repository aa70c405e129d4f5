"""What Ray says: `python -m tests.cluster.asking ADDRESS TOKEN_PATH STORAGE_DIR`, on a host of the cluster."""

import asyncio
import json
import os
import sys
from pathlib import Path

from launcher.ray_backend import Connection, RayBackend

FENCE_S = 20
"""A partitioned node ends what it runs before its attempt starts elsewhere; the default is 120."""


async def ask(address: str, token_path: Path, storage_dir: Path) -> dict[str, list[str]]:
    """The addresses of the nodes that live, and the placement groups of Descent."""
    where = Connection(address, token_path)
    # Made as the worker's own, so that the agents stay who they are.
    backend = RayBackend(lambda: where, environment=os.environ, fence_s=FENCE_S, storage_dir=storage_dir, guest=True)
    await backend.connect()
    try:
        capacity = await backend.capacity()
        groups = await backend.reservations()
        return {"alive": [node.address for node in capacity.alive], "reservations": list(groups)}
    finally:
        await backend.close()


if __name__ == "__main__":
    print(json.dumps(asyncio.run(ask(sys.argv[1], *map(Path, sys.argv[2:])))))
