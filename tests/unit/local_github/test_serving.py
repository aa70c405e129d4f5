"""How the local GitHub is served."""

import asyncio
import socket

from httpx2._config import DEFAULT_LIMITS
from starlette.applications import Starlette
from uvicorn.server import ServerState

from ci_bot.local_github.serving import Breakable, config


def test_a_connection_that_a_client_still_keeps_is_not_closed_under_it() -> None:
    assert config(Starlette()).timeout_keep_alive > 2 * (DEFAULT_LIMITS.keepalive_expiry or 0.0)


def test_no_part_of_an_answer_waits_for_the_clients_acknowledgement() -> None:
    served = config(Starlette())
    served.load()

    async def connected(connection: socket.socket) -> None:
        Breakable(served, ServerState(), {}).connection_made(asyncio.Transport(extra={"socket": connection}))

    # made as socket.create_server makes it: asyncio would let such a one wait
    with socket.socket() as connection:
        asyncio.run(connected(connection))
        assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
