"""Where a command finds its directories, enclosed or not. Pure."""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from launcher.node_types import NodeError, PrepareOrder
from launcher.state import Cause

ENV = PurePosixPath("/venv")
SYSTEM = frozenset(
    {"bin", "boot", "data", "dev", "etc", "generated", "lib", "lib32", "lib64", "libx32", "opt"}
    | {"proc", "run", "sbin", "storage", "sys", "usr", "var", ENV.name}
)
"""Top directories of a sandbox that are the system's or ours; nothing can be placed below them."""
HOME = PurePosixPath("/home/user")
WORKSPACE = PurePosixPath("/workspace")
PACKAGES = "/run/descent/packages"
"""pip, and what else an empty environment has, for all that are enclosed; only to be read."""
ARTIFACTS = PurePosixPath("/artifacts")
STORAGE = PurePosixPath("/storage")
TEMPORARY = PurePosixPath("/tmp")  # noqa: S108 - private to the sandbox, and on disk rather than in memory
TAKEN = frozenset({WORKSPACE, ARTIFACTS, STORAGE, TEMPORARY, HOME, *HOME.parents, PurePosixPath("/root")})


@dataclass(frozen=True)
class Directories:
    """The real directories of one attempt on its host."""

    workspace: Path
    artifacts: Path
    storage: Path
    cache: Path
    env: Path
    home: Path
    temporary: Path
    generated: Path

    @classmethod
    def of(cls, attempt: Path, *, storage: Path, cache: Path) -> "Directories":
        """The directories of an attempt that has a directory, given those that it may share."""
        return cls(
            workspace=attempt / "workspace",
            artifacts=attempt / "artifacts",
            storage=storage,
            cache=cache,
            env=attempt / "env",
            home=attempt / "home",
            temporary=attempt / "tmp",
            generated=attempt / "generated",
        )

    @property
    def own(self) -> tuple[Path, ...]:
        """Those that belong to this attempt alone and that its command may write to."""
        return (self.workspace, self.artifacts, self.env, self.home, self.temporary)


@dataclass(frozen=True)
class Mounted:
    """A directory of the host as a sandbox sees it."""

    real: Path
    seen: str
    writable: bool = True


@dataclass(frozen=True)
class Places:
    """Where a command finds its directories, as it sees them.

    `work_below` and `artifacts_link` are relative to the workspace: where the command starts, and a path that is to
    lead to the artifacts ("" for none).
    """

    workspace: str
    storage: str
    artifacts: str
    env: str
    home: str
    temporary: str
    cache: str
    generated: str
    cwd: str
    work_below: str = ""
    artifacts_link: str = ""
    mounts: tuple[Mounted, ...] = ()


def plan(order: PrepareOrder, directories: Directories) -> Places:
    """Where the command of an attempt will find its directories.

    Relative `workdir` and `artifacts` are below the workspace. Absolute ones exist in a sandbox only: the workspace,
    or the artifacts, are there too.

    Raises:
        NodeError: a path can't be had; says which and what to write.
    """
    work, work_below = _place("paths.workdir", order.workdir, WORKSPACE)
    artifacts, artifacts_below = _place("paths.artifacts", order.artifacts, ARTIFACTS, inside=(WORKSPACE, work))
    if order.isolation == "bubblewrap":
        return _enclosed(directories, (work, work_below), (artifacts, artifacts_below))
    if not order.trusted:
        raise NodeError(Cause.NOT_SUPPORTED, "Code from a fork runs only where commands can be isolated.")
    for name, written, place, usual in (
        ("paths.workdir", order.workdir, work, WORKSPACE),
        ("paths.artifacts", order.artifacts, artifacts, ARTIFACTS),
    ):
        if place != usual:
            raise NodeError(
                Cause.NOT_SUPPORTED,
                f"{name} is {written}, and without isolation (ISOLATION=none) there is no such directory; "
                "write a path relative to the repository.",
            )
    return Places(
        workspace=str(directories.workspace),
        storage=str(directories.storage),
        artifacts=str(directories.artifacts),
        env=str(directories.env),
        home=str(directories.home),
        temporary=str(directories.temporary),
        cache=str(directories.cache),
        generated=str(directories.generated),
        cwd=str(directories.workspace / work_below),
        work_below=work_below,
        artifacts_link=artifacts_below,
    )


def _enclosed(
    directories: Directories, work: tuple[PurePosixPath, str], artifacts: tuple[PurePosixPath, str]
) -> Places:
    mounts = [
        Mounted(directories.temporary, str(TEMPORARY)),
        Mounted(directories.home, str(HOME)),
        Mounted(directories.cache, str(HOME / ".cache")),
        Mounted(directories.env, str(ENV)),
        Mounted(directories.workspace, str(WORKSPACE)),
        Mounted(directories.storage, str(STORAGE)),
        Mounted(directories.artifacts, str(ARTIFACTS)),
        Mounted(directories.generated, "/generated", writable=False),
    ]
    if work[0] != WORKSPACE:
        mounts.append(Mounted(directories.workspace, str(work[0])))
    if artifacts[0] != ARTIFACTS:
        mounts.append(Mounted(directories.artifacts, str(artifacts[0])))
    return Places(
        workspace=str(WORKSPACE),
        storage=str(STORAGE),
        artifacts=str(ARTIFACTS),
        env=str(ENV),
        home=str(HOME),
        temporary=str(TEMPORARY),
        cache=str(HOME / ".cache"),
        generated="/generated",
        cwd=str(work[0] / work[1]),
        work_below=work[1],
        artifacts_link=artifacts[1],
        mounts=tuple(mounts),
    )


def _place(
    name: str, written: str | None, usual: PurePosixPath, inside: tuple[PurePosixPath, ...] = (WORKSPACE,)
) -> tuple[PurePosixPath, str]:
    """Where a directory is mounted, and what of the written path is below the workspace ("" when nothing)."""
    if not written:
        return usual, ""
    path = PurePosixPath(written)
    if ".." in path.parts or "\0" in written:
        raise NodeError(Cause.NOT_SUPPORTED, f"{name} is {written!r}; a path without .. is wanted.")
    if not path.is_absolute():
        return usual, "" if path == PurePosixPath(".") else str(path)
    path = PurePosixPath("/", *path.parts[1:])  # POSIX lets two slashes at the start mean something else
    if path == usual:
        return usual, ""
    for base in inside:
        if path.is_relative_to(base) and path != base:
            return usual, str(path.relative_to(base))
    if path in TAKEN or path in inside or path.parts[1] in SYSTEM:
        raise NodeError(
            Cause.NOT_SUPPORTED,
            f"{name} is {written}, which is taken in the sandbox; write a path relative to the repository, "
            "or a directory of your own such as /paperspace.",
        )
    return path, ""
