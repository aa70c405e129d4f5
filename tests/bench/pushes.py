"""Sends signed deliveries over some keep-alive connections for a while, and says how many were answered and how fast.

`python -m tests.bench.pushes PORT PATH SECONDS CONNECTIONS SECRET BODY_FILE`: raw sockets on one event loop, the
signature computed once, since only the GUID differs; one JSON line in the end.
"""

import asyncio
import hashlib
import hmac
import json
import sys
import time
import uuid
from pathlib import Path
from typing import cast

import uvloop

END = b"\r\n\r\n"


class Connection(asyncio.Protocol):
    """One delivery after another, each once the one before it was answered."""

    def __init__(self, head: bytes, body: bytes, until: float) -> None:
        self.head, self.body, self.until = head, body, until
        self.took_s: list[float] = []
        self.refused = 0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._got = b""
        self._sent_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:

        self._transport = cast("asyncio.Transport", transport)
        self._send()

    def _send(self) -> None:
        self._sent_at = time.perf_counter()
        self._transport.write(self.head + uuid.uuid4().hex.encode() + END + self.body)

    def data_received(self, data: bytes) -> None:
        self._got += data
        head, end, body = self._got.partition(END)
        if not end or len(body) < _length(head):
            return
        now = time.perf_counter()
        self.took_s.append(now - self._sent_at)
        self.refused += head[9:12] not in (b"202", b"200")
        self._got = b""
        if now < self.until:
            self._send()
        else:
            self._transport.close()

    def connection_lost(self, why: Exception | None) -> None:
        if not self.done.done():
            self.done.set_result(None)


def _length(head: bytes) -> int:
    _, found, rest = head.lower().partition(b"content-length:")
    return int(rest.partition(b"\r\n")[0]) if found else 0


async def main() -> None:
    """Send, then tell."""
    port, path, seconds, count, secret, file = sys.argv[1:]
    body = Path(file).read_bytes()
    signature = hmac.digest(secret.encode(), body, "sha256").hex()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nUser-Agent: GitHub-Hookshot/bench\r\nX-GitHub-Event: push\r\n"
        f"X-Hub-Signature-256: sha256={signature}\r\nX-GitHub-Delivery: "
    ).encode()
    loop = asyncio.get_running_loop()
    began, cpu_s = time.perf_counter(), time.process_time()
    made = [
        await loop.create_connection(lambda: Connection(head, body, began + float(seconds)), "127.0.0.1", int(port))
        for _ in range(int(count))
    ]
    connections = [protocol for _, protocol in made]
    await asyncio.gather(*(each.done for each in connections))
    took_s = time.perf_counter() - began
    every = sorted(each for connection in connections for each in connection.took_s)
    told = {
        "answered": len(every),
        "refused": sum(each.refused for each in connections),
        "per_s": len(every) / took_s,
        "p99_ms": 1000 * every[int(0.99 * (len(every) - 1))],
        "median_ms": 1000 * every[len(every) // 2],
        "cpu": (time.process_time() - cpu_s) / took_s,
        "digest": hashlib.sha256(body).hexdigest(),
    }
    print(json.dumps(told))


if __name__ == "__main__":
    uvloop.run(main())
