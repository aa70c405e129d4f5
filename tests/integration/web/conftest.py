"""A dashboard over a real SQLite store, served by a real uvicorn on loopback."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from sqlalchemy import Engine

from ci_bot.records import Claim, ClaimKind, Experiment, Held, HeldNode, Repository
from ci_bot.settings import AppCredentials, Settings
from ci_bot.store import begin, experiments, migrate, open_engine, reading, repositories
from ci_bot.store.experiments import Draft
from ci_bot.web.room import Room
from ci_bot.web.serve import Server, configured, create_app
from launcher.experiment import NodeGroup, NodeState, Role, Specification
from launcher.keep import Keep
from launcher.state import Cause, Signal, advance

BORN = 1_790_000_000.0
RUNNING = (
    Signal.COMMIT_RESOLVED,
    Signal.ADMITTED,
    Signal.NODES_READY,
    Signal.NODES_REPORTED,
    Signal.COMMANDS_STARTED,
)
SOURCE = "version: 1\nworker:\n  command: python train.py\nenv:\n  API_TOKEN: hunter2hunter2\n"
PEM = (
    rsa.generate_private_key(public_exponent=65537, key_size=2048)
    .private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    .decode()
)
APP = AppCredentials(1, PEM, ("hook-secret",), "client", "client-secret", "descent")


def specification(**changes: Any) -> Specification:
    plain = Specification(
        name="digits",
        topology="single",
        groups=(NodeGroup(role=Role.WORKER, command="python train.py --epochs 3", machine_type="P4000"),),
        env={"EPOCHS": "3", "API_TOKEN": "hunter2hunter2"},
        timeout_s=3600,
        retries=1,
    )
    return plain.model_copy(update=changes)


@dataclass
class Site:
    """A dashboard's store and bytes, and what happens in them."""

    settings: Settings
    engine: Engine
    keep: Keep
    stop: Callable[[], None]
    room: Room

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.settings.port}"

    @property
    def key(self) -> str:
        return (self.settings.data_dir / "key").read_text()

    def repository(self, id: int = 7, full_name: str = "octo/digits") -> Repository:
        repository = Repository(id, 1, full_name, "main")
        with begin(self.engine) as connection:
            repositories.remember(connection, repository)
        return repository

    def experiment(self, *signals: Signal, at: float = BORN, **changes: Any) -> int:
        """An experiment that has gone through these facts, one a second."""
        plain = Draft(
            repository_id=7,
            installation_id=1,
            full_name="octo/digits",
            head_sha="a" * 40,
            ref="refs/heads/main",
            name="digits",
            title="Train <b>longer</b>",
            specification=specification(),
            configuration_path=".descent/config.yaml",
            configuration_source=SOURCE,
        )
        with begin(self.engine) as connection:
            claim = Claim(ClaimKind.BRANCH, "refs/heads/main", lasting=True)
            number, _ = experiments.create(connection, replace(plain, **changes), claim, at)
        for place, signal in enumerate(signals, 1):
            self.advance(number, signal, at=at + place)
        return number

    def get(self, number: int) -> Experiment:
        with reading(self.engine) as connection:
            found = experiments.get(connection, number)
        assert found is not None
        return found

    def advance(
        self, number: int, signal: Signal, cause: Cause | None = None, at: float = BORN + 60, **more: Any
    ) -> None:
        old = self.get(number).progress
        with begin(self.engine) as connection:
            new = advance(old, signal, cause)
            assert experiments.record(connection, number, old, new, at=at, reason=more.pop("reason", ""), **more)

    def end(self, number: int, cause: Cause = Cause.SUCCEEDED, at: float = BORN + 60, **detail: Any) -> None:
        self.advance(number, Signal.ENDED, cause, at, detail=detail)
        self.advance(number, Signal.RELEASED, None, at + 1)

    def hold(self, number: int, *nodes: HeldNode) -> None:
        progress = self.get(number).progress
        with begin(self.engine) as connection:
            held = Held(group="g", nodes=nodes)
            assert experiments.record(connection, number, progress, progress, at=BORN, held=held)

    def gang(self, *signals: Signal, **first: Any) -> int:
        """An experiment of three workers; `first` is what became of worker 1."""
        worker = NodeGroup(role=Role.WORKER, count=3, command="python train.py", machine_type="P4000")
        number = self.experiment(*signals, specification=specification(topology="multi-torch", groups=(worker,)))
        self.hold_gang(number, **first)
        return number

    def hold_gang(self, number: int, **first: Any) -> None:
        nodes = [
            HeldNode(
                f"g-n{rank}", f"id{rank}", f"host-{rank}", f"10.0.0.{rank}", ("0",), "bubblewrap", role="worker",
                index=rank, machine_type="P4000", state=NodeState.RUNNING,
            )
            for rank in range(3)
        ]  # fmt: skip
        self.hold(number, nodes[0], replace(nodes[1], **first), nodes[2])

    def write_log(self, number: int, data: bytes, attempt: int = 1, rank: int = 0) -> None:
        log = self.keep.log(number, attempt, rank, self.settings.log_max_bytes)
        log.append(data)
        log.close()

    def write_artifact(self, number: int, path: str, data: bytes) -> None:
        with self.keep.artifacts(number, 1).receive(path, len(data)) as receiving:
            receiving.write(data)

    def client(self, **options: Any) -> httpx.Client:
        """A browser without a session."""
        return httpx.Client(base_url=self.url, verify=False, trust_env=False, timeout=20, **options)

    @contextmanager
    def opened(self) -> Iterator[httpx.Client]:
        """A browser with a session, opened with the key."""
        with self.client(headers={"Origin": self.url, "Accept": "text/html"}) as client:
            assert client.get("/", params={"key": self.key}).status_code == 303
            yield client


@contextmanager
def serving(settings: Settings) -> Iterator[Site]:
    listening = socket.create_server(("127.0.0.1", 0), backlog=128)
    port = listening.getsockname()[1]
    settings = replace(settings, port=port, public_url=settings.public_url.replace("PORT", str(port)))
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    engine = open_engine(settings.store_url)
    migrate(engine)
    app = create_app(settings)
    server = Server(configured(settings, app), lambda: None)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()

    def stop() -> None:
        server.should_exit = True
        thread.join()

    try:
        yield Site(settings, engine, Keep(settings.data_dir), stop, app.state.room)
    finally:
        stop()
        listening.close()
        engine.dispose()


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Site]]:
    """Starts dashboards of any settings."""
    with ExitStack() as stack:
        yield lambda **settings: stack.enter_context(serving(Settings(data_dir=tmp_path / "data", **settings)))


@pytest.fixture
def site(serve: Callable[..., Site]) -> Site:
    """A dashboard on this host alone, with an App and one repository."""
    made = serve(environment_credentials=APP)
    made.repository()
    return made
