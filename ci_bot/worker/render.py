"""Experiments as check runs, with the end of the log and the names of the artifacts that are kept of them."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from ci_bot.config.mask import is_secret_name, mask
from ci_bot.records import CheckRun, Experiment, Transition
from ci_bot.report import check_run as report
from launcher.keep import Keep
from launcher.machines import Machines
from launcher.state import Cause

TAIL_BYTES = 128 << 10
LOSES_LOG = frozenset({Cause.NODE_LOST, Cause.HEAD_LOST, Cause.NOT_PROVEN_CLEAN})
"""Ends after which the end of the log may still be on the node."""


@dataclass(frozen=True)
class Renderer:
    """Experiments as check runs, with the bytes that are kept of them."""

    keep: Keep
    dashboard_url: str
    log_max_bytes: int
    machines: Callable[[], Machines]
    """What machine types mean, as far as the cluster was seen."""

    def __call__(self, experiment: Experiment, history: tuple[Transition, ...]) -> CheckRun:
        """The check run that should be on GitHub."""
        kept = self.keep.log(experiment.id, experiment.progress.attempt, self.log_max_bytes)
        size = kept.size
        ended = experiment.ended_at is not None
        files = self.keep.artifacts(experiment.id, experiment.progress.attempt).files() if ended else []
        view = report.View(
            experiment=experiment,
            transitions=history,
            log_tail=kept.read(max(0, size - TAIL_BYTES), TAIL_BYTES).data if ended else b"",
            log_size=size if ended else 0,
            log_final=ended and experiment.progress.cause not in LOSES_LOG,
            artifacts=tuple((file.path, file.size) for file in files),
            details_url=f"{self.dashboard_url}/experiments/{experiment.id}",
            now=time.time(),
            machine=machine_text(self.machines(), experiment),
            secrets=tuple(value for name, value in experiment.specification.env.items() if is_secret_name(name)),
            configuration="" if experiment.trusted else mask(experiment.configuration_source),
        )
        return report.experiment_check_run(view)


def machine_text(known: Machines, experiment: Experiment) -> str:
    """What the first node group runs on, for a person."""
    machine = known.resolve(experiment.specification.groups[0].machine_type)
    parts = [f"{machine.cpus:g} CPU", *([f"{machine.gpus} GPU"] if machine.gpus else [])]
    if machine.memory_bytes:
        parts.append(f"{machine.memory_bytes / (1 << 30):g} GiB of memory")
    return f"{machine.name} ({', '.join(parts)})"
