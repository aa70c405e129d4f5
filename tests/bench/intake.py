"""Signed pushes a second, answered after a durable commit; beside it others that verify the same and store nothing."""

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from sqlalchemy import func, select

from ci_bot.store.engine import open_engine, reading
from ci_bot.store.tables import delivery
from ci_bot.up import free_port
from tests.bench.figures import Figure, Reach, Row
from tests.bench.ground import place, rounds
from tests.e2e.stack import wait_for

ROUNDS = 5
SECONDS = 4
WARM_S = 1
CONNECTIONS = 32
BODY_BYTES = 7_700
PROBOT = "14.3.2"
ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".bench" / "probot"
_PROBOT_JS = """\
import { createServer } from "node:http";
import { createNodeMiddleware, createProbot } from "probot";
const [port] = process.argv.slice(2);
const middleware = await createNodeMiddleware(() => {}, { probot: createProbot() });
createServer(async (request, response) => {
  if (!(await middleware(request, response))) response.writeHead(404).end();
}).listen(Number(port), "127.0.0.1");
"""


@dataclass
class Server:
    """One that takes deliveries."""

    name: str
    port: int
    path: str
    pid: int
    cpu_ms: list[float] = field(default_factory=list)
    """Of one processor, for one push."""
    per_s: list[float] = field(default_factory=list)
    p99_ms: list[float] = field(default_factory=list)
    sender_cpu: list[float] = field(default_factory=list)
    answered: int = 0

    def measured(self, seconds: float, secret: str, body: Path, *, counts: bool = True) -> None:
        """One round."""
        before_s = cpu_s(self.pid)
        argv = [sys.executable, "-m", "tests.bench.pushes", str(self.port), self.path, str(seconds), str(CONNECTIONS)]
        done = subprocess.run([*argv, secret, str(body)], capture_output=True, text=True, cwd=ROOT, timeout=120)
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)
        assert told["refused"] == 0, f"{self.name}: {told}"
        self.answered += told["answered"]
        if counts:
            self.per_s.append(told["per_s"])
            self.p99_ms.append(told["p99_ms"])
            self.sender_cpu.append(told["cpu"])
            self.cpu_ms.append(1000 * (cpu_s(self.pid) - before_s) / told["answered"])


def cpu_s(pid: int) -> float:
    """Seconds of processors that a process has had."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def probot() -> str:
    """Have Probot in its cache; why it can't be had, "" if it is there."""
    if not shutil.which("node") or not shutil.which("npm"):
        return "no Node and npm here"
    if (CACHE / "node_modules" / "probot" / "package.json").exists():
        return ""
    CACHE.mkdir(parents=True, exist_ok=True)
    (CACHE / "package.json").write_text(json.dumps({"name": "peer", "private": True, "type": "module"}))
    argv = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", f"probot@{PROBOT}"]
    try:
        done = subprocess.run(argv, cwd=CACHE, capture_output=True, text=True, timeout=180)
    except subprocess.TimeoutExpired:
        return "npm could not install Probot within 3 minutes"
    return "" if done.returncode == 0 else f"npm could not install Probot: {done.stderr.strip().splitlines()[-1][:200]}"


