"""Experiments as check runs, with the end of the log and the names of the artifacts that are kept of them."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from ci_bot.config.mask import is_secret_name, mask
from ci_bot.records import CheckRun, Experiment, Transition
from ci_bot.report import check_run as report
from ci_bot.report.nodes import node_of, told_by
from launcher.experiment import NodeState
from launcher.guardian.segments import Segments
from launcher.keep import Keep
from launcher.machines import Machine, Machines
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
        rank, kept = self._log(experiment)
        size = kept.size
        ended = experiment.ended_at is not None
        files = self.keep.artifacts(experiment.id, experiment.progress.attempt).files() if ended else []
        view = report.View(
            experiment=experiment,
            transitions=history,
            log_tail=kept.read(max(0, size - TAIL_BYTES), TAIL_BYTES).data if ended else b"",
            log_rank=rank,
            log_size=size if ended else 0,
            log_final=ended and not loses_log(experiment, rank),
            artifacts=tuple((file.path, file.size) for file in files),
            details_url=f"{self.dashboard_url}/experiments/{experiment.id}",
            now=time.time(),
            machine=machine_text(self.machines(), experiment),
            secrets=tuple(value for name, value in experiment.specification.env.items() if is_secret_name(name)),
            configuration="" if experiment.trusted else mask(experiment.configuration_source),
        )
        return report.experiment_check_run(view)

    def _log(self, experiment: Experiment) -> tuple[int, Segments]:
        """Whose log is shown: the node's whose end was the first cause, else the first's; one that printed nothing
        tells nothing."""
        attempt, first = experiment.progress.attempt, told_by(experiment)
        logs = {rank: self.keep.log(experiment.id, attempt, rank, self.log_max_bytes) for rank in (first, 0)}
        rank = first if logs[first].size else 0
        return rank, logs[rank]


def loses_log(experiment: Experiment, rank: int) -> bool:
    """Whether the end of a node's log may still be there: of a gang that lost a node, only that one's."""
    cause, node = experiment.progress.cause, node_of(experiment, rank)
    if cause is Cause.NODE_LOST and node is not None:
        return node.state is NodeState.LOST
    return cause in LOSES_LOG


def machine_text(known: Machines, experiment: Experiment) -> str:
    """What the nodes run on, for a person: of several groups each."""
    groups = experiment.specification.groups
    texts = [_machine(known.resolve(group.machine_type)) for group in groups]
    if len(groups) == 1:
        return texts[0]
    return "; ".join(f"{group.role}: {text}" for group, text in zip(groups, texts, strict=True))


def _machine(machine: Machine) -> str:
    parts = [f"{machine.cpus:g} CPU", *([f"{machine.gpus} GPU"] if machine.gpus else [])]
    if machine.memory_bytes:
        parts.append(f"{machine.memory_bytes / (1 << 30):g} GiB of memory")
    return f"{machine.name} ({', '.join(parts)})"
