"""What the figures were measured on."""

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any


def described() -> dict[str, Any]:
    """The machine, the versions that matter, and how busy it was before we began."""
    fields = dict(
        line.split(":", 1) for line in Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines() if ":" in line
    )
    kib = int(Path("/proc/meminfo").read_text().split()[1])
    return {
        "cpu": next((value.strip() for name, value in fields.items() if name.strip() == "model name"), ""),
        "cpus": len(os.sched_getaffinity(0)),
        "memory_gib": round(kib / 2**20, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "ray": version("ray"),
        "load_before": os.getloadavg()[0],
        "commit": _commit(),
    }


def busy_s() -> float:
    """Seconds that all processors together have worked since the machine started."""
    user, nice, system, _idle, _waiting, irq, softirq = map(int, Path("/proc/stat").read_text().split()[1:8])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def _commit() -> str:
    done = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True)
    return done.stdout.strip()
