"""This host: its directory, disk, machine types, isolation and programs."""

import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

import uv

from ci_bot.app import machines
from ci_bot.doctor import judge
from ci_bot.doctor.findings import Finding, ok, problem
from ci_bot.exposed import ADVICE, exposed
from ci_bot.settings import Settings, SettingsError
from launcher.sandbox import probe

SECRETS = ("app.json", "key", "session-secret", "ray-token", "descent.db")
PROGRAMS = {
    "uv": "the environments of experiments are made with it, and Descent's installation brings it: repair that",
    "git": "`descent run` and `descent demo` need it: install the package git",
}


def data_dir(settings: Settings) -> list[Finding]:
    """DATA_DIR is ours, ours alone, and takes files."""
    path = settings.data_dir
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryFile(dir=path) as file:
            file.write(b"descent")
    except OSError as error:
        text = f"{path} can't be written to: {error.strerror}"
        return [problem("data dir", text, "create it for the user that runs Descent, or set DATA_DIR")]
    state = path.stat()
    if state.st_uid != os.geteuid():
        text = f"{path} belongs to user {state.st_uid}, and this is user {os.geteuid()}"
        return [problem("data dir", text, "run all of Descent as one user")]
    found = [judge.mode("data dir", str(path), stat.S_IMODE(state.st_mode), 0o700)]
    for name in SECRETS:
        secret = path / name
        if secret.exists():
            found.append(judge.mode("data dir", str(secret), stat.S_IMODE(secret.stat().st_mode), 0o600))
    kind = file_system_of(path, Path("/proc/self/mountinfo").read_text())
    found.append(judge.file_system(kind, str(path), sqlite=settings.store_url.startswith("sqlite")))
    return [each for each in found if each] or [ok("data dir", f"{path} on {kind} is ours and takes files")]


def disk(settings: Settings) -> list[Finding]:
    """Room for logs, artifacts and the database."""
    return [judge.disk("disk", str(settings.data_dir), shutil.disk_usage(settings.data_dir).free)]


def machine_types(settings: Settings) -> list[Finding]:
    """MACHINES can be read and understood."""
    try:
        known = machines(settings)
    except SettingsError as error:
        return [problem("machines", text, "see docs/machines.md") for text in str(error).splitlines()]
    if known.table is None:
        return [ok("machines", "no machines.yaml: every machine type means one CPU, and the GPUs of its name")]
    return [ok("machines", f"{settings.machines} has {', '.join(sorted(known.table))}")]


def isolation(settings: Settings, environ: Mapping[str, str]) -> list[Finding]:
    """What this host can do to enclose commands, and what of ours they could read all the same."""
    capable = probe()
    return [
        judge.isolation(settings.isolation, capable.ok, capable.why, node_here=not settings.ray_address),
        *(problem("isolation", f"{name}: {why}", ADVICE) for name, why in exposed(settings, environ).items()),
    ]


def programs() -> list[Finding]:
    """The programs that Descent starts."""
    found = []
    for name, todo in PROGRAMS.items():
        try:
            program = uv.find_uv_bin() if name == "uv" else name
            done = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=20, check=True)
        except (OSError, subprocess.SubprocessError):
            found.append(problem(name, f"{name} can't be run", todo))
        else:
            found.append(ok(name, done.stdout.strip().splitlines()[0]))
    return found


def file_system_of(path: Path, mountinfo: str) -> str:
    """The kind of the file system that a path is on, of proc(5)'s mountinfo."""
    best, kind = Path("/"), "an unknown file system"
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        place = Path(before.split()[4].replace("\\040", " "))
        if path.resolve().is_relative_to(place) and len(place.parts) >= len(best.parts):
            best, kind = place, after.split()[0]
    return kind
