"""The webhook over HTTP, in all of web, with the real store behind it."""

import hashlib
import hmac
import http.client
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from ci_bot.settings import AppCredentials, Settings
from ci_bot.store import deliveries, migrate, open_engine, reading
from ci_bot.web.guard import HEADERS
from ci_bot.web.serve import Server, configured, create_app
from ci_bot.web.webhook import BODY_LIMIT_BYTES

SECRET = b"secret"
PAYLOADS = Path(__file__).parents[3] / "shared" / "github" / "webhooks"


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = open_engine(f"sqlite:///{tmp_path}/descent.db")
    migrate(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def port(engine: Engine, tmp_path: Path) -> Iterator[int]:
    """The loopback port of a running web server."""
    settings = Settings(data_dir=tmp_path, environment_credentials=AppCredentials(1, "", (SECRET.decode(),)))
    server = Server(configured(settings, create_app(settings)), lambda: None)
    # It listens before the server runs: who connects early waits in the backlog.
    listening = socket.create_server(("127.0.0.1", 0), backlog=64)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    yield listening.getsockname()[1]
    server.should_exit = True
    thread.join()
    listening.close()


def post(connection: http.client.HTTPConnection, guid: str, event: str, body: bytes) -> tuple[int, str]:
    headers = {
        "Content-Type": "application/json",
        "X-GitHub-Delivery": guid,
        "X-GitHub-Event": event,
        "X-Hub-Signature-256": "sha256=" + hmac.new(SECRET, body, hashlib.sha256).hexdigest(),
    }
    connection.request("POST", "/webhook", body, headers)
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def test_githubs_real_payloads_are_stored_byte_for_byte(engine: Engine, port: int) -> None:
    files = sorted(PAYLOADS.glob("*/*.json"))
    if not files:
        pytest.skip(f"needs GitHub's example payloads in {PAYLOADS}")
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    sent = []
    for number, file in enumerate(files):
        body = file.read_bytes()
        assert post(connection, str(number), file.parent.name, body) == (202, "stored\n"), file
        # As GitHub sends it, without the spaces: other bytes, another signature.
        compact = json.dumps(json.loads(body), separators=(",", ":")).encode()
        assert post(connection, f"{number} compact".replace(" ", "-"), file.parent.name, compact)[0] == 202, file
        sent += [(file.parent.name, body), (file.parent.name, compact)]
    assert post(connection, "0", files[0].parent.name, b"{}") == (202, "duplicate\n")
    connection.close()
    with reading(engine) as transaction:
        found = deliveries.unsorted(transaction, now=1e12, limit=1000)
    assert [(delivery.event, delivery.body) for delivery in found] == sent


@pytest.mark.parametrize("framing", [f"Content-Length: {BODY_LIMIT_BYTES + 1}", "Transfer-Encoding: chunked"])
def test_a_body_above_githubs_limit_is_cut_off(engine: Engine, port: int, framing: str) -> None:
    lines = ("POST /webhook HTTP/1.1", "Host: x", framing, f"X-Hub-Signature-256: sha256={'0' * 64}", "", "")
    megabyte = b"x" * 2**20
    sent_bytes = 0
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall("\r\n".join(lines).encode())
        try:
            while sent_bytes < 4 * BODY_LIMIT_BYTES:
                connection.sendall(b"100000\r\n" + megabyte + b"\r\n")
                sent_bytes += len(megabyte)
        except OSError:
            pass  # the server has closed: what it had to say is in the buffer, or lost with the reset
        else:
            pytest.fail(f"the server read on after {sent_bytes} bytes")
    with reading(engine) as transaction:
        assert deliveries.backlog(transaction) == (0, None)


def test_the_answer_to_a_body_above_the_limit_is_413(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        lines = ("POST /webhook HTTP/1.1", "Host: x", f"Content-Length: {BODY_LIMIT_BYTES + 1}", "", "")
        connection.sendall("\r\n".join(lines).encode())
        answer = connection.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert answer.endswith(b"GitHub's own limit.\n")


def test_other_methods_are_not_allowed(port: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", "/webhook")
    answer = connection.getresponse()
    assert (answer.status, answer.headers["Allow"]) == (405, "POST")
    connection.close()


def test_the_headers_of_a_strict_site_are_there_once(port: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("POST", "/webhook", b"{}")
    answer = connection.getresponse()
    assert answer.status == 401
    assert {name: answer.headers.get_all(name) for name in HEADERS} == {n: [value] for n, value in HEADERS.items()}
    connection.close()
