"""The grounds that guardians are tested on, and attempts that leave nothing behind."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.guardian.ground import Attempt, Ground, copy_launcher, grounds, why_not


@pytest.fixture(scope="session")
def code() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="descent-code-") as place:
        Path(place).chmod(0o755)
        copy_launcher(Path(place) / "copy")
        yield Path(place) / "copy"


def _ground(isolation: str, unprivileged: bool, code: Path) -> Iterator[Ground]:
    if reason := why_not(isolation, unprivileged):
        pytest.skip(reason)
    # Not tmp_path: that one is closed to other users.
    with tempfile.TemporaryDirectory(prefix="descent-guardian-") as place:
        Path(place).chmod(0o755)
        yield Ground(isolation, unprivileged, Path(place), code)


@pytest.fixture(scope="session", params=list(grounds()), ids=lambda p: f"{p[0]}-{'user' if p[1] else 'root'}")
def ground(request: pytest.FixtureRequest, code: Path) -> Iterator[Ground]:
    """Every way to run a command."""
    yield from _ground(*request.param, code)


@pytest.fixture(scope="session", params=[False, True], ids=["root", "user"])
def enclosed_ground(request: pytest.FixtureRequest, code: Path) -> Iterator[Ground]:
    """The sandbox only."""
    yield from _ground("bubblewrap", request.param, code)


@pytest.fixture
def kept() -> Iterator[Callable[[Attempt], Attempt]]:
    """Clears the attempts given to it at the end."""
    attempts: list[Attempt] = []

    def keep(attempt: Attempt) -> Attempt:
        attempts.append(attempt)
        return attempt

    yield keep
    for attempt in attempts:
        attempt.clear()


@pytest.fixture
def attempt(ground: Ground, kept: Callable[[Attempt], Attempt]) -> Attempt:
    return kept(ground.attempt())


@pytest.fixture
def enclosed(enclosed_ground: Ground, kept: Callable[[Attempt], Attempt]) -> Attempt:
    return kept(enclosed_ground.attempt())
