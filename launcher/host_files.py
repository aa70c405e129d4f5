"""What every command sees of its host's files, and which of ours must therefore lie elsewhere."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

SYSTEM = ("/usr", "/opt", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
ETC = (
    "alternatives",
    "bash.bashrc",
    "bash_completion.d",
    "ca-certificates",
    "crypto-policies",
    "debian_version",
    "fonts",
    "gai.conf",
    "host.conf",
    "inputrc",
    "java-11-openjdk",
    "java-17-openjdk",
    "java-21-openjdk",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "libnl-3",
    "locale.alias",
    "localtime",
    "magic",
    "mime.types",
    "netconfig",
    "nsswitch.conf",
    "openmpi",
    "OpenCL",
    "os-release",
    "pki/ca-trust",
    "pki/tls/cert.pem",
    "pki/tls/certs",
    "pki/tls/openssl.cnf",
    "protocols",
    "redhat-release",
    "resolv.conf",
    "rpc",
    "services",
    "shells",
    "ssl/cert.pem",
    "ssl/certs",
    "ssl/openssl.cnf",
    "terminfo",
    "timezone",
    "vulkan",
)
"""The files of /etc that programs need and that tell nobody a secret; passwd, group and hosts are our own."""

LIVE = ("resolv.conf",)
"""Those of ETC that change while commands run, which shall see it."""

SYS = ("/sys/devices/system",)
SYS_WITH_DEVICES = ("/sys/devices", "/sys/bus", "/sys/class", "/sys/module")
"""Libraries of accelerators find their devices, and how they are wired, by these."""

OWN = ("HOME", "RAY_AUTH_TOKEN_PATH")
"""Variables of a node that say where something lies which no command may read."""


def exposed(places: Mapping[str, Path]) -> dict[str, str]:
    """Those of some places that every command could read; links are followed.

    Whether their modes would keep a command out does not count: an agent that is not root has the command's user.

    Args:
        places: by the names of the variables that say where they are.

    Returns:
        A sentence for each, by its name.
    """
    prefix = os.path.realpath(sys.base_prefix)  # of the interpreter, which is mounted wherever it lies
    open_to_all = (*SYSTEM, *(f"/etc/{name}" for name in ETC), prefix)
    found = {}
    for name, place in places.items():
        real = Path(os.path.realpath(place))
        above = next((each for each in open_to_all if real.is_relative_to(each)), None)
        if above:
            found[name] = f"{place} is below {above}, which every command can read"
    return found


def own(environ: Mapping[str, str]) -> dict[str, Path]:
    """The places of OWN that a process was told."""
    return {name: Path(environ[name]) for name in OWN if environ.get(name)}
