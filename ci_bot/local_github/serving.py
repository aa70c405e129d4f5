"""How uvicorn serves the local GitHub: each request can end its own connection."""

import asyncio
import socket

import uvicorn
from starlette.applications import Starlette
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ci_bot.local_github.server import ABORT

SHUTDOWN_S = 2
KEEP_ALIVE_S = 75
"""Longer than any client here keeps a connection: else one is used at the moment in which it is closed."""


class Breakable(HttpToolsProtocol):
    """HTTP whose requests find in their scope how to abort the connection: a fault that ASGI has no word for."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection."""
        super().connection_made(transport)
        # asyncio does this only for sockets that name TCP, which those of socket.create_server do not: without it the
        # body of an answer waits 40 ms until the client acknowledges its head
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        served = self.app

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            scope.setdefault("extensions", {})[ABORT] = transport.abort
            await served(scope, receive, send)

        self.app = app


def config(app: Starlette) -> uvicorn.Config:
    """The settings of a server for an application of `create_app`."""
    return uvicorn.Config(
        app,
        http=Breakable,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=SHUTDOWN_S,
        timeout_keep_alive=KEEP_ALIVE_S,
    )
