"""The fork server: has everything imported, and forks a guardian for each order, until its agent goes."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket

from .begin import begin
from .cgroup import parents

_MESSAGE_BYTES = 1
_NAME = "/proc/self/comm"


def serve(agent: socket.socket) -> None:
    """Fork for each message, which brings two descriptors: where the order is, and where the answer goes."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # whatever whoever started us ignored
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    _restore_priority()
    parents()  # known before anybody needs it
    gc.freeze()  # what is here already stays shared with those to come
    while True:
        message, fds, _, _ = socket.recv_fds(agent, _MESSAGE_BYTES, 2, socket.MSG_CMSG_CLOEXEC)
        if not message or len(fds) < 2:  # the agent is gone; or we have no descriptor left, and another one will
            return
        try:
            pid = os.fork()
        except OSError as error:
            os.write(fds[1], f"no process could be started: {error.strerror}".encode())
        else:
            if pid == 0:
                _leave(agent, *fds)
                begin()
                os._exit(0)  # at once: nothing of ours is left to tidy up, and someone waits for our end
            os.waitpid(pid, 0)  # it forks once more, so that the guardian is nobody's child
        for fd in fds:
            os.close(fd)


def _leave(agent: socket.socket, order: int, answer: int) -> None:
    """Be a process of its own, with the order on descriptor 0 and the answer on 1 and 2."""
    agent.detach()
    os.setsid()
    for source, target in ((order, 0), (answer, 1), (answer, 2)):
        os.dup2(source, target)
    os.close(order)
    os.close(answer)
    os.write(1, b"\n")  # the order has come
    with open(_NAME, "w") as file:
        file.write("guardian")  # as `ps` and `top` show it


def _restore_priority() -> None:
    """Undo what Ray does to its workers, as far as this user may: niceness 15, first to be killed for memory."""
    with contextlib.suppress(OSError):  # only root may go up again
        os.setpriority(os.PRIO_PROCESS, 0, 0)
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:  # likewise
        file.write("0")
