"""An attempt's directories on its host, and the order to its guardian: who owns what, and what the command sees."""

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from launcher import environment, gpus, places, trees
from launcher.guardian_client import Limits, Order
from launcher.host_files import SYSTEM
from launcher.node_types import Document, NodeError, PrepareOrder, StartOrder
from launcher.sandbox import Mount, SandboxOrder
from launcher.state import Cause

PREPARED = "prepared.json"
FIRST_UID = 1_000_000
UIDS = 1_000_000_000
PACKAGE_FILES = ("/etc/pip.conf", "/etc/xdg/pip/pip.conf", "/etc/uv/uv.toml")
"""The host's settings of pip and uv, which a command needs to find packages as the host does."""
CERTIFICATES = ("PIP_CERT", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
NOT_MOUNTED = (*SYSTEM, "/etc/ssl", "/etc/pki", "/proc", "/dev", "/run", "/var/run", "/var/tmp")  # noqa: S108
"""Where a sandbox has the host's files anyway, or something of its own."""
PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class Site:
    """What the attempts of one host share."""

    root: Path
    storage_dir: Path | None
    environ: Mapping[str, str]

    @property
    def seed(self) -> Path:
        """What environments are made from."""
        return self.root / "seed"

    def directories(self, attempt: Path, order: PrepareOrder) -> places.Directories:
        """The real directories of an attempt; a fork's share nothing with any other."""
        storage, cache = attempt / "storage", attempt / "cache"
        if order.trusted:
            storage = (self.storage_dir or self.root / "storage") / order.storage_key
            cache = self.root / "caches" / order.storage_key
        return places.Directories.of(attempt, storage=storage, cache=cache)


def owner_uid(storage_key: str) -> int:
    """The uid of a repository's commands, where root can give them one; never that of an account. Pure.

    A number is a repository's id and keeps its order; anything else gets a number from the range above.
    """
    if storage_key.isascii() and storage_key.isdigit():
        return FIRST_UID + int(storage_key) % UIDS
    return FIRST_UID + UIDS + int.from_bytes(hashlib.sha256(storage_key.encode()).digest()[:8]) % UIDS


def prepared(attempt: Path) -> PrepareOrder | None:
    """What an attempt was prepared for; None when it is not, or not whole."""
    try:
        return PrepareOrder(**json.loads((attempt / PREPARED).read_text()))
    except FileNotFoundError:
        return None


def prepare(attempt: Path, order: PrepareOrder, *, put_code: Callable[[Path], None], site: Site) -> None:
    """Make everything that the command will find; `prepared` tells of it once it is whole.

    Args:
        attempt: its directory, which must not exist.
        order: what it is for.
        put_code: makes the tree of the commit at a path.
        site: what it shares.

    Raises:
        NodeError: it can't be done here.
    """
    directories = site.directories(attempt, order)
    seen = places.plan(order, directories)
    attempt.mkdir(mode=0o700)
    uid = real_uid(attempt.name, order)
    for shared in (directories.storage, directories.cache):
        _share(shared, uid)
    for directory in (directories.artifacts, directories.home, directories.temporary, directories.generated):
        directory.mkdir(mode=0o755)
    put_code(directories.workspace)
    environment.create(directories.env, _environment_of(seen, site))
    _furnish_home(directories, order, site)
    _link_artifacts(directories, seen)
    (directories.workspace / seen.work_below).mkdir(parents=True, exist_ok=True)
    if uid is not None:
        trees.give(uid, *directories.own)
    part = attempt / (PREPARED + ".part")
    part.write_text(json.dumps(asdict(order)))
    part.replace(attempt / PREPARED)


def make_ahead(site: Site) -> None:
    """Have ready what every enclosed attempt needs.

    Raises:
        NodeError: it could not be made.
    """
    enclosed = PrepareOrder(code_key="", storage_key="", trusted=False, isolation="bubblewrap")
    seen = places.plan(enclosed, site.directories(site.root / "attempts", enclosed))
    environment.make_ahead(_environment_of(seen, site))


def _environment_of(seen: places.Places, site: Site) -> environment.Wanted:
    packages = places.PACKAGES if seen.mounts else ""
    return environment.Wanted(seen.env, environment.base_python(), site.seed, site.environ, packages)


def write_generated(attempt: Path, files: Mapping[str, str]) -> None:
    """Write the texts that a command finds below /generated and can't change; again after a start that failed.

    Raises:
        NodeError: a name is no plain name.
    """
    for name, text in files.items():
        if not PLAIN.fullmatch(name):
            raise NodeError(Cause.PREPARATION_FAILED, f"{name!r} is no plain name of a generated file")
        path = attempt / "generated" / name
        path.unlink(missing_ok=True)
        path.write_text(text)
        path.chmod(0o444)


def guardian_order(attempt: Path, prepare_order: PrepareOrder, order: StartOrder, site: Site) -> Order:
    """What the guardian is to run: the command, all that it sees, and its limits."""
    directories = site.directories(attempt, prepare_order)
    seen = places.plan(prepare_order, directories)
    present, document = gpus.survey(), order.document or Document()
    return Order(
        key=attempt.name,
        command=order.command,
        env=environment.variables(
            seen,
            env={**document.env, **order.env},
            gpu_ids=gpus.visible(order.gpu_ids, present),
            node=site.environ,
        ),
        cwd=seen.cwd,
        sandbox=_sandbox(attempt.name, prepare_order, order, seen, site) if seen.mounts else None,
        limits=Limits(
            memory_bytes=order.memory_bytes,
            disk_bytes=order.disk_bytes,
            pids=order.pids,
            log_max_bytes=order.log_max_bytes,
        ),
        watched=tuple(map(str, directories.own)),
        lease_s=order.lease_s,
        grace_s=order.grace_s,
    )


def _sandbox(key: str, prepare_order: PrepareOrder, order: StartOrder, seen: places.Places, site: Site) -> SandboxOrder:
    uid = _uid(key, prepare_order)
    packages = environment.pristine_packages(environment.base_python(), site.seed)
    document = order.document or Document()
    ours = (
        *(Mount(str(mounted.real), mounted.seen, mounted.writable) for mounted in seen.mounts),
        Mount(str(packages), places.PACKAGES),
    )
    try:
        return SandboxOrder(
            mounts=(*ours, *(Mount(path, path) for path in _package_paths(site.environ))),
            uid=uid,
            gid=uid,
            hostname=(document.hostname or key)[:63],
            hosts=document.hosts,
            home=seen.home,
            devices=gpus.devices(order.gpu_ids, gpus.survey()),
            memory_bytes=order.memory_bytes,
        )
    except ValueError as error:  # a name or an address that is none
        raise NodeError(Cause.PREPARATION_FAILED, str(error)) from error


def _package_paths(environ: Mapping[str, str]) -> Iterator[str]:
    """Files outside the sandbox's system directories by which the host finds packages and trusts their servers."""
    for path in PACKAGE_FILES:
        if os.path.isfile(path):
            yield path
    for path in dict.fromkeys(environ.get(name, "") for name in CERTIFICATES):
        if path.startswith("/") and os.path.exists(path) and not _is_mounted(path):
            yield path


def _is_mounted(path: str) -> bool:
    return any(Path(path).is_relative_to(place) for place in NOT_MOUNTED)


def _uid(key: str, order: PrepareOrder) -> int:
    return owner_uid(order.storage_key if order.trusted else key)


def real_uid(key: str, order: PrepareOrder) -> int | None:
    """Who will own the files, None for ourselves: only root can give them away, and only a sandbox becomes another."""
    return _uid(key, order) if os.geteuid() == 0 and order.isolation == "bubblewrap" else None


def _share(directory: Path, uid: int | None) -> None:
    """Make a directory that outlives attempts; its content belongs to whoever made it and is never walked."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if uid is not None:
        os.chown(directory, uid, uid)
    os.utime(directory)  # its last use, for the choice of what is given up first


def _furnish_home(directories: places.Directories, order: PrepareOrder, site: Site) -> None:
    if "HOME" in site.environ:
        environment.carry_configuration(Path(site.environ["HOME"]), directories.home)
    if order.isolation == "none":
        (directories.home / ".cache").symlink_to(directories.cache)
    else:
        (directories.home / ".cache").mkdir()  # the cache is mounted there


def _link_artifacts(directories: places.Directories, seen: places.Places) -> None:
    """Let a path of the workspace lead to the artifacts; what the repository has there becomes their beginning."""
    if not seen.artifacts_link:
        return
    path = directories.workspace
    *above, last = Path(seen.artifacts_link).parts
    for name in above:
        path /= name
        if path.is_symlink() or (path.exists() and not path.is_dir()):
            raise _in_the_way(seen, path.relative_to(directories.workspace))
        path.mkdir(exist_ok=True)
    path /= last
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        raise _in_the_way(seen, path.relative_to(directories.workspace))
    if path.exists():
        path.rename(directories.artifacts)  # an empty directory gives way
    path.symlink_to(seen.artifacts)


def _in_the_way(seen: places.Places, what: Path) -> NodeError:
    why = f"paths.artifacts is {seen.artifacts_link}, but {what} in the repository is no directory."
    return NodeError(Cause.NOT_SUPPORTED, why)
