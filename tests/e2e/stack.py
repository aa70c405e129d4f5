"""All of Descent on this host: the local GitHub, `up` with web, worker and a Ray head, and repositories to push to."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from ci_bot.demo import local_github
from ci_bot.local_github.control import Control
from ci_bot.records import Experiment, Transition
from ci_bot.store import experiments
from ci_bot.store.engine import open_engine, reading
from ci_bot.up import free_port

OWNER = "octo"
PATIENCE_S = 60.0


def config(command: str, *, name: str = "exp", **more: Any) -> str:
    """A version 1 file; `more` are top-level keys, as JSON, which is YAML too."""
    keys = {"version": 1, "experiment": name, "type": "single", **more}
    return json.dumps({**keys, "worker": {"command": command, **keys.get("worker", {})}})


@dataclass
class Repo:
    """A repository on the local GitHub with a clone."""

    stack: "Stack"
    full_name: str
    clone: Path

    def git(self, *arguments: str) -> str:
        identity = ["-c", "user.name=Mona", "-c", "user.email=mona@example.invalid", "-c", "commit.gpgsign=false"]
        kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        argv = ["git", "-C", str(self.clone), *identity, *arguments]
        done = subprocess.run(argv, capture_output=True, text=True, env=kept | {"GIT_CONFIG_GLOBAL": os.devnull})
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def commit(self, files: Mapping[str, str | bytes], message: str = "a change") -> str:
        for name, content in files.items():
            path = self.clone / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", message)
        return self.git("rev-parse", "HEAD")

    def push(self, files: Mapping[str, str | bytes], *, branch: str = "main", message: str = "a change") -> str:
        sha = self.commit(files, message)
        self.git("push", "--quiet", "--force", "origin", f"HEAD:refs/heads/{branch}")
        return sha

    def run(self, command: str, *, branch: str = "main", **more: Any) -> str:
        """Push a commit whose experiment runs this command."""
        return self.push({".descent/config.yaml": config(command, **more)}, branch=branch)

    def checks(self, sha: str, until: Callable[[list[Any]], bool] | None = None, timeout_s: float = PATIENCE_S) -> Any:
        """The commit's check runs, once they are as wanted: by default all completed."""
        return self.stack.control.wait_check_runs(self.full_name, sha, until, timeout_s=timeout_s)

    def check(self, sha: str, name: str = "descent/exp", timeout_s: float = PATIENCE_S) -> Any:
        """The newest check run of that name, once completed."""

        def completed(runs: list[Any]) -> bool:
            named = [run for run in runs if run["name"] == name]
            return bool(named) and named[-1]["status"] == "completed"

        return [run for run in self.checks(sha, completed, timeout_s) if run["name"] == name][-1]

    def experiment(self, sha: str, name: str = "exp") -> Experiment | None:
        """The newest experiment of that name at this repository's commit; another may have a commit of the same id."""

        def of_ours(found: Experiment) -> bool:
            return (found.full_name, found.head_sha, found.name) == (self.full_name, sha, name)

        return self.stack.look(lambda c: next(filter(of_ours, experiments.listed(c, limit=1000)), None))

    def wait(self, sha: str, wanted: Callable[[Experiment], bool], timeout_s: float = PATIENCE_S) -> Experiment:
        """The experiment, once it is as wanted."""
        found: list[Experiment] = []

        def there() -> bool:
            experiment = self.experiment(sha)
            found[:] = [experiment] if experiment else []
            return experiment is not None and wanted(experiment)

        wait_for(there, timeout_s, lambda: f"{[(e.state, e.detail) for e in found]}")
        return found[0]

    def log(self, experiment: Experiment) -> str:
        """What the last attempt printed, as it is kept."""
        directory = self.stack.data_dir / "logs" / str(experiment.id) / str(experiment.progress.attempt)
        return b"".join(path.read_bytes() for path in sorted(directory.glob("*/*.log"))).decode()


@dataclass
class Stack:
    """Everything, started and ended together."""

    root: Path
    control: Control
    app: Any
    environment: dict[str, str]
    cpus: int = 8
    gpus: int = 2
    process: subprocess.Popen[bytes] | None = None
    _engine: Engine | None = None
    _repositories: list[Repo] = field(default_factory=list)

    @property
    def data_dir(self) -> Path:
        return Path(self.environment["DATA_DIR"])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.environment['PORT']}"

    def start(self, **more: str) -> None:
        """Bring it up, and wait until it serves."""
        self.environment |= more
        log = (self.root / "up.log").open("ab")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.e2e.start_up", str(self.cpus), str(self.gpus)],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=log,
            cwd=Path(__file__).parents[2],
        )
        log.close()
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"descent up did not start: {self.words()}"

    def stop(self) -> None:
        """End it as Ctrl-C does."""
        if self.process:
            self.process.terminate()
            self.process.wait(90)
            assert self.process.stdout is not None
            self.process.stdout.close()
            self.process = None

    def words(self) -> str:
        """The end of what was logged."""
        return (self.root / "up.log").read_text()[-4000:]

    def look(self, work: Callable[[Any], Any]) -> Any:
        """The outcome of a reading transaction."""
        if self._engine is None:
            self._engine = open_engine(self.environment.get("DATABASE_URL") or f"sqlite:///{self.data_dir}/descent.db")
        with reading(self._engine) as connection:
            return work(connection)

    def timeline(self, experiment_id: int) -> list[Transition]:
        return list(self.look(lambda c: experiments.transitions(c, experiment_id)))

    def repository(self, name: str, *, private: bool = True) -> Repo:
        """A new repository on which the App is installed, cloned."""
        full_name = f"{OWNER}/{name}"
        path = self.control.create_repository(full_name, private=private)
        clone = self.root / "clones" / name
        clone.mkdir(parents=True)
        repo = Repo(self, full_name, clone)
        repo.git("init", "--quiet", "--initial-branch", "main")
        repo.git("remote", "add", "origin", str(path))
        return repo

    def record(self) -> dict[str, Any]:
        """What `up` has on record."""
        return dict(json.loads((self.data_dir / "up.json").read_text()))

    def close(self) -> None:
        if self._engine:
            self._engine.dispose()


@contextmanager
def stack_in(root: Path, **environment: str) -> Iterator[Stack]:
    """A stack that is not started yet."""
    port = free_port("127.0.0.1")
    with local_github(root / "github") as control:
        app = control.create_app("Descent", f"http://127.0.0.1:{port}/webhook", owner=OWNER)
        control.install(app["id"], OWNER)
        (root / "app.pem").write_text(app["pem"])
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("GITHUB_", "RAY_", "GIT_"))}
        settings = {
            "GITHUB_URL": control.url,
            "GITHUB_API_URL": control.api_url,
            "GITHUB_APP_ID": str(app["id"]),
            "GITHUB_PRIVATE_KEY_PATH": str(root / "app.pem"),
            "GITHUB_WEBHOOK_SECRET": app["webhook_secret"],
            "DATA_DIR": str(root / "data"),
            "PORT": str(port),
            "GRACE_S": "1",
            "LOG_LEVEL": "info",
        }
        stack = Stack(root, control, app, kept | settings | environment)
        try:
            yield stack
        finally:
            stack.stop()
            stack.close()
            control.close()


def wait_for(there: Callable[[], bool], timeout_s: float, words: Callable[[], str] = lambda: "") -> None:
    """Wait for a fact."""
    give_up_at = time.monotonic() + timeout_s
    while not there():
        assert time.monotonic() < give_up_at, f"not within {timeout_s} s: {words()}"
        time.sleep(0.05)
