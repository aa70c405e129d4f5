"""Ray by itself, beside which ours stands: `python -m tests.bench.ray_peer ADDRESS JOBS_URL`, a line a question."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import ray
from ray.job_submission import JobStatus, JobSubmissionClient
from ray.util.placement_group import placement_group, remove_placement_group

POLL_S = 0.01
LIMIT_S = 120.0
_ENDED = {JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.STOPPED}
_BEGUN = {JobStatus.RUNNING, *_ENDED}


class Existing:
    """An actor that is there before anybody needs it."""

    def run(self) -> float:
        """Run the least of all commands; when it ran."""
        began = time.time()
        subprocess.run(["sh", "-c", "true"], check=True)
        return began


class RayPeer:
    """What Ray offers to start a command, and the floor below it."""

    def __init__(self, jobs_url: str) -> None:
        self._jobs = JobSubmissionClient(jobs_url)
        self._actor = ray.remote(num_cpus=0)(Existing).remote()
        ray.get(self._actor.run.remote())

    def submit(self) -> dict[str, float]:
        """`submit_job` of what prints the time: seconds until it is seen to run, and until its first instruction."""
        began = time.time()
        job = self._jobs.submit_job(entrypoint="date +%s%N")
        self._until(job, _BEGUN)
        running = time.time()
        assert self._until(job, _ENDED) is JobStatus.SUCCEEDED
        stamp = next(line for line in self._jobs.get_job_logs(job).splitlines() if line.isdigit())
        self._until_gone(job)
        return {"running_s": running - began, "first_s": int(stamp) / 1e9 - began}

    def floor(self) -> dict[str, float]:
        """A reservation, then `sh -c true` in the actor that is there: seconds until it has ended."""
        began = time.time()
        group = placement_group([{"CPU": 1}], strategy="STRICT_PACK")
        assert group.wait(30)
        ray.get(self._actor.run.remote())
        took = time.time() - began
        remove_placement_group(group)
        return {"first_s": took}

    def many(self, count: int, at_once: int) -> dict[str, float]:
        """So many jobs of one second, so many at a time: seconds until the last has ended."""
        began = time.time()
        open_ones: set[str] = set()
        left = count
        while left or open_ones:
            while left and len(open_ones) < at_once:
                open_ones.add(self._jobs.submit_job(entrypoint="sleep 1"))
                left -= 1
            time.sleep(0.1)
            open_ones = {job for job in open_ones if self._jobs.get_job_status(job) not in _ENDED}
            assert time.time() - began < 5 * LIMIT_S
        return {"seconds": time.time() - began}

    def _until(self, job: str, wanted: set[JobStatus]) -> JobStatus:
        give_up_at = time.monotonic() + LIMIT_S
        while (status := self._jobs.get_job_status(job)) not in wanted:
            assert time.monotonic() < give_up_at, f"{job} is {status}"
            time.sleep(POLL_S)
        return JobStatus(status)

    def _until_gone(self, job: str) -> None:
        """Its supervisor has ended, so that the cluster is idle again."""
        give_up_at = time.monotonic() + LIMIT_S
        while any(job in named["name"] for named in ray.util.list_named_actors(all_namespaces=True)):
            assert time.monotonic() < give_up_at, f"{job} stays"
            time.sleep(0.05)


def main() -> None:
    """Connect, and answer until nobody asks any more."""
    address, jobs_url = sys.argv[1:]
    ray.init(address, namespace="bench", log_to_driver=False, configure_logging=False)
    peer = RayPeer(jobs_url)
    for line in sys.stdin:
        asked: dict[str, Any] = json.loads(line)
        method: Callable[..., Any] = getattr(peer, asked.pop("do"))
        print(json.dumps(method(**asked)), flush=True)


if __name__ == "__main__":
    main()
