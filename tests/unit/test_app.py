"""What the composition root makes of the records that others leave."""

import json
from pathlib import Path
from typing import Any

import pytest

from ci_bot.app import cluster
from ci_bot.settings import Settings

HEAD: dict[str, Any] = {"directory": "/h", "token_path": "/t"}


def recorded(tmp_path: Path, text: str) -> Any:
    (tmp_path / "up.json").write_text(text)
    return cluster(Settings(data_dir=tmp_path, ray_address=""), {})


@pytest.mark.parametrize(
    "text",
    ["", "{", "null", "[]", "7", "{}", '{"ray": null}', '{"ray": []}', '{"ray": "x"}']
    + [json.dumps({"ray": ray}) for ray in ({}, HEAD, HEAD | {"of_another_version": 1}, HEAD | {"directory": None})],
)
def test_a_record_that_is_no_head_s_is_no_head_yet(tmp_path: Path, text: str) -> None:
    assert recorded(tmp_path, text) is None
