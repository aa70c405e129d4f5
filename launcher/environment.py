"""The Python environment of an attempt: an empty virtual environment with pip, and the variables of the command."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import uv

from launcher import trees
from launcher.locks import locked
from launcher.node_types import NodeError
from launcher.places import Places
from launcher.state import Cause

CARRIED = (
    *("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_TRUSTED_HOST", "PIP_FIND_LINKS", "PIP_CERT", "PIP_DEFAULT_TIMEOUT"),
    *("UV_INDEX_URL", "UV_DEFAULT_INDEX", "UV_EXTRA_INDEX_URL"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"),
)
"""What of the node's own environment a command sees: how packages are found from here, and nothing else."""

CONFIGURATION_FILES = (".config/pip/pip.conf", ".pip/pip.conf", ".config/uv/uv.toml")
"""Where pip and uv look below a home (pip: Configuration, uv: Configuration files)."""

SYSTEM_PATH = "/usr/local/cuda/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SHEBANG_BYTES = 127  # what every Linux since 2.0 reads of a first line

ASK_WHERE = """
import importlib.util, json, os, sys, sysconfig
spec = importlib.util.find_spec("ensurepip")
places = [os.path.join(each, "_bundled") for each in (spec.submodule_search_locations if spec else ())]
places += [sysconfig.get_config_var("WHEEL_PKG_DIR") or "", "/usr/share/python-wheels"]
print(json.dumps({"places": places, "setuptools": sys.version_info < (3, 12)}))
"""


def variables(
    places: Places, *, env: Mapping[str, str], gpu_ids: tuple[str, ...], node: Mapping[str, str]
) -> dict[str, str]:
    """The whole environment of a command: nothing is inherited. Pure.

    The experiment's own variables win over all others, save that of the GPUs it was given.

    Args:
        places: where the command finds its directories.
        env: the experiment's variables.
        gpu_ids: the ordinals of its GPUs; none hides all of them.
        node: the node's environment. Only CARRIED is taken from it, as it is: a user and password inside an index's
            URL do reach the repository's code, which needs them to install anything. Give a node a mirror that wants
            none, or credentials that may be known.
    """
    carried = {name: node[name] for name in CARRIED if name in node}
    own = {
        "PATH": f"{places.env}/bin:{SYSTEM_PATH}",
        "VIRTUAL_ENV": places.env,
        "HOME": places.home,
        "USER": "user",  # getpass.getuser() fails without, where the uid has no name
        "LOGNAME": "user",
        "TMPDIR": places.temporary,
        "LANG": "C.UTF-8",
        "PYTHONUNBUFFERED": "1",  # a live log shows a line when it is printed
        "PIP_CACHE_DIR": f"{places.cache}/pip",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_NO_INPUT": "1",
        "PIP_ROOT_USER_ACTION": "ignore",
        "UV_CACHE_DIR": f"{places.cache}/uv",
        "UV_LINK_MODE": "copy",
        "PS_JOBSPACE": places.storage,
        "PS_MODEL_PATH": places.artifacts,
        "ARTIFACTS_DIR": places.artifacts,
    }
    return carried | own | dict(env) | {"CUDA_VISIBLE_DEVICES": ",".join(gpu_ids)}


@dataclass(frozen=True)
class Wanted:
    """What an environment is made for.

    `seen` is the path by which it will be used, and its scripts name it; another than its own in a sandbox. `python` is
    the interpreter, which must not lie in a virtual environment; `seed_cache` this room's own directory on the node,
    and `node` the node's environment, for its package index. `packages` is where the command will find the packages of
    the pristine one, read-only; where it is empty they are copied.
    """

    seen: str
    python: str
    seed_cache: Path
    node: Mapping[str, str]
    packages: str = ""


