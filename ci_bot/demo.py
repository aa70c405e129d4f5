"""`descent demo`: a local GitHub, the App, a local Ray head and a sample repository; one real push, start to end."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from importlib.resources import as_file, files
from pathlib import Path
from types import FrameType

from ci_bot.local_github.control import Control
from ci_bot.logs import configure_logging
from ci_bot.report.terminal import node_lines, state_line
from ci_bot.settings import Settings
from ci_bot.store import experiments
from ci_bot.store.engine import open_engine, reading
from ci_bot.up import Up, free_port, write_secret
from ci_bot.web import manifest
from ci_bot.web.key import invitation
from launcher.ray_head import HeadOptions
from launcher.sandbox import probe
from launcher.state import TERMINAL, State
from launcher.topology import SHAPES

OWNER = "demo"
REPOSITORY = f"{OWNER}/digits"
LIMIT_S = 900.0
MOST_NODES = 3
"""Of a sample."""


class Interrupted(Exception):
    """Ctrl-C, or SIGTERM."""


@dataclass
class Demo:
    """One demonstration, in a directory that goes away with it."""

    topology: str
    stay: bool
    environ: Mapping[str, str]

    def run(self) -> int:
        """Show a push become a finished check run; 0 when it succeeded."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, _interrupt)
        try:
            with ExitStack() as stack:
                try:
                    return self._run(stack)
                except Interrupted:
                    say("\nStopping …")  # before it is done: that takes a while
                    raise
        except Interrupted:
            say("Stopped; nothing was left behind.")
            return 0 if self.stay else 1

    def _run(self, stack: ExitStack) -> int:
        root = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="descent-demo-", ignore_cleanup_errors=True))
        )
        port = free_port("127.0.0.1")
        say("Starting a local GitHub …")
        control = stack.enter_context(local_github(root / "github"))
        clone_url, environment = set_up(control, port, self.environ, root)
        settings = replace(Settings.from_env(environment), port=port)
        configure_logging(settings.log_level)
        if settings.isolation == "none":
            say(f"  commands run without isolation here: {probe().why}")
        say("Starting Descent and a local Ray head; this takes 10 to 20 s …")
        up = Up(settings, environment, announce=lambda url: None, options=head_options(self.topology))
        stack.callback(up.stop)
        up.start()
        say(f"  dashboard   {invitation(settings, up.url)}")
        clone = root / "digits"
        sha = push_sample(self.topology, clone_url, clone)
        say(f"Pushed {sha[:7]} with git push.")
        say(f"  commit      {control.opened(f'/{REPOSITORY}/commit/{sha}', as_login=OWNER)}")
        if self.stay:
            say(f"  clone       {clone}")
        ended = follow(up, control, sha)
        if self.stay:
            environment_file = root / "environment"
            write_secret(environment_file, assignments(environment, self.environ))
            say(staying(clone, environment_file, Path(sys.executable).with_name("descent")))
            while True:
                up.watch()
                time.sleep(0.5)
        return 0 if ended is State.STOPPED else 1


@contextmanager
def local_github(root: Path) -> Iterator[Control]:
    """A local GitHub as a process of its own."""
    root.mkdir(parents=True)
    token_file = root / "control-token"
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "ci_bot.local_github",
            "--root",
            root,
            "--port",
            "0",
            "--control-token-file",
            token_file,
        ],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None  # noqa: S101 - it was asked for
        listening = json.loads(process.stdout.readline())
        yield Control(listening["url"], token_file.read_text().strip())
    finally:
        process.terminate()
        process.communicate()


def set_up(control: Control, port: int, environ: Mapping[str, str], root: Path) -> tuple[str, dict[str, str]]:
    """Create the App and install it, as a person would; gives where to push, and Descent's environment."""
    clone_url = control.create_repository(REPOSITORY, private=False)
    asked = manifest.template()
    app = control.create_app(
        "descent",
        f"http://127.0.0.1:{port}/webhook",
        permissions=asked["default_permissions"],
        events=asked["default_events"],
        owner=OWNER,
    )
    control.install(app["id"], OWNER, repositories=[REPOSITORY])
    key = root / "app.pem"
    key.write_text(app["pem"])
    key.chmod(0o600)
    kept = {name: value for name, value in environ.items() if not name.startswith(("GITHUB_", "RAY_"))}
    environment = kept | {
        "GITHUB_URL": control.url,
        "GITHUB_API_URL": control.api_url,
        "GITHUB_APP_ID": str(app["id"]),
        "GITHUB_PRIVATE_KEY_PATH": str(key),
        "GITHUB_WEBHOOK_SECRET": app["webhook_secret"],
        "DATA_DIR": str(root / "data"),
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "LOG_LEVEL": environ.get("LOG_LEVEL", "error"),
        "ISOLATION": environ.get("ISOLATION") or ("bubblewrap" if probe().ok else "none"),
        "ALLOW_SHARED_HOSTS": "true",  # there is but this one
    }
    for name in ("DATABASE_URL", "PUBLIC_URL", "MACHINES"):
        environment.pop(name, None)
    return str(clone_url), environment


