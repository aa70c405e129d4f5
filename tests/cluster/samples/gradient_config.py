"""What a program of the original does first: the published gradient_utils package makes TF_CONFIG of PS_CONFIG.

Each process finds itself in it; the others report to the master at the address that it gives, and the master ends
well once all have.
"""

import json
import os
import socket
import time

from gradient_utils import get_tf_config, job_name, ps_hosts, task_index, worker_hosts

get_tf_config()
decoded = json.loads(os.environ["TF_CONFIG"])
cluster, task = decoded["cluster"], decoded["task"]

assert (task["type"], str(task["index"])) == (job_name(), task_index()), task
assert cluster["worker"] == worker_hosts().split(","), (cluster, worker_hosts())
assert cluster["ps"] == ps_hosts().split(","), (cluster, ps_hosts())
assert set(cluster) == {"master", "worker", "ps"}, cluster
assert len(cluster["master"]) == 1, cluster
print(f"{task['type']} {task['index']} of {cluster}", flush=True)

host, _, port = cluster["master"][0].rpartition(":")
if task["type"] == "master":
    own = f"{task['type']} {task['index']}"
    expected = {f"worker {i}" for i in range(1, len(cluster["worker"]))} | {
        f"ps {i}" for i in range(len(cluster["ps"]))
    }
    heard = set()
    with socket.create_server((host, int(port))) as listener:
        while heard != expected:
            peer, _ = listener.accept()
            with peer, peer.makefile() as said:
                heard.add(said.readline().strip())
    print(f"decoded by {own}, {', '.join(sorted(heard))}", flush=True)
else:
    while True:
        try:
            with socket.create_connection((host, int(port)), 5) as master:
                master.sendall(f"{task['type']} {task['index']}\n".encode())
            break
        except ConnectionRefusedError:
            time.sleep(0.05)  # the master has yet to begin
