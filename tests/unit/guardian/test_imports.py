"""The guardian needs the standard library alone, and the PID 1 of a sandbox little of it."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import launcher.guardian

ROOM = Path(launcher.guardian.__file__).parent
SLOW = {"argparse", "asyncio", "subprocess", "dataclasses", "json", "signal", "socket", "typing", "enum", "re"}


@pytest.mark.parametrize("path", sorted(ROOM.glob("*.py")), ids=lambda path: path.name)
def test_only_the_standard_library_is_imported(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module or ""]
        assert {name.partition(".")[0] for name in names} <= sys.stdlib_module_names


def test_pid_1_imports_nothing_slow() -> None:
    code = f"import sys; sys.path.append({str(ROOM)!r}); import init; print(*sys.modules)"
    said = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    assert not SLOW & set(said.stdout.split())


def test_pid_1_needs_no_other_file_of_ours() -> None:
    tree = ast.parse((ROOM / "init.py").read_text())
    outside = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    assert all(node.module == "__future__" for node in outside)
