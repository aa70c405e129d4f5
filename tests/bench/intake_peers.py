"""What stands beside our intake: `python -m tests.bench.intake_peers starlette|nothing PORT`, the secret in SECRET.

`starlette` verifies the signature and stores nothing; `nothing` answers whatever comes, which is what the sender itself
can do at most.
"""

import asyncio
import hmac
import os
import sys
from typing import cast

import uvicorn
import uvloop
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

SECRET = os.environ.get("SECRET", "").encode()


async def verify(request: Request) -> Response:
    """202 to what is signed."""
    body = await request.body()
    given = request.headers.get("X-Hub-Signature-256", "").removeprefix("sha256=")
    signed = hmac.compare_digest(hmac.digest(SECRET, body, "sha256").hex(), given)
    return PlainTextResponse("verified\n" if signed else "no\n", 202 if signed else 401)


class Answering(asyncio.Protocol):
    """202 to each request, by the length of its body alone."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:

        self._transport, self._got = cast("asyncio.Transport", transport), b""

    def data_received(self, data: bytes) -> None:
        self._got += data
        head, end, body = self._got.partition(b"\r\n\r\n")
        if end and len(body) >= int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]):
            self._got = b""
            self._transport.write(b"HTTP/1.1 202 Accepted\r\nContent-Length: 7\r\n\r\nstored\n")


async def answer(port: int) -> None:
    """Until it is ended."""
    server = await asyncio.get_running_loop().create_server(Answering, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    kind, port = sys.argv[1], int(sys.argv[2])
    if kind == "nothing":
        uvloop.run(answer(port))
    app = Starlette(routes=[Route("/webhook", verify, methods=["POST"])])
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=port,
        loop="uvloop",
        http="httptools",
        ws="none",
        log_level="error",
        access_log=False,
    )
