"""Whether the nodes of a gang reach each other: one side listens and drops whoever comes, the other side tries."""

import errno
import selectors
import socket
import struct
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from launcher.node_types import Peer, Unreached

CONNECT_S = 10.0
_PAUSE_S = 0.1
_BACKLOG = 1024
_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER: a close resets the connection, so that no TIME_WAIT stays on a port that a command binds next."""
_WORDS = {
    errno.ECONNREFUSED: "refused",
    errno.EHOSTUNREACH: "no route",
    errno.ENETUNREACH: "no route",
    errno.ETIMEDOUT: "timed out",
}


class Doors:
    """Listens on ports, in a thread of its own while there are any."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._listeners: dict[int, socket.socket] = {}
        self._selector: selectors.BaseSelector | None = None

    def open(self, port: int) -> bool:
        """Listen on a port, on every address; False when somebody else uses it."""
        with self._lock:
            if port in self._listeners:
                return True
            listener = _listener(port)
            if listener is None:
                return False
            self._listeners[port] = listener
            if self._selector is None:
                self._selector = selectors.DefaultSelector()
                threading.Thread(target=self._serve, args=(self._selector,), name="doors", daemon=True).start()
            self._selector.register(listener, selectors.EVENT_READ)
        return True

    def shut(self, port: int) -> None:
        """Listen on it no more; when this returns, the port can be bound."""
        with self._lock:
            listener = self._listeners.pop(port, None)
            if listener is None or self._selector is None:
                return
            self._selector.unregister(listener)
            listener.close()
            if not self._listeners:
                self._selector = None  # its thread sees that within its pause

    def _serve(self, selector: selectors.BaseSelector) -> None:
        with selector:
            while self._selector is selector:
                for key, _ in selector.select(_PAUSE_S * 10):
                    with self._lock, suppress(OSError):  # it was shut meanwhile, or whoever came has gone
                        connection, _ = key.fileobj.accept()  # type: ignore[union-attr]  # only sockets are in it
                        drop(connection)


def _listener(port: int) -> socket.socket | None:
    """A socket that listens, bound as strictly as any program may bind; None when the port is in use."""
    both = socket.has_dualstack_ipv6()
    listener = socket.socket(socket.AF_INET6 if both else socket.AF_INET)
    try:
        if both:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.setblocking(False)
        listener.bind(("", port))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        if error.errno in {errno.EADDRINUSE, errno.EACCES}:
            return None
        raise
    return listener


def drop(connection: socket.socket) -> None:
    """Reset a connection."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    connection.close()


def unreached(peers: Sequence[Peer], timeout_s: float = CONNECT_S) -> tuple[Unreached, ...]:
    """Try all peers at once, each again and again until it answers or the time is over; who did not answer, and why."""
    if not peers:
        return ()
    with ThreadPoolExecutor(len(peers), "probe") as pool:
        tried = zip(peers, pool.map(lambda peer: _why_not(peer, timeout_s), peers), strict=True)
        return tuple(Unreached(peer.rank, peer.address, peer.port, why) for peer, why in tried if why)


def _why_not(peer: Peer, timeout_s: float) -> str:
    """Why a peer can't be reached; empty when it can."""
    until, why = time.monotonic() + timeout_s, ""
    while (left_s := until - time.monotonic()) > 0:
        try:
            drop(socket.create_connection((peer.address, peer.port), timeout=left_s))
        except ConnectionResetError:  # it was let in, and dropped before we looked
            return ""
        except TimeoutError:
            why = why or _WORDS[errno.ETIMEDOUT]  # the last try is cut short: what was said before says more
        except OSError as error:
            why = _WORDS.get(error.errno or 0, str(error))
        else:
            return ""
        time.sleep(min(_PAUSE_S, max(0.0, until - time.monotonic())))
    return why
