"""The sample repositories of `descent demo`."""

import ast
import os
import subprocess
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ci_bot.cli import app
from ci_bot.config import parse
from ci_bot.demo import MOST_NODES, Demo, assignments, head_options, staying
from launcher.topology import SHAPES, members_of

SAMPLES = files("ci_bot") / "sample"
TOPOLOGIES = sorted(each.name for each in SAMPLES.iterdir() if (each / ".descent").is_dir())
PACKAGES = {"grpc": "grpcio", "jax": "jax", "mpi4py": "mpi4py", "numpy": "numpy", "sklearn": "scikit-learn"}


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_every_sample_is_of_its_topology_without_problems_and_fits_the_demos_head(topology: str) -> None:
    source = (SAMPLES / topology / ".descent" / "config.yaml").read_bytes()
    parsed = parse(source, path=".descent/config.yaml", repository_name="digits", read_params=None)
    assert parsed.problems == ()
    (experiment,) = parsed.experiments
    nodes = len(members_of(experiment.specification))
    assert experiment.specification.topology == topology
    assert nodes > 1 or SHAPES[topology].one_node
    assert nodes <= (head_options(topology).num_cpus or 1) <= MOST_NODES


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_a_sample_installs_what_its_program_imports(topology: str) -> None:
    sample = SAMPLES / topology
    imported = {name for name in _imports((sample / "train.py").read_text()) if name in PACKAGES}
    required = set((sample / "requirements.txt").read_text().split())
    assert {PACKAGES[name] for name in imported} <= required | {"numpy"}  # which scikit-learn brings


def _imports(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0]


def test_every_file_of_the_samples_is_in_the_package() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["package-data"]["ci_bot"]
    for path in _paths(SAMPLES, "sample"):
        assert any(_matches(path, pattern) for pattern in patterns), path


def _paths(directory: Traversable, name: str) -> Iterator[str]:
    for each in directory.iterdir():
        path = f"{name}/{each.name}"
        if each.is_dir():
            yield from () if each.name == "__pycache__" else _paths(each, path)
        else:
            yield path


def _matches(path: str, pattern: str) -> bool:
    """As a glob does: a star crosses no slash, and takes no name that begins with a dot."""
    names, parts = path.split("/"), pattern.split("/")
    pairs = zip(names, parts, strict=False)
    return len(names) == len(parts) and all(fnmatch(n, p) and (p[0] == "." or n[0] != ".") for n, p in pairs)


def test_a_shell_takes_over_the_demos_environment_as_it_is() -> None:
    own = {"PATH": os.environ["PATH"], "DATABASE_URL": "postgresql://elsewhere", "DATA_DIR": "/mine"}
    demos = {"PATH": own["PATH"], "DATA_DIR": "/tmp/a 'demo'", "GITHUB_APP_ID": "7"}
    script = assignments(demos, own) + 'echo "$DATA_DIR|$GITHUB_APP_ID|${DATABASE_URL-none}"'
    done = subprocess.run(["/bin/sh", "-c", script], env=own, capture_output=True, text=True, check=True)
    assert done.stdout == "/tmp/a 'demo'|7|none\n"
    assert "PATH" not in assignments(demos, own)


def test_a_demo_that_stays_says_where_to_push_from_and_how_to_look_at_it() -> None:
    said = staying(Path("/demo/digits"), Path("/demo/environment"), Path("/descent/.venv/bin/descent"))
    assert "/demo/digits" in said
    for command in ("doctor", "cancel NUMBER"):
        assert f"(. /demo/environment; /descent/.venv/bin/descent {command})" in said


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_a_sample_says_what_it_does_before_a_long_silence(topology: str) -> None:
    source = (SAMPLES / topology / ".descent" / "config.yaml").read_bytes()
    (experiment,) = parse(source, path="config.yaml", repository_name="digits", read_params=None).experiments
    assert all(group.command.startswith('echo "Installing ') for group in experiment.specification.groups)


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_the_type_of_a_demo_is_chosen_by_its_name_in_a_configuration_file(
    topology: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[Any] = []
    monkeypatch.setattr(Demo, "run", lambda demo: shown.append(demo.topology) or 0)
    assert CliRunner().invoke(app, ["demo", "--type", topology]).exit_code == 0
    assert shown == [topology]


def test_a_demo_of_an_unknown_type_is_wrong_usage_and_names_those_there_are() -> None:
    refused = CliRunner().invoke(app, ["demo", "--type", "multi-node"])
    assert refused.exit_code == 2
    assert all(topology in refused.output for topology in TOPOLOGIES)
