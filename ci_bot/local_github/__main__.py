"""`python -m ci_bot.local_github --root DIR [--port P]`: run the local GitHub until SIGTERM."""

import argparse
import json
import secrets
import signal
import socket
import sys
from pathlib import Path

import uvicorn

from ci_bot.local_github.page_key import page_key
from ci_bot.local_github.server import create_app
from ci_bot.local_github.serving import config


def main() -> None:
    """Listen on 127.0.0.1, say so in one line of JSON, and serve."""
    parser = argparse.ArgumentParser(prog="python -m ci_bot.local_github", description="A GitHub on this machine.")
    parser.add_argument("--root", type=Path, required=True, help="directory for its repositories")
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1; 0 takes a free one")
    parser.add_argument("--control-token-file", type=Path, help="where the control API's token is, or is to be written")
    wanted = parser.parse_args()
    # uvicorn raises the signal again once it has shut down: that is a clean end
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    token = _token(wanted.control_token_file)
    with socket.create_server(("127.0.0.1", wanted.port)) as listening:
        port = listening.getsockname()[1]
        url = f"http://127.0.0.1:{port}"
        server = Announcing(config(create_app(wanted.root, url=url, control_token=token)))
        server.words = {"url": url, "api_url": f"{url}/api/v3", "port": port}
        if wanted.control_token_file is None:
            server.words |= {"control_token": token, "opened": f"{url}/?key={page_key(token)}"}
        server.run(sockets=[listening])


class Announcing(uvicorn.Server):
    """A server that says when it listens."""

    words: dict[str, str | int]

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to listen, then print where."""
        await super().startup(sockets=sockets)
        print(json.dumps(self.words), flush=True)


def _token(file: Path | None) -> str:
    if file is not None and file.exists():
        return file.read_text().strip()
    token = secrets.token_hex(20)
    if file is not None:
        file.touch(mode=0o600)
        file.write_text(token)
    return token


if __name__ == "__main__":
    main()