@contextmanager
def serving(argv: list[str], environment: Mapping[str, str], port: int, log: Path) -> Iterator[int]:
    """A server, up until the end; its pid."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    with log.open("wb") as file:
        process = subprocess.Popen(argv, env=kept | dict(environment), stdout=file, stderr=file, cwd=ROOT)
    try:

        def listens() -> bool:
            assert process.poll() is None, log.read_text()[-2000:]
            with socket.socket() as client:
                return client.connect_ex(("127.0.0.1", port)) == 0

        wait_for(listens, 60, lambda: log.read_text()[-2000:])
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _pem() -> str:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    form, plain = serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, form, plain).decode()


def _body() -> bytes:
    """A push as GitHub sends it, in size: what is in it nobody reads."""
    plain = {"ref": "refs/heads/main", "before": "0" * 40, "after": "a" * 40, "repository": {"id": 1}, "commits": []}
    commit = {"id": "b" * 40, "message": "a change", "author": {"name": "Mona", "email": "mona@example.invalid"}}
    size = len(json.dumps(plain))
    plain["commits"] = [commit] * ((BODY_BYTES - size - 100) // (len(json.dumps(commit)) + 2))
    plain["padding"] = ""
    plain["padding"] = "x" * (BODY_BYTES - len(json.dumps(plain)))
    return json.dumps(plain).encode()


def _all(stack: ExitStack, root: Path, secret: str, why_no_probot: str) -> list[Server]:
    """Ours first, then what stands beside it."""
    pem, servers = _pem(), []

    def start(name: str, path: str, argv: list[str], environment: Mapping[str, str]) -> None:
        port = free_port("127.0.0.1")
        given = [str(port) if each == "PORT" else each for each in argv]
        log = root / f"{len(servers)}.log"
        pid = stack.enter_context(serving(given, {**environment, "PORT": str(port)}, port, log))
        servers.append(Server(name, port, path, pid))

    app = {"GITHUB_APP_ID": "1", "GITHUB_PRIVATE_KEY": pem, "GITHUB_WEBHOOK_SECRET": secret}
    ours = {**app, "DATA_DIR": str(root / "data"), "LOG_LEVEL": "warning", "ISOLATION": "none"}
    peer = [sys.executable, "-m", "tests.bench.intake_peers"]
    start("ours", "/webhook", [sys.executable, "-m", "ci_bot.cli", "web"], ours)
    if not why_no_probot:
        (CACHE / "server.mjs").write_text(_PROBOT_JS)
        theirs = {"APP_ID": "1", "PRIVATE_KEY": pem, "WEBHOOK_SECRET": secret, "NODE_ENV": "production"}
        argv = ["node", str(CACHE / "server.mjs"), "PORT"]
        start("Probot", "/api/github/webhooks", argv, {**theirs, "LOG_LEVEL": "fatal"})
    start("bare Starlette", "/webhook", [*peer, "starlette", "PORT"], {"SECRET": secret})
    start("nothing but an answer", "/webhook", [*peer, "nothing", "PORT"], {})
    return servers


def measure() -> Iterator[Row]:
    """The row."""
    why_no_probot = probot()
    secret = secrets.token_hex(32)
    with place() as root, ExitStack() as stack:
        (root / "data").mkdir(mode=0o700)
        body = root / "push.json"
        body.write_bytes(_body())
        servers = _all(stack, root, secret, why_no_probot)
        for each in servers:
            each.measured(WARM_S, secret, body, counts=False)
        for _ in range(rounds(ROUNDS)):
            for each in servers:
                each.measured(SECONDS, secret, body)
                time.sleep(0.2)
        stored = _stored(root / "data" / "descent.db")
        assert stored == servers[0].answered, f"{stored} of {servers[0].answered} acknowledged deliveries are stored"
    yield _row(servers, why_no_probot, len(_body()))


def _stored(database: Path) -> int:
    engine = open_engine(f"sqlite:///{database}")
    try:
        with reading(engine) as connection:
            return int(connection.execute(select(func.count()).select_from(delivery)).scalar_one())
    finally:
        engine.dispose()


def _row(servers: list[Server], why_no_probot: str, size: int) -> Row:
    def figures(of: Server) -> tuple[Figure, Figure, Figure]:
        words = "answered 202" if of is servers[0] else of.name
        return (
            Figure(words, "/s", tuple(of.per_s)),
            Figure(f"{words}, p99", "ms", tuple(of.p99_ms)),
            Figure(f"{words}, processor for one", "ms", tuple(of.cpu_ms)),
        )

    ours, others = figures(servers[0]), servers[1:]
    reaches, notes = [], [f"not beside Probot: {why_no_probot}"] if why_no_probot else []
    if not why_no_probot:
        rate, p99, _ = figures(others[0])
        reaches = [
            Reach("pushes a second ≥ 1 × Probot's", ours[0].median / rate.median, 1.0, at_least=True),
            Reach("p99 ≤ 1 × Probot's", ours[1].median / p99.median, 1.0),
        ]
        notes.append(f"Probot {PROBOT} on Node's own server, no handler: it verifies, parses and stores nothing.")
    notes += [
        f"{CONNECTIONS} keep-alive connections, {size:,} bytes each, rounds of {SECONDS} s; sender and server share "
        "the processors; p99 from the request's first byte to the answer's last, by the sender's clock.",
        "Ours: `descent web` alone on a SQLite file (synchronous=FULL); every delivery answered was found in it.",
        f"The sender took {100 * max(servers[0].sender_cpu):.0f} % of a processor beside ours; the last one beside it "
        "answers whatever comes: what the sender can do.",
    ]
    return Row("intake", ours, tuple(f for each in others for f in figures(each)), tuple(reaches), tuple(notes))
