"""What `descent run --plan` shows: what would start where, with which environment. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ci_bot.config import is_secret_name, mask_text
from ci_bot.config.mask import MASK
from ci_bot.report.durations import duration
from ci_bot.report.markdown import Ink
from launcher.controller import Rules
from launcher.experiment import NodeGroup, Specification
from launcher.machines import Machines
from launcher.placement import bundles, words


@dataclass(frozen=True)
class Planner:
    """What is known of this place."""

    machines: Machines
    rules: Rules

    def record(self, specification: Specification, told: Mapping[str, str]) -> dict[str, Any]:
        """An experiment's plan as JSON values.

        Args:
            specification: the experiment.
            told: the variables that its commands get besides the node's own.
        """
        return {
            "experiment": specification.name,
            "type": specification.topology.value,
            "timeout_s": specification.timeout_s or self.rules.time_limit_s,
            "retries": specification.retries,
            "env": {name: shown(name, value) for name, value in sorted(told.items())},
            "nodes": [
                {
                    "role": group.role.value,
                    "index": index,
                    "machine_type": group.machine_type,
                    "resources": dict(self._resources(specification, group)),
                    "container": group.container,
                    "command": mask_text(group.command),
                }
                for group in specification.groups
                for index in range(group.count)
            ],
        }

    def lines(self, specification: Specification, told: Mapping[str, str]) -> list[str]:
        """The same for a terminal."""
        ink = Ink()
        limit_s = specification.timeout_s or self.rules.time_limit_s
        said = [
            f"{ink.plain(specification.name)}: {specification.topology.value}, "
            f"ended after {duration(limit_s)}, {specification.retries} retries"
        ]
        for group in specification.groups:
            said += self._group(specification, group, ink)
        said.append("  environment, besides the node's own:")
        said += [f"    {ink.plain(name)}={ink.plain(shown(name, value))}" for name, value in sorted(told.items())]
        return said

    def _group(self, specification: Specification, group: NodeGroup, ink: Ink) -> list[str]:
        resources = self._resources(specification, group)
        where = f" on {ink.plain(group.machine_type)}" if group.machine_type else ""
        said = [f"  {group.role.value} × {group.count}{where}: {words(resources)}"]
        machine = self._machine(group.machine_type)
        if not machine.declared:
            said.append(f"    never starts: {ink.plain(self.machines.unknown(machine.name))}")
        elif machine.gpus and self.machines.table is None:
            said.append("    the GPU only where the cluster has any: there is no machines.yaml")
        if group.container or group.dockerfile:
            what = f"container {group.container}" if group.container else "Dockerfile"
            said.append(f"    the {ink.plain(what)} is not used: no container engine is enabled here")
        said += [f"    $ {ink.plain(line)}" for line in mask_text(group.command).strip().splitlines()]
        return said

    def _machine(self, machine_type: str | None) -> Any:
        # Which GPUs there are is known once a cluster runs; a plan takes the name at its word.
        return replace(self.machines, gpus=True).resolve(machine_type)

    def _resources(self, specification: Specification, group: NodeGroup) -> Mapping[str, float]:
        alone = specification.model_copy(update={"groups": (group.model_copy(update={"count": 1}),)})
        return bundles(alone, (self._machine(group.machine_type),))[0].resources


def shown(name: str, value: str) -> str:
    """A variable's value as it may be shown."""
    return MASK if is_secret_name(name) else mask_text(value)