def create(env_dir: Path, wanted: Wanted) -> None:
    """Make an empty virtual environment with pip: a copy of one that is made once for each Python, perhaps made ahead.

    pip comes from the wheels that the interpreter (or its distribution) bundles, so that no network is needed; where
    there are none, from the index, through a cache that no repository's code can write to. Its thousand files are
    copied only where the command could write to them if it saw them: a file system gets slow at making, and removing,
    so many again and again (ext4 steps over the inodes of what was just removed).

    Args:
        env_dir: must not exist; its parent must.
        wanted: what it is for.

    Raises:
        NodeError: it could not be made; says what uv said.
    """
    pristine = warm(wanted.python, wanted.seed_cache, wanted.node)
    if wanted.packages:
        try:
            os.rename(_ahead(pristine, wanted), env_dir)
        except FileNotFoundError:
            _copy_without_packages(pristine, env_dir, wanted)
    else:
        trees.copy(pristine, env_dir)
        _move_scripts(env_dir / "bin", _birthplace(pristine), Path(wanted.seen))


def make_ahead(wanted: Wanted) -> None:
    """Have one ready for the next who wants the same, without packages of its own.

    Raises:
        NodeError: it could not be made; says what uv said.
    """
    pristine = warm(wanted.python, wanted.seed_cache, wanted.node)
    ahead = _ahead(pristine, wanted)
    part = ahead.with_suffix(".part")
    with locked(wanted.seed_cache, "ahead", ahead.name):
        if not ahead.exists():
            trees.remove(part)
            _copy_without_packages(pristine, part, wanted)
            part.rename(ahead)


def pristine_packages(python: str, seed_cache: Path) -> Path:
    """The packages of the pristine environment for a Python, which was made."""
    return _packages_of(seed_cache / _fingerprint(python))


def warm(python: str, seed_cache: Path, node: Mapping[str, str]) -> Path:
    """The environment that all others for this Python are copied from, made now if it is not there."""
    pristine = seed_cache / _fingerprint(python)
    with locked(seed_cache, "pristine", pristine.name):
        if not pristine.exists():
            _make_pristine(pristine, python, seed_cache, node)
    return pristine


def base_python() -> str:
    """The interpreter that runs us, outside of any virtual environment."""
    return os.path.realpath(str(getattr(sys, "_base_executable", sys.executable)))  # as venv does


def carry_configuration(node_home: Path, home: Path) -> None:
    """Copy the node user's own settings of pip and uv into a command's home; see `variables` on credentials."""
    for name in CONFIGURATION_FILES:
        try:
            content = (node_home / name).read_bytes()
        except OSError:
            continue  # it has none, or none that may be read
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_bytes(content)


def _fingerprint(python: str) -> str:
    """Names the interpreter; another one at the same path, after an upgrade, has another name."""
    found = os.stat(python)
    text = f"{os.path.realpath(python)} {found.st_size} {found.st_mtime_ns} {_uv_program()}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@cache  # it asks Python for all that there is to know of its installation
def _uv_program() -> str:
    return uv.find_uv_bin()


def _packages_of(pristine: Path) -> Path:
    return pristine / "lib" / "python{}.{}".format(*sys.version_info) / "site-packages"  # the interpreter runs us too


def _ahead(pristine: Path, wanted: Wanted) -> Path:
    what = f"{wanted.seen}:{wanted.packages}:{_own_text()}"  # another Descent may make it in another way
    return pristine.with_name(f"{pristine.name}-{hashlib.sha256(what.encode()).hexdigest()[:8]}")


@cache
def _own_text() -> str:
    return Path(__file__).read_text()


def _copy_without_packages(pristine: Path, env_dir: Path, wanted: Wanted) -> None:
    """A copy in which what is installed, pip itself too, takes the place of ours."""
    ours = _packages_of(pristine)
    _copy_files(pristine, env_dir, besides=ours)
    path_file = env_dir / ours.relative_to(pristine) / "descent.pth"
    path_file.write_text(f"import site; site.addsitedir({wanted.packages!r})\n")
    _move_scripts(env_dir / "bin", _birthplace(pristine), Path(wanted.seen))


