"""A server that breaks off, drips, floods or lures: nothing hangs, nothing is left, no token leaves."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from ci_bot.github import GitHubError, TooLarge, Unavailable
from ci_bot.github.transport import Transport, open_http

Serve = Callable[[asyncio.StreamWriter], Awaitable[None]]
TOKEN = "ghs_42_abcdefghijklmnop.qrstuvwxyz"


async def with_server(serve: Serve, work: Callable[[str], Awaitable[Any]]) -> list[bytes]:
    """Run `work` with the address of a server that answers every request by `serve`; the requests it got."""
    requests: list[bytes] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            requests.append(await reader.readuntil(b"\r\n\r\n"))
            await serve(writer)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client left, which is what some tests want
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server:
        await work(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    return requests


def says(answer: bytes) -> Serve:
    async def serve(writer: asyncio.StreamWriter) -> None:
        writer.write(answer)

    return serve


async def drip(writer: asyncio.StreamWriter) -> None:
    """A byte now and then, which no read timeout notices."""
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n")
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.02)


def failure(serve: Serve, destination: Path | None = None, timeout_s: float = 30.0) -> GitHubError:
    """What a download (or, without destination, a plain call) raises."""
    found: list[GitHubError] = []

    async def work(url: str) -> None:
        transport = Transport(open_http(), url, max_bytes=1000)
        try:
            call = transport.getitem("/x", oauth_token=TOKEN)
            if destination is not None:
                call.close()
                call = transport.download(
                    f"{url}/x", TOKEN, destination, max_bytes=1000, timeout_s=timeout_s, headers={}
                )
            with pytest.raises(GitHubError) as caught:
                await call
            found.append(caught.value)
        finally:
            await transport.close()

    asyncio.run(with_server(serve, work))
    return found[0]


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 900\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 4\r\n\r\nhalf",
    ],
)
def test_half_an_answer_is_no_answer(answer: bytes, tmp_path: Path) -> None:
    assert isinstance(failure(says(answer)), Unavailable)
    assert isinstance(failure(says(answer), tmp_path / "code.tar.gz"), Unavailable)
    assert list(tmp_path.iterdir()) == []


def test_an_endless_answer_is_cut_off() -> None:
    async def flood(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n")
        while True:
            writer.write(b"x" * 10_000)
            await writer.drain()

    assert isinstance(failure(flood), TooLarge)


def test_a_dripping_download_ends_at_its_deadline(tmp_path: Path) -> None:
    error = failure(drip, tmp_path / "code.tar.gz", timeout_s=0.2)
    assert isinstance(error, Unavailable)
    assert "no complete answer" in str(error)
    assert list(tmp_path.iterdir()) == []


def test_nobody_listening_is_unavailable() -> None:
    async def work() -> None:
        server = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        server.close()
        await server.wait_closed()
        transport = Transport(open_http(), f"http://127.0.0.1:{port}", max_bytes=1000)
        with pytest.raises(Unavailable, match="ConnectError"):
            await transport.getitem("/x", oauth_token=TOKEN)
        await transport.close()

    asyncio.run(work())


@pytest.mark.parametrize("download", [True, False])
def test_a_lure_to_another_port_gets_no_token(download: bool, tmp_path: Path) -> None:
    lured: list[bytes] = []

    async def main() -> None:
        async def outer(evil: str) -> None:
            lure = says(f"HTTP/1.1 302 Found\r\nlocation: {evil}/take\r\ncontent-length: 0\r\n\r\n".encode())

            async def inner(url: str) -> None:
                transport = Transport(open_http(), url, max_bytes=1000)
                try:
                    if download:
                        file = tmp_path / "x"
                        await transport.download(f"{url}/x", TOKEN, file, max_bytes=9, timeout_s=9.0, headers={})
                    else:
                        with pytest.raises(Unavailable, match="another host"):
                            await transport.getitem("/x", oauth_token=TOKEN)
                finally:
                    await transport.close()

            (request,) = await with_server(lure, inner)
            assert TOKEN.encode() in request

        lured.extend(await with_server(says(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\ntar"), outer))

    asyncio.run(main())
    assert len(lured) == (1 if download else 0)
    assert all(TOKEN.encode() not in request and b"authorization" not in request.lower() for request in lured)


def test_no_cookie_is_kept_between_calls() -> None:
    answer = b"HTTP/1.1 200 OK\r\nset-cookie: session=mona; Path=/\r\ncontent-length: 0\r\n\r\n"

    async def work(url: str) -> None:
        transport = Transport(open_http(), url, max_bytes=1000)
        await transport.getitem("/x")
        await transport.getitem("/x")
        await transport.close()

    first, second = asyncio.run(with_server(says(answer), work))
    assert b"cookie" not in (first + second).lower()
