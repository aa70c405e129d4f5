"""A network of its own for the tests that start servers: only loopback, and no port that anybody else uses."""

import contextlib
import ctypes
import fcntl
import os
import socket
import struct
from collections.abc import Iterator

CLONE_NEWNET = 0x40000000  # linux/sched.h
SIOCGIFFLAGS, SIOCSIFFLAGS = 0x8913, 0x8914  # linux/sockios.h
IFF_UP = 1
_IFREQ = "16sh22x"


def enter() -> str:
    """Move this process into a network namespace of its own; to be called before it has threads.

    Returns:
        Why it stayed where it was; empty when it moved.
    """
    if os.geteuid() != 0:
        return "not root: tests share the host's network"
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET) != 0:
        return f"tests share the host's network: unshare: {os.strerror(ctypes.get_errno())}"
    _loopback_up()
    return ""


@contextlib.contextmanager
def aside() -> Iterator["Network | None"]:
    """A namespace beside the one this thread is in; None where there can be none."""
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    if enter():
        os.close(before)
        yield None
        return
    network = Network(before, os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC))
    _set(network.outside)
    try:
        yield network
    finally:
        os.close(network.inside)
        os.close(network.outside)


class Network:
    """Two namespaces by their descriptors; what a thread starts while it is inside stays inside."""

    def __init__(self, outside: int, inside: int) -> None:
        self.outside, self.inside = outside, inside

    def entered(self) -> contextlib.AbstractContextManager[None]:
        """This thread is inside for a while, then where it was before."""
        return _visited(self.inside)

    def left(self) -> contextlib.AbstractContextManager[None]:
        """This thread is outside for a while, where the package index is, then where it was before."""
        return _visited(self.outside)


@contextlib.contextmanager
def _visited(namespace: int) -> Iterator[None]:
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    _set(namespace)
    try:
        yield
    finally:
        _set(before)
        os.close(before)


def _set(namespace: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


def _loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack(_IFREQ, b"lo", 0)
        _, flags = struct.unpack(_IFREQ, fcntl.ioctl(control, SIOCGIFFLAGS, request))
        fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack(_IFREQ, b"lo", flags | IFF_UP))
