"""The documentation says what the code does: nothing is missing in it, and what it takes from the code is fresh."""

import re
import tomllib
from pathlib import Path

import pytest

from ci_bot.settings import READERS, TABLE
from launcher.state import TERMINAL, VERDICTS, WAITING_CAUSES, Budget, Cause, State
from tests.generate_docs import BLOCK, BLOCKS, DOCS, edges, renewed

ROOT = DOCS.parent
PAGES = sorted(DOCS.rglob("*.md"))
CREATED, PENDING, PROVISIONING, PROVISIONED = State.CREATED, State.PENDING, State.PROVISIONING, State.PROVISIONED
NETWORK_SETUP, RUNNING, NETWORK_TEARDOWN = State.NETWORK_SETUP, State.RUNNING, State.NETWORK_TEARDOWN
STOPPED, FAILED, CANCELLED, ERROR = State.STOPPED, State.FAILED, State.CANCELLED, State.ERROR

# The design's table, typed by hand: row by row, from, to, and the causes where the design names them.
DESIGN = (
    (CREATED, PENDING, ()),
    (CREATED, CANCELLED, ("wished",)),
    (PENDING, CANCELLED, ("wished",)),
    (CREATED, FAILED, ("unsatisfiable", "not supported", "refused archive")),
    (PENDING, FAILED, ("unsatisfiable", "not supported", "refused archive")),
    (CREATED, ERROR, ("queue deadline", "not fetchable", "commit gone")),
    (PENDING, ERROR, ("queue deadline", "not fetchable", "commit gone")),
    (PENDING, PROVISIONING, ()),
    (PROVISIONING, PENDING, ()),
    (PROVISIONING, PROVISIONED, ()),
    (PROVISIONED, NETWORK_SETUP, ()),
    (NETWORK_SETUP, RUNNING, ()),
    (PROVISIONING, NETWORK_TEARDOWN, ()),
    (PROVISIONED, NETWORK_TEARDOWN, ()),
    (NETWORK_SETUP, NETWORK_TEARDOWN, ()),
    (RUNNING, NETWORK_TEARDOWN, ()),
    (NETWORK_TEARDOWN, STOPPED, ()),
    (NETWORK_TEARDOWN, FAILED, ()),
    (NETWORK_TEARDOWN, CANCELLED, ()),
    (NETWORK_TEARDOWN, ERROR, ()),
    (NETWORK_TEARDOWN, PENDING, ()),
)


def test_the_state_machine_has_the_steps_of_the_design_and_no_others() -> None:
    assert edges() == {(before, after) for before, after, _ in DESIGN}


def test_what_holds_nothing_ends_for_the_causes_of_the_design_and_no_others() -> None:
    designed = {(before, Cause(cause)): after for before, after, causes in DESIGN for cause in causes}
    built = {(state, cause): VERDICTS[cause].end for state, causes in WAITING_CAUSES.items() for cause in causes}
    assert built == designed


def test_the_experiments_side_fails_and_ours_is_an_error() -> None:
    ours = {cause for cause, verdict in VERDICTS.items() if verdict.end is ERROR}
    assert {cause for cause, verdict in VERDICTS.items() if verdict.budget is Budget.INFRASTRUCTURE} <= ours
    assert {cause for cause, verdict in VERDICTS.items() if verdict.budget is Budget.USER}.isdisjoint(ours)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_what_a_page_takes_from_the_code_is_fresh(page: Path) -> None:
    text = page.read_text()
    assert renewed(text) == text, "run `python -m tests.generate_docs`"


def test_every_generated_block_is_in_a_page() -> None:
    found = [block["name"] for page in PAGES for block in BLOCK.finditer(page.read_text())]
    assert sorted(found) == sorted(BLOCKS)


def test_every_setting_is_documented_with_its_default_and_its_unit() -> None:
    text = (DOCS / "settings.md").read_text()
    for row in TABLE:
        default = f"`{row.default}`" if row.default else ""
        assert f"| `{row.name}` | {row.unit} | {default} | {row.meaning} |" in text
    assert set(READERS) <= {row.name for row in TABLE}


def test_every_state_and_every_cause_is_documented() -> None:
    text = (DOCS / "states.md").read_text()
    for state in State:
        assert f"\n| `{state}` | " in text
    for cause, verdict in VERDICTS.items():
        end = "–" if verdict.budget is Budget.FREE else f"`{verdict.end}`"
        assert f"\n| {cause.value} | {end} | " in text
        assert verdict.sentence in text
    assert {before for before, _ in edges()}.isdisjoint(TERMINAL)


def test_every_dependency_has_its_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    groups = [
        project["project"]["dependencies"],
        project["build-system"]["requires"],
        project["dependency-groups"]["dev"],
    ]
    groups += project["project"]["optional-dependencies"].values()
    wanted = {re.split(r"[\[<>=~!; ]", line)[0] for group in groups for line in group}
    text = (DOCS / "dependencies.md").read_text()
    assert set(re.findall(r"^\| `([a-z0-9-]+)", text, re.MULTILINE)) == wanted


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md"], ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        path, _, anchor = target.partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        place = (page.parent / path).resolve() if path else page
        assert place.exists(), target
        if anchor:
            assert anchor in headings(place), target


def headings(page: Path) -> set[str]:
    """The anchors of a page, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_the_procfile_starts_what_there_is() -> None:
    lines = dict(line.split(": ", 1) for line in (ROOT / "Procfile").read_text().splitlines())
    assert lines == {"web": "descent web", "worker": "descent worker"}
