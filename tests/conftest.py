"""What all tests share: the seed of those that throw dice, shown, so that a run can be had again (SEED=… make test)."""

import os
import random
from collections.abc import Iterator

import pytest
import structlog
from hypothesis import settings

settings.register_profile("patient", deadline=None)  # how long an example takes says how busy the machine is
settings.load_profile("patient")


def pytest_configure() -> None:
    """One seed for all processes of a run: they inherit the environment."""
    os.environ.setdefault("SEED", str(random.randrange(1_000_000)))


def pytest_report_header() -> str:
    """The seed, above everything else."""
    return f"SEED={os.environ['SEED']}"


@pytest.fixture(autouse=True)
def own_logging() -> Iterator[None]:
    """Who configures logging does so for one test: the next one's standard error is another."""
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def seed() -> int:
    """The seed of this run."""
    return int(os.environ["SEED"])
