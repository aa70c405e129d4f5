"""`descent up`: web, worker and a local Ray head, started, watched and ended together; what it starts is on record."""

import contextlib
import fcntl
import json
import os
import secrets
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import Any

import structlog

from ci_bot.exposed import require_hidden
from ci_bot.services import Service, end, identity, is_alive
from ci_bot.settings import Settings, url_host
from launcher import node, ray_head
from launcher.ray_head import Head, HeadError, HeadOptions
from launcher.sandbox import probe

HEAD_PAUSE_S = 5.0
THE_OTHER_S = 5.0
"""How long a second `up` waits for the first to say where it is, or to be gone."""
log = structlog.get_logger()


class AlreadyUp(Exception):
    """Another `up` serves this DATA_DIR."""


class PortTaken(Exception):
    """Somebody else listens where the dashboard is to be."""


class NotIsolated(Exception):
    """Commands of repositories can't be enclosed on this host, and nobody said that they need not be."""


@dataclass
class Up:
    """Everything that one host needs.

    `announce` is called with the dashboard's address once web listens; `tell`, from within a signal handler, when it
    begins to end, and again when it has.
    """

    settings: Settings
    environment: Mapping[str, str]
    announce: Callable[[str], None]
    tell: Callable[[str], None] = lambda text: None
    options: HeadOptions = field(default_factory=HeadOptions)
    head: Head | None = None
    services: list[Service] = field(default_factory=list)
    _ending: bool = False
    _next_head_at: float = 0.0
    _lock: int | None = None

    @property
    def url(self) -> str:
        """Where the dashboard is."""
        return self.settings.local_url

    @property
    def _node_directory(self) -> Path:
        return self.settings.data_dir / "node"

    def run(self) -> int:
        """Start, watch until a signal, end."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)
        try:
            self.start()
            while not self._ending:
                self.watch()
                time.sleep(0.2)
        finally:
            self.stop()
            if self._ending:
                self.tell("Stopped.")
        return 0

    def start(self) -> None:
        """Bring everything up; what still lives from before is adopted.

        Raises:
            AlreadyUp: another `up` serves this directory.
            NotIsolated: the local node could not enclose what it runs.
            PortTaken: web could not listen.
            SettingsError: commands could read what is ours.
        """
        require_hidden(self.settings, self.environment)
        self.settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._take_lock()
        try:
            record = self._record()
            for name in ("web", "worker"):
                end(record.get(name))  # they end with their `up`, but may take a while
            if not self.settings.ray_address:
                self._require_isolation()
            self._bring_up(record)
        except BaseException:
            self.stop()
            raise
        if not self._ending:
            self.announce(self.url)

    def _take_lock(self) -> None:
        """Hold this directory for as long as we live; what we start does not inherit it."""
        lock = os.open(self.settings.data_dir / "up.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        give_up_at = time.monotonic() + THE_OTHER_S
        while True:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            record = self._record()
            if is_alive(record.get("up")) or self._ending or time.monotonic() > give_up_at:
                os.close(lock)
                raise AlreadyUp(self._who_else(record))
            time.sleep(0.05)
        self._lock = lock

    def _who_else(self, record: Mapping[str, Any]) -> str:
        directory = self.settings.data_dir
        if is_alive(record.get("up")):
            return f"descent up runs already (pid {record['up']['pid']}) on {record.get('url', '?')}, for {directory}."
        return f"Another descent up is just starting or ending for {directory}; try again in a moment."

    def _bring_up(self, record: Mapping[str, Any]) -> None:
        require_port(self.settings.host, self.settings.port)
        if not self.settings.port:
            self.settings = replace(self.settings, port=free_port(self.settings.host))
        if not self.settings.ray_address:
            self.head = self._head(record.get("ray"))
        if self._ending:
            return
        environment = self._child_environment()
        self._write_record()
        self.services = [
            Service("web", (sys.executable, "-m", "ci_bot.cli", "web", "--quiet")),
            Service("worker", (sys.executable, "-m", "ci_bot.cli", "worker")),
        ]
        for service in self.services:
            service.start(environment)
        self._write_record()
        self._wait_for_web()

    def watch(self) -> None:
        """Start again what died."""
        environment = self._child_environment()
        if self.head and not ray_head.is_alive(self.head) and time.monotonic() >= self._next_head_at:
            self._replace_head(self.head)
        pids = [service.process.pid if service.process else 0 for service in self.services]
        for service in self.services:
            service.watch(environment)
        if pids != [service.process.pid if service.process else 0 for service in self.services]:
            self._write_record()

    def _replace_head(self, dead: Head) -> None:
        log.error("ray's head died; a new one is started")
        self.head = replace(dead, address="")  # nobody should look for it there any more
        self._write_record()
        try:
            ray_head.stop(dead)
            self.head = self._new_head()
        except HeadError as error:
            log.error("ray's head could not be started; it is tried again", why=str(error), in_s=HEAD_PAUSE_S)
            self._next_head_at = time.monotonic() + HEAD_PAUSE_S
        self._write_record()

    def stop(self) -> None:
        """No new admissions; what runs goes back into the queue at no cost; the head ends last."""
        grace_s = self.settings.grace_s + 20.0
        for service in reversed(self.services):
            drains = service.name == "worker"
            service.end(signal.SIGINT if drains else signal.SIGTERM, grace_s if drains else 10.0)
        if self.head:
            ray_head.stop(self.head)
            node.leave(self._node_directory, self.settings.grace_s)  # what a worker that was not there did not end
        if self._record().get("up") == identity(os.getpid()):
            (self.settings.data_dir / "up.json").unlink()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _require_isolation(self) -> None:
        if self.settings.isolation == "none":
            return
        found = probe(below=self.settings.data_dir)
        if not found.ok:
            raise NotIsolated(
                f"Commands of repositories can't be isolated here: {found.why}.\n"
                "Install bubblewrap and see `descent doctor`; or set ISOLATION=none, if you trust every repository "
                "with this machine."
            )

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if not self._ending:
            self._ending = True
            self.tell("\nStopping … what runs goes back into the queue.")

    # --- the record of what was started ---

    def _record(self) -> dict[str, Any]:
        try:
            return dict(json.loads((self.settings.data_dir / "up.json").read_text()))
        except (FileNotFoundError, ValueError):
            return {}

    def _write_record(self) -> None:
        record: dict[str, Any] = {"up": identity(os.getpid()), "url": self.url}
        for service in self.services:
            if service.process:
                record[service.name] = identity(service.process.pid)
        if self.head:
            record["ray"] = self.head.dump()
        path = self.settings.data_dir / "up.json"
        part = path.with_suffix(".part")
        part.write_text(json.dumps(record, indent=2))
        part.replace(path)

    # --- ray's head ---

    def _head(self, recorded: dict[str, Any] | None) -> Head:
        if recorded:
            head = Head.load(recorded)
            if head.address and ray_head.is_alive(head):
                log.info("adopted the ray head of an earlier run", address=head.address)
                return head
            ray_head.stop(head)  # what is left of it
        return self._new_head()

    def _new_head(self) -> Head:
        token_path = self.settings.data_dir / "ray-token"
        if not token_path.exists():
            write_secret(token_path, secrets.token_hex(32))
        environment = {**self.environment, "NODE_DIR": str(self._node_directory)}
        return ray_head.start(environment, token_path, self.options, begun=self._begun)

    def _begun(self, head: Head) -> None:
        """On record before it serves, so that the next `up` can clear it away should this one be killed."""
        self.head = head
        self._write_record()

    def _child_environment(self) -> dict[str, str]:
        return {
            **self.environment,
            "DATA_DIR": str(self.settings.data_dir),
            "PORT": str(self.settings.port),
        }

    def _wait_for_web(self, limit_s: float = 60.0) -> None:
        give_up_at = time.monotonic() + limit_s
        while time.monotonic() < give_up_at and not self._ending:
            try:
                with socket.create_connection((self.settings.host, self.settings.port), timeout=1.0):
                    return
            except OSError:
                self.watch()
                time.sleep(0.05)
        if not self._ending:
            raise TimeoutError(f"web does not listen on {self.url} after {limit_s:.0f} s; its log says why")


def write_secret(path: Path, text: str) -> None:
    """A file that only we may read, there whole or not at all."""
    part = path.with_name(f"{path.name}.part")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def require_port(host: str, port: int) -> None:
    """Refuse an address that somebody else has: the key that we print must not go to them."""
    try:
        _listener(host, port).close()
    except OSError as error:
        # socket.create_server says the address again in `strerror`; a host that has no address has a number of its own
        why = error.strerror if isinstance(error, socket.gaierror) else os.strerror(error.errno or 0)
        raise PortTaken(f"{url_host(host)}:{port} can't be listened on ({why}); set HOST or PORT to another") from error


def free_port(host: str) -> int:
    """A port that nobody listens on now."""
    with _listener(host, 0) as listener:
        return int(listener.getsockname()[1])


def _listener(host: str, port: int) -> socket.socket:
    """A socket that listens as web would."""
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    return socket.create_server(address[:2], family=family)
