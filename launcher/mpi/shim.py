"""The mpirun that comes first in PATH: finds the real one, and says to MPICH's what Open MPI's would have understood.

Standard library only. MPICH and Intel MPI (Hydra) know no `--allow-run-as-root` and no `slots=` in a hostfile, and
start one process where no number is given. Without isolation there is no /generated: its files are elsewhere.
"""

from __future__ import annotations

import os
import sys

from . import GENERATED, GENERATED_AT, SHIMS, moved

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

HOSTFILE = ("f", "hostfile", "machinefile")
NUMBER = ("n", "np")
HOSTS = ("host", "hosts")
WITH_VALUE = frozenset(
    {*HOSTFILE, *NUMBER, *HOSTS, "ppn", "perhost", "grr", "rr", "wdir", "dir", "path", "configfile", "profile"}
    | {"genvlist", "envlist", "launcher", "launcher-exec", "bootstrap", "bootstrap-exec", "rmk", "iface", "nic"}
    | {"bind-to", "map-by", "membind", "topolib", "localhost", "usize", "demux", "ckpointlib", "nameserver"}
    | {"prepend-pattern", "outfile-pattern", "errfile-pattern", "pmi-port", "order-nodes", "umask"}
)
ASSIGNING = frozenset({"genv", "env"})  # NAME=VALUE, or NAME VALUE
HYDRA_HOST_FILE = "HYDRA_HOST_FILE"


class NoHostError(Exception):
    """A hostfile, by its path, leaves no place for any process."""


def find(name: str, path: str, shims: str) -> str | None:
    """The first program of that name in PATH that is not ours."""
    for directory in path.split(os.pathsep):
        candidate = os.path.join(directory or ".", name)
        ours = os.path.realpath(directory or ".") == os.path.realpath(shims)
        if not ours and os.path.isfile(candidate) and os.access(candidate, os.X_OK):
            return candidate
    return None


def is_hydra(program: str) -> bool:
    """Whether an mpirun is that of MPICH or Intel MPI: by the name behind its links, else by its neighbours."""
    directory, name = os.path.split(os.path.realpath(program))
    if any(word in name for word in ("hydra", "mpich")):
        return True
    if any(word in name for word in ("openmpi", "orterun", "prte")):
        return False

    def beside(*names: str) -> bool:  # a directory may let its programs be run and not be listed
        return any(os.path.lexists(os.path.join(directory, each)) for each in names)

    return beside("hydra_pmi_proxy", "mpiexec.hydra") and not beside("orted", "prted")


def slots(hostfile: str) -> list[tuple[str, int]]:
    """The hosts of a hostfile in Open MPI's or Hydra's form, with the number of processes meant for each. Pure."""
    found: dict[str, int] = {}
    for line in hostfile.splitlines():
        words = line.partition("#")[0].split()
        if not words:
            continue
        host, _, count = words[0].partition(":")
        for word in words[1:]:
            if word.startswith("slots="):
                count = word.removeprefix("slots=")
        found[host] = found.get(host, 0) + (int(count) if count.isdecimal() else 1)
    return list(found.items())


def options(argv: list[str]) -> tuple[list[list[str]], list[str]]:
    """A command line of Hydra's: its options, each with its values, and the rest, from the program on. Pure.

    `-n=2` is `-n 2` to Hydra, whatever the option, and what is said twice is an error to it.
    """
    found, rest = [], list(argv)
    while rest and rest[0].startswith("-"):
        option, assigned, value = rest[0].partition("=")
        rest[:1] = [option, value] if assigned else [option]
        name = option.lstrip("-")
        count = 2 if name in WITH_VALUE else 1
        if name in ASSIGNING:
            count = 2 if "=" in "".join(rest[1:2]) else 3
        found.append(rest[:count])
        rest = rest[count:]
    return found, rest


def for_hydra(argv: list[str], read: Callable[[str], str], default: str | None) -> tuple[list[str], str | None]:
    """What Hydra is to be called with, and the text of its hostfile, which goes where "{hostfile}" stands.

    Args:
        argv: the arguments as written.
        read: gives a hostfile's text.
        default: the hostfile that is meant where none is named.

    Raises:
        NoHostError: no host of the hostfile may have a process.
        OSError: as `read` raises it.
    """
    given, rest = options(argv)
    kept = [option for option in given if option[0].lstrip("-") != "allow-run-as-root"]
    names = {option[0].lstrip("-") for option in kept}
    files = [option[1] for option in kept if option[0].lstrip("-") in HOSTFILE and len(option) == 2]
    if not files and (default is None or names & {*HOSTS, "configfile"}):
        return [word for option in kept for word in option] + rest, None
    path = files[-1] if files else str(default)
    hosts = [(host, count) for host, count in slots(read(path)) if count]
    if not hosts:
        raise NoHostError(path)
    kept = [option for option in kept if option[0].lstrip("-") not in HOSTFILE]
    number = [] if names & {*NUMBER, "configfile"} or not rest else ["-n", str(sum(count for _, count in hosts))]
    words = ["-f", "{hostfile}", *(word for option in kept for word in option), *number, *rest]
    return words, "".join(f"{host}:{count}\n" for host, count in hosts)


def main(name: str, argv: list[str], directory: str) -> int:
    """Become the real mpirun; returns only where there is none, or its hostfile can't be read."""
    shims = os.path.join(directory, SHIMS)
    directories = os.environ.get("PATH", os.defpath)
    program = find(name, directories, shims)
    if program is None:
        print(f"descent: {name}: not found in PATH; install Open MPI or MPICH, for example with pip", file=sys.stderr)
        return 127
    # Hydra looks for its other programs beside the first of its own name.
    path = [each for each in directories.split(os.pathsep) if os.path.realpath(each) != os.path.realpath(shims)]
    os.environ["PATH"] = os.pathsep.join(path)
    generated = os.environ.get(GENERATED_AT, GENERATED)
    argv = [_moved(word, generated) for word in argv]
    if is_hydra(program):
        try:
            argv, hostfile = for_hydra(argv, _read, os.environ.get(HYDRA_HOST_FILE))
            if hostfile is not None:
                argv[argv.index("{hostfile}")] = _held(hostfile)
        except OSError as error:
            print(f"descent: {name}: {_which(error)} can't be read: {error.strerror}", file=sys.stderr)
            return 1
        except NoHostError as error:
            why = f"the hostfile {error} names no host with a slot; write one host name a line"
            print(f"descent: {name}: {why}", file=sys.stderr)
            return 1
    try:
        os.execv(program, [name, *argv])  # noqa: S606 - the user's own command
    except OSError as error:
        print(f"descent: {program} can't be executed: {error.strerror}", file=sys.stderr)
    return 126


def _moved(word: str, generated: str) -> str:
    option, assigned, value = word.partition("=") if word.startswith("-") else ("", "", word)
    return f"{option}{assigned}{moved(value, generated)}"


def _which(error: OSError) -> str:
    return f"the hostfile {error.filename}" if error.filename else "a hostfile"


def _read(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


def _held(text: str) -> str:
    """A path to a text that lasts as long as the program that we become."""
    fd = os.memfd_create("hostfile", 0)
    os.write(fd, text.encode())
    return f"/proc/self/fd/{fd}"
