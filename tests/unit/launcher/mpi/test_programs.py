"""The programs that mpirun meets: alone with the standard library, quick to start, told by variables."""

import ast
import sys
from pathlib import Path

import pytest

from launcher import mpi

ROOM = Path(mpi.__file__).parent
SLOW = {"argparse", "asyncio", "dataclasses", "typing", "tempfile", "pathlib", "logging", "uuid", "inspect", "shutil"}


@pytest.mark.parametrize("path", sorted(ROOM.glob("*.py")), ids=lambda path: path.name)
def test_only_the_standard_library_is_imported_and_nothing_slow(path: Path) -> None:
    tree = ast.parse(path.read_text())
    kept = [node for node in tree.body if not isinstance(node, ast.If) or ast.unparse(node.test) != "TYPE_CHECKING"]
    for node in (found for top in kept for found in ast.walk(top)):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module or ""]
        roots = {name.partition(".")[0] for name in names}
        assert roots <= sys.stdlib_module_names
        assert not roots & SLOW


def test_variables_lead_to_the_agent_and_put_the_shim_first() -> None:
    env = {"PATH": "/venv/bin:/usr/bin", "HYDRA_HOST_FILE": "/generated/hostfile", "A": "/generated"}
    told = mpi.variables(mpi.DIRECTORY, env, mpi.GENERATED)
    assert told["PATH"] == f"{mpi.SHIM_DIR}:/venv/bin:/usr/bin"
    agents = {told[name] for name in ("OMPI_MCA_plm_rsh_agent", "PRTE_MCA_plm_ssh_agent", "HYDRA_LAUNCHER_EXEC")}
    assert agents == {mpi.LAUNCH_AGENT}
    assert told["HYDRA_HOST_FILE"] == "/generated/hostfile"
    assert mpi.GENERATED_AT not in told


def test_without_isolation_the_real_paths_take_their_places() -> None:
    env = {"PATH": "/bin", "HYDRA_HOST_FILE": "/generated/hostfile", "A": "/generated", "B": "/generated.txt"}
    told = mpi.variables("/node/a/launch", env, "/node/a/generated")
    assert told["HYDRA_LAUNCHER_EXEC"] == "/node/a/launch/agent"
    assert told["HYDRA_HOST_FILE"] == "/node/a/generated/hostfile"
    assert (told["A"], told["B"]) == ("/generated", "/generated.txt")
    assert told[mpi.GENERATED_AT] == "/node/a/generated"


def test_a_worker_serves_and_its_own_command_is_its_preparation() -> None:
    command, env = mpi.serving("/a b", "pip install x; sleep infinity", {"PATH": "/bin"})
    assert command == "exec '/a b/serve'"
    assert env == {"PATH": "/bin", mpi.PREPARATION: "pip install x; sleep infinity"}


def test_scripts_quote_what_they_call() -> None:
    texts = mpi.scripts("/a b", "/py thon")
    assert set(texts) == {"agent", "serve", "bin/mpirun", "bin/mpiexec"}
    assert texts["bin/mpiexec"] == "#!/bin/sh\nexec '/py thon' -I -S '/a b/mpi/__main__.py' mpiexec \"$@\"\n"
