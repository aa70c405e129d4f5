"""Which file is the configuration."""

import pytest

from ci_bot.config import candidates, is_ours
from tests.unit.config.example import ONE_NODE, STEP


def test_the_order_is_ours_then_the_originals_then_the_bare_name() -> None:
    paths = ["README.md", "config.yaml", ".ps_project/config.yml", ".ps_project/config.yaml", ".descent/config.yaml"]
    assert candidates(paths) == tuple(reversed(paths[1:]))
    assert candidates(["src/config.yaml"]) == ()


@pytest.mark.parametrize(
    "text",
    [
        ONE_NODE,
        STEP,
        STEP + "      triggers: {branches: {only: x}}\n",
        ONE_NODE + "a: b: c\n",
        ONE_NODE + '  x: "a\n',
        ONE_NODE.replace("version: 1", "version: 0.1"),
        ONE_NODE + "command: x\ncommand: y\n",
    ],
)
def test_a_bare_file_is_ours_by_its_version_and_shape_even_when_it_is_broken(text: str) -> None:
    assert is_ours(text.encode())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a: 1\n",
        "version: 3\nservices: {}\n",
        "version: '3.8'\nworker: {}\n",
        "version: 1\nname: x\n",
        "worker: {}\n",
        "version: 2\njobs: {}\nworkflows_: {}\n",
        "- version: 1\n",
        "version: 1\nname: [x\n",
        "version: [1]\nworker: {}\n",
    ],
)
def test_a_bare_file_of_another_program_is_not_ours(text: str) -> None:
    assert not is_ours(text.encode())
    assert not is_ours(text.encode() + b"\xff")