def _copy_files(source: Path, destination: Path, *, besides: Path) -> None:
    """Copy the score of files that uv made, without what is below one directory: a process would take longer."""
    destination.mkdir()
    for entry in source.iterdir() if source != besides else ():
        copy = destination / entry.name
        if entry.is_symlink():
            copy.symlink_to(entry.readlink())
        elif entry.is_dir():
            _copy_files(entry, copy, besides=besides)
        else:
            shutil.copy2(entry, copy)


def _birthplace(pristine: Path) -> Path:
    return pristine.with_name(pristine.name + ".part")


def _make_pristine(pristine: Path, python: str, seed_cache: Path, node: Mapping[str, str]) -> None:
    part = _birthplace(pristine)
    trees.remove(part)
    options = ["--quiet", "--no-config", "--cache-dir", str(seed_cache / "uv")]
    _uv(["venv", *options, "--python", python, str(part)], node)
    wheels = _bundled_wheels(part / "bin/python")
    install = ["pip", "install", *options, "--python", str(part / "bin/python"), "--link-mode", "copy"]
    offline = [*install, "--offline", "--no-index", "--no-deps"]
    # With its bytecode, the first `pip` of an attempt starts in half the time; setuptools is seldom imported at all.
    _uv([*(offline if wheels else install), "--compile-bytecode", wheels[0] if wheels else "pip"], node)
    for wheel in wheels[1:]:
        _uv([*offline, wheel], node)
    part.rename(pristine)


def _bundled_wheels(python: Path) -> list[str]:
    """pip, and setuptools for the Pythons whose venv had it (before 3.12); empty when pip is not bundled."""
    answer = subprocess.run([python, "-I", "-c", ASK_WHERE], capture_output=True, text=True, check=False)
    if answer.returncode:
        raise NodeError(Cause.PREPARATION_FAILED, f"{python} does not run: {answer.stderr.strip()[-300:]}")
    found = json.loads(answer.stdout)
    wanted = ["pip", "setuptools"] if found["setuptools"] else ["pip"]
    for place in filter(None, found["places"]):
        wheels = {name: sorted(map(str, Path(place).glob(f"{name}-*.whl"))) for name in wanted}
        if wheels["pip"]:
            return [each[-1] for each in wheels.values() if each]
    return []


def _uv(arguments: list[str], node: Mapping[str, str]) -> None:
    carried = {name: node[name] for name in CARRIED if name in node}
    environment = carried | {"PATH": SYSTEM_PATH, "LC_ALL": "C.UTF-8", "UV_PYTHON_DOWNLOADS": "never"}
    done = subprocess.run([_uv_program(), *arguments], capture_output=True, env=environment, check=False)
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()
        cause = Cause.DISK_FULL if "No space left on device" in said else Cause.PREPARATION_FAILED
        raise NodeError(cause, f"uv {arguments[0]} failed: {said[-500:]}")


def _move_scripts(scripts: Path, old: Path, new: Path) -> None:
    """Make scripts that name the environment of their birth name the new one."""
    for script in scripts.iterdir():
        if script.is_symlink():
            continue  # the interpreter
        content = script.read_bytes()
        moved = content.replace(os.fsencode(old), os.fsencode(new))
        if content.startswith(b"#!"):
            moved = _shebang(new / "bin/python") + _body(content)
        if moved != content:
            script.write_bytes(moved)


def _shebang(python: Path) -> bytes:
    """A first line that starts Python; through sh where the kernel could not read it (as distlib does)."""
    path = os.fsencode(python)
    if len(path) + 3 <= SHEBANG_BYTES and b" " not in path:
        return b"#!" + path + b"\n"
    return b"#!/bin/sh\n'''exec' \"" + path + b'" "$0" "$@"\n\' \'\'\'\n'


def _body(script: bytes) -> bytes:
    """A script without its first line, or without the three that start Python through sh."""
    return re.sub(rb"\A#!(/bin/sh\n'''exec'[^\n]*\n' '''\n|[^\n]*\n)", b"", script)
