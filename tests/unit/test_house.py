"""The house's rules on imports, as sentences."""

import ast
from pathlib import Path

import pytest

from launcher.topology import SHAPES

ROOT = Path(__file__).parents[2]
FLOORS = (
    ("launcher.experiment", "launcher.state", "launcher.network", "launcher.topology"),
    ("ci_bot.records",),
    (
        "ci_bot.events",
        "ci_bot.config",
        "ci_bot.decide",
        "ci_bot.report",
        "ci_bot.settings",
        "ci_bot.logs",
        "ci_bot.nudge",
    ),
    ("ci_bot.github", "ci_bot.store"),
    ("launcher",),
    ("ci_bot.worker", "ci_bot.web", "ci_bot.local_github"),
    ("ci_bot.app", "ci_bot.exposed", "ci_bot.services", "ci_bot.up", "ci_bot.doctor"),
    ("ci_bot.demo", "ci_bot.run"),
    ("ci_bot.cli",),
)
PURE = (
    "launcher.experiment",
    "launcher.state",
    "launcher.network",
    "launcher.topology",
    "launcher.placement",
    "launcher.line",
    "ci_bot.records",
    "ci_bot.events",
    "ci_bot.config",
    "ci_bot.decide",
    "ci_bot.report",
)
IMPURE = {"os", "socket", "subprocess", "time", "asyncio", "threading", "shutil", "tempfile", "httpx2", "sqlalchemy"}


def modules() -> dict[str, Path]:
    found = {}
    for package in ("ci_bot", "launcher"):
        for path in (ROOT / package).rglob("*.py"):
            if "sample" not in path.parts:
                name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
                found[name.removesuffix(".__init__")] = path
    return found


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def within(name: str, rooms: tuple[str, ...]) -> bool:
    return any(name == room or name.startswith(room + ".") for room in rooms)


def floor(name: str) -> int | None:
    best: tuple[int, int] | None = None
    for number, rooms in enumerate(FLOORS):
        for room in rooms:
            if within(name, (room,)) and (best is None or len(room) > best[0]):
                best = (len(room), number)
    return best[1] if best else None


MODULES = modules()
ARROWS = [(name, target) for name, path in MODULES.items() for target in imports(path) if target in MODULES]


def test_every_room_has_its_floor() -> None:
    assert [name for name in MODULES if floor(name) is None and name not in {"ci_bot", "launcher"}] == []


def test_a_room_imports_only_its_own_floor_and_lower_ones() -> None:
    wrong = [f"{a} must not import {b}" for a, b in ARROWS if (floor(a) or 0) < (floor(b) or 0)]
    assert wrong == []


def test_the_launcher_knows_nothing_of_github() -> None:
    assert [f"{a} imports {b}" for a, b in ARROWS if within(a, ("launcher",)) and within(b, ("ci_bot",))] == []


def test_the_local_github_is_a_second_implementation_and_imports_nothing_of_ours() -> None:
    ours = ("ci_bot", "launcher")
    wrong = [
        (a, b)
        for a, b in ARROWS
        if within(a, ("ci_bot.local_github",)) and within(b, ours) and not within(b, ("ci_bot.local_github",))
    ]
    assert [each for each in wrong if each[1] != "ci_bot"] == []


@pytest.mark.parametrize(
    ("library", "room"),
    [
        ("ray", ("launcher.ray_backend",)),
        ("sqlalchemy", ("ci_bot.store", "ci_bot.worker", "ci_bot.web")),
        ("gidgethub", ("ci_bot.github",)),
        ("httpx2", ("ci_bot.github", "ci_bot.local_github")),
    ],
)
def test_each_large_library_stays_in_its_room(library: str, room: tuple[str, ...]) -> None:
    wrong = []
    for name, path in MODULES.items():
        if any(within(target, (library,)) for target in imports(path)) and not within(name, room):
            wrong.append(f"{name} imports {library}")
    assert wrong == []


@pytest.mark.parametrize("name", sorted(name for name in MODULES if within(name, PURE)))
def test_pure_rooms_have_no_clock_no_environment_and_no_io(name: str) -> None:
    assert sorted(target for target in imports(MODULES[name]) if target.split(".")[0] in IMPURE) == []


def test_a_topology_is_named_in_its_room_only() -> None:
    wrong = []
    for name, path in MODULES.items():
        texts = {node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)}
        if not within(name, ("launcher.topology", "ci_bot.cli")):  # the demo's types are the samples that there are
            wrong += [f"{name} names {text}" for text in texts & {*SHAPES}]
    assert wrong == []


def test_sql_is_written_in_the_store_only() -> None:
    wrong = [
        name
        for name, path in MODULES.items()
        if not within(name, ("ci_bot.store",))
        and imports(path) & {"sqlalchemy.select", "sqlalchemy.update", "sqlalchemy.insert", "sqlalchemy.text"}
    ]
    assert wrong == []


def test_there_is_no_import_cycle() -> None:
    graph: dict[str, set[str]] = {}
    for a, b in ARROWS:
        if a != b and not a.startswith(b + "."):
            graph.setdefault(a, set()).add(b)
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join((*path, name))
        if name not in done:
            for target in graph.get(name, ()):
                visit(target, (*path, name))
            done.add(name)

    for name in graph:
        visit(name, ())