def head_options(topology: str) -> HeadOptions:
    """The local Ray head: with a processor for every node of a sample, however few there are."""
    return HeadOptions() if SHAPES[topology].one_node else HeadOptions(num_cpus=MOST_NODES)


def push_sample(topology: str, clone_url: str, clone: Path) -> str:
    """Create the sample repository's first commit and push it; gives its SHA."""
    with as_file(files("ci_bot") / "sample" / topology) as sample:
        shutil.copytree(sample, clone)

    def git(*arguments: str) -> str:
        identity = ("-c", "user.name=Demo", "-c", "user.email=demo@example.invalid")
        done = subprocess.run(
            ["git", "-C", clone, *identity, *arguments],
            check=True,
            capture_output=True,
            text=True,
            env=git_environment(),
        )
        return done.stdout.strip()

    git("init", "--quiet", "--initial-branch", "main")
    git("config", "user.name", "Demo")
    git("config", "user.email", "demo@example.invalid")
    git("add", "--all")
    git("commit", "--quiet", "--message", "Train a small network on digits")
    git("remote", "add", "origin", clone_url)
    git("push", "--quiet", "--set-upstream", "origin", "main")
    return git("rev-parse", "HEAD")


def git_environment() -> dict[str, str]:
    """The environment without what another git around us may have set."""
    return {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}


def follow(up: Up, control: Control, sha: str) -> State | None:
    """Show every state as it comes, until the check run on the commit is completed; gives the end."""
    engine, shown, ended = open_engine(up.settings.store_url), 0, None
    give_up_at = time.monotonic() + LIMIT_S
    try:
        while time.monotonic() < give_up_at:
            up.watch()
            with reading(engine) as connection:
                found = experiments.listed(connection, limit=1)
                timeline = experiments.transitions(connection, found[0].id) if found else []
            for transition in timeline[shown:]:
                say("  " + state_line(transition, timeline[0].at))
                shown += 1
                if transition.state is State.RUNNING:
                    say("              first it installs its packages; the dashboard shows its log")
                if transition.state is State.RUNNING or transition.state in TERMINAL:
                    for line in node_lines(found[0].held.nodes):
                        say("  " + line)
            if found and found[0].ended_at:
                ended = found[0].state
                runs = control.check_runs(REPOSITORY, sha)
                if runs and all(run["status"] == "completed" for run in runs):
                    for run in runs:
                        say(f"Check run {run['name']}: {run['conclusion']} — {run['output']['title']}")
                    return ended
            time.sleep(0.1)
    finally:
        engine.dispose()
    say(f"It did not end within {LIMIT_S:.0f} s.")
    return None


def assignments(environment: Mapping[str, str], environ: Mapping[str, str]) -> str:
    """What a shell with one environment is to read for the other."""
    unset = [f"unset {name}\n" for name in environ if name not in environment]
    changed = {name: value for name, value in environment.items() if environ.get(name) != value}
    return "".join([*unset, *(f"export {name}={shlex.quote(value)}\n" for name, value in changed.items())])


def staying(clone: Path, environment_file: Path, descent: Path) -> str:
    """What can be done while everything stays up."""
    command = f". {shlex.quote(str(environment_file))}; {shlex.quote(str(descent))}"
    return (
        f"\nEverything stays up until Ctrl-C. Change something in {clone}, commit, `git push`, and watch the browser:\n"
        "the dashboard shows every push; nothing more is said here. In another terminal:\n"
        f"  ({command} doctor)\n"
        f"  ({command} cancel NUMBER)"
    )


def say(text: str) -> None:
    """A line for the person who watches."""
    print(text, flush=True)


def _interrupt(number: int, frame: FrameType | None) -> None:
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)  # an impatient second Ctrl-C must not keep us from clearing up
    raise Interrupted
