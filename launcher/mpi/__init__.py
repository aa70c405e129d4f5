"""What mpirun meets in a sandbox instead of ssh: where its programs lie, and what a command is told of them. Pure.

The programs beside this file are copied into an attempt's launch directory and run there as `python -I -S`, by the
small scripts below; so they, and this file, import the standard library alone, and little of it.
"""

from __future__ import annotations

import shlex

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

DIRECTORY = "/run/descent/launch"
"""Where a sandbox sees its launch directory; without isolation the directory's own path takes this one's place."""
AGENT, SERVE, SHIMS, SOCKET, PROGRAMS = "agent", "serve", "bin", "agent.sock", "mpi"
"""Below the launch directory: mpirun's launch agent, a worker's main process, the directory that comes first in PATH,
the node agent's socket, and the copies of these files."""
LAUNCH_AGENT = f"{DIRECTORY}/{AGENT}"
SHIM_DIR = f"{DIRECTORY}/{SHIMS}"
GENERATED = "/generated"
"""Where a sandbox has the hostfile; other places have it elsewhere."""
GENERATED_AT = "DESCENT_GENERATED"
"""The variable by which mpirun's shim is told where, if it is elsewhere."""
PREPARATION = "DESCENT_PREPARATION"
"""The variable by which a worker's main process is told the worker's own command."""
MPIRUN = ("mpirun", "mpiexec")


def scripts(directory: str, python: str) -> dict[str, str]:
    """The texts of what can be executed in a launch directory, by relative path.

    Args:
        directory: the launch directory as the command sees it.
        python: the interpreter, as the command sees it.
    """
    door = f"exec {shlex.quote(python)} -I -S {shlex.quote(f'{directory}/{PROGRAMS}/__main__.py')}"
    doors = {AGENT: AGENT, SERVE: SERVE} | {f"{SHIMS}/{name}": name for name in MPIRUN}
    return {path: f'#!/bin/sh\n{door} {name} "$@"\n' for path, name in doors.items()}


def variables(directory: str, env: Mapping[str, str], generated: str) -> dict[str, str]:
    """A command's environment with the variables that lead the known MPIs to the launch agent and the hostfile.

    Args:
        directory: the launch directory as the command sees it.
        env: the environment without; where it names a file below GENERATED, the file's own path takes its place.
        generated: where the command finds GENERATED.

    Source: plm_rsh_agent (Open MPI 4), plm_ssh_agent (PRRTE, so Open MPI 5), launcher-exec (MPICH's Hydra).
    """
    agent = f"{directory}/{AGENT}"
    env = {name: moved(value, generated) for name, value in env.items()}
    leading = {"OMPI_MCA_plm_rsh_agent": agent, "PRTE_MCA_plm_ssh_agent": agent, "HYDRA_LAUNCHER_EXEC": agent}
    told = {GENERATED_AT: generated} if generated != GENERATED else {}
    return {**env, **leading, **told, "PATH": f"{directory}/{SHIMS}:{env['PATH']}"}


def moved(value: str, generated: str) -> str:
    """A path below GENERATED as the command finds it; all else as it is."""
    return generated + value.removeprefix(GENERATED) if value.startswith(f"{GENERATED}/") else value


def serving(directory: str, command: str, env: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """The command of a node that serves, whose own command becomes the preparation; and its environment."""
    return f"exec {shlex.quote(f'{directory}/{SERVE}')}", {**env, PREPARATION: command}
