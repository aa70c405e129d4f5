"""Files of the original's users, each compared with what was written down by hand before the reader was built."""

import csv
from pathlib import Path

import pytest

from ci_bot.config import parse

ROOT = Path(__file__).parents[3]
FILES = ROOT.parent / "shared" / "configs"


def expected() -> dict[str, set[tuple[int, str]]]:
    found: dict[str, set[tuple[int, str]]] = {}
    with (ROOT / "tests" / "data" / "expected.tsv").open() as lines:
        for row in csv.DictReader(lines, delimiter="\t"):
            found.setdefault(row["file"], set()).add((int(row["line"]), row["kind"]))
    return found


@pytest.mark.skipif(not FILES.is_dir(), reason=f"the real configuration files are not at {FILES}")
@pytest.mark.parametrize("name", sorted(expected()))
def test_a_real_file_is_read_as_its_author_meant_it(name: str) -> None:
    repository = name.removesuffix(".yaml").partition("__")[2]
    read = parse((FILES / name).read_bytes(), path=name, repository_name=repository, read_params=None)
    found = {(each.line, f"{each.severity}:{each.kind}") for each in read.problems}
    found |= {(each.line, f"experiment:{each.specification.topology}:{each.name}") for each in read.experiments}
    assert found | ({(1, "ok")} if not read.problems else set()) == expected()[name]


@pytest.mark.skipif(not FILES.is_dir(), reason=f"the real configuration files are not at {FILES}")
def test_every_real_file_has_its_expectation() -> None:
    assert {path.name for path in FILES.glob("*.yaml")} == expected().keys()
