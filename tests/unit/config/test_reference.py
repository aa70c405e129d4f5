"""The reference for users names everything that the reader knows."""

import re
from pathlib import Path

import pytest

from ci_bot.config import SEARCH_ORDER, Kind, checks, filters, params, step, version1, version2
from ci_bot.config.section import Keys
from launcher.topology import SHAPES

TEXT = (Path(__file__).parents[3] / "docs" / "configuration.md").read_text()
WORDS = set(re.findall(r"[\w./<>-]+", " ".join(re.findall(r"`([^`\n]+)`", TEXT))))
KEYS: tuple[Keys, ...] = (
    version1.KEYS, version1.ENVIRONMENT, version1.GROUP, version1.USE_DOCKERFILE, params.KEYS, step.Step.KEYS,
    version2.TOP, version2.TRIGGERS, version2.CHECKS, version2.PROJECT, checks.CHECK, filters.TRIGGERS, filters.FILTERS,
)  # fmt: skip


@pytest.mark.parametrize("key", sorted({key for keys in KEYS for key in keys.known}))
def test_every_key_is_in_the_reference(key: str) -> None:
    assert key in WORDS or any(word.startswith(f"{key}.") or word.endswith(f".{key}") for word in WORDS)


@pytest.mark.parametrize(
    "key",
    [f"paths.{key}" for key in version1.PATHS.known]
    + [f"model.{key}" for key in version1.MODEL.known]
    + [f"dockerfile.{key}" for key in version1.DOCKERFILE.known],
)
def test_every_inner_key_is_in_the_reference(key: str) -> None:
    assert key in WORDS


@pytest.mark.parametrize("word", [*params.commands(), *SHAPES, *SEARCH_ORDER, *checks.AGGREGATES])
def test_every_word_that_a_key_takes_is_in_the_reference(word: str) -> None:
    assert word in WORDS


def test_every_kind_of_problem_is_explained_once() -> None:
    explained = TEXT.partition("## What each problem says")[2]
    assert sorted(re.findall(r"^\| `([a-z-]+)` \|", explained, re.MULTILINE)) == sorted(Kind)
