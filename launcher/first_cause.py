"""What the ends of a gang's nodes mean, and which of several was the first cause. Pure."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from signal import Signals
from typing import Any

from launcher.attempt import Ended
from launcher.experiment import HeldNode, NodeState
from launcher.node_types import Daemon, Exit, NodeStatus
from launcher.state import VERDICTS, Budget, Cause

AVALANCHE_S = 1.0
"""Failures so close together are one; what was killed then comes before what merely exited."""
_MPIRUNS_OWN = frozenset({"SIGTERM", "SIGHUP", "SIGPIPE"})
"""How a daemon may end that was told to, or whose mpirun has gone."""
_NOTICED_S = 0.25
"""How late it may be noticed that an mpirun has gone."""
_IN_CONSEQUENCE = frozenset({"SIGABRT", "SIGTERM", "SIGHUP", "SIGPIPE", "SIGINT"})
"""How a command ends itself, or is ended by its own launcher, when its peers have gone."""
_SHELLS_SIGNAL = 128
"""What a shell adds to the number of the signal that killed what it ran, and exits with."""


@dataclass(frozen=True)
class NodeEnd:
    """How a node's part ended, at which time of our clock."""

    node: HeldNode
    end: Ended
    at: float
    ran_s: float = 0.0
    well_at: float = -math.inf
    """Of one that was lost: until when, at least, it was not."""

    @property
    def ours(self) -> bool:
        """It is no fault of the command's."""
        return VERDICTS[self.end.cause].budget is Budget.INFRASTRUCTURE

    @property
    def imposed(self) -> bool:
        """It came from outside, and others may have failed for it."""
        return self.ours or self.end.cause is Cause.SHUTDOWN

    @property
    def failed(self) -> bool:
        """It was no success."""
        return self.end.cause is not Cause.SUCCEEDED


def first_of(ends: Sequence[NodeEnd]) -> NodeEnd:
    """The first cause among the ends of one gang.

    What is imposed (a node, a guardian lost, a shutdown) comes before what a command did, which may be its
    consequence, unless the node was still well after that. Among commands the earliest counts; within AVALANCHE_S one
    that was killed, or ran out of something, comes before one that exited, or ended itself for its peers' sake.
    """
    commands = [end for end in ends if not end.imposed]
    earliest = min((end.at for end in commands), default=math.inf)
    imposed = [end for end in ends if end.imposed and end.well_at <= earliest + AVALANCHE_S]
    if imposed:
        return min(imposed, key=lambda end: end.at)
    return min(
        (end for end in commands if end.at <= earliest + AVALANCHE_S),
        key=lambda end: (_in_consequence(end.end), end.at),
    )


def _in_consequence(end: Ended) -> bool:
    """It may be what another's end has made of a command."""
    if end.cause is Cause.COMMAND_EXITED:
        signal = _signal_of(end.detail.get("exit_code") or 0)
        return signal is None or signal in _IN_CONSEQUENCE
    return end.cause is Cause.COMMAND_KILLED and end.detail.get("signal") in _IN_CONSEQUENCE


def _signal_of(exit_code: int) -> str | None:
    """The signal that a shell tells of what it ran by its own exit code, if it does."""
    try:
        return Signals(exit_code - _SHELLS_SIGNAL).name
    except ValueError:
        return None


def won(ends: Sequence[NodeEnd], nodes: Sequence[HeldNode]) -> NodeEnd | None:
    """The last end of the nodes that decide, when all of them have ended well."""
    well = {end.node.key: end for end in ends if not end.failed}
    deciding = [well.get(node.key) for node in nodes if node.decides]
    known = [end for end in deciding if end]
    return max(known, key=lambda end: end.at) if len(known) == len(deciding) else None


def decided(ends: Sequence[NodeEnd], nodes: Sequence[HeldNode]) -> NodeEnd | None:
    """The end that the ends so far mean for the gang: a first failure, or a success; None as long as neither is there.

    What a command came to after those that decide had ended well, or so shortly before that their end may have made
    that of it, is no failure.
    """
    well = won(ends, nodes)
    failed = [end for end in ends if end.failed]
    if not failed:
        return well
    first = first_of(failed)
    if well is None or first.ours:
        return first
    before = [end for end in failed if not end.ours and not _made_by(well, end)]
    return first_of(before) if before else well


def _made_by(well: NodeEnd, failed: NodeEnd) -> bool:
    """Whether the good end of those that decide may have made a failure of another's.

    Before they are on record as ended they leave their peers, for up to AVALANCHE_S. But that takes nobody's memory.
    """
    may_be = failed.imposed or _in_consequence(failed.end)
    return failed.at >= well.at - (AVALANCHE_S if may_be else 0.0)


def shown(end: NodeEnd) -> HeldNode:
    """The node as a person is shown it after its end."""
    if end.ours:
        return replace(end.node, state=NodeState.LOST)
    detail: Mapping[str, Any] = end.end.detail
    code = 0 if end.end.cause is Cause.SUCCEEDED else detail.get("exit_code")
    return replace(end.node, state=NodeState.ENDED, exit_code=code, signal=detail.get("signal"))


def end_of(node: HeldNode, status: NodeStatus) -> Ended | None:
    """What a node's word means for the attempt; None while its command runs.

    A command that was stopped was not stopped by us, who do so in NETWORK_TEARDOWN only.
    """
    if status.phase == "ended" and status.exit:
        return _of_record(status.exit, node)
    if status.phase == "lost":
        return Ended(Cause.GUARDIAN_LOST, node=node.host)
    if status.phase != "running":
        return Ended(Cause.NODE_LOST, node=node.host, why="it does not know the attempt any more")
    return None


def _of_record(record: Exit, node: HeldNode) -> Ended:
    if record.detail.get("put_down"):
        return Ended(Cause.SHUTDOWN)
    if record.detail.get("stopped"):
        return Ended(Cause.NODE_LOST, node=node.host, why="it was cut off and ended what it ran")
    who = {"who": node.words, "rank": node.rank, "at": record.at} if node.role else {}
    return Ended(record.cause, node=node.host, **who, **record.told())


# --- the daemons of an mpirun ---


def is_loss(daemon: Daemon, at: float, mpirun_gone_at: float | None) -> bool:
    """Whether a daemon's end is one that its mpirun did not want.

    Args:
        daemon: the daemon.
        at: when it ended, on our clock.
        mpirun_gone_at: when its mpirun was seen to have gone, if it has, on the same clock. The daemon of one that was
            killed exits with an error, and the command may have had its reasons: `timeout -s KILL 60 mpirun …`. But
            where the daemon was killed it is the mpirun that goes for that, at once, and may call it a success (Open
            MPI 5): which of the two was first is no question of clocks.
    """
    if daemon.signal:
        return daemon.signal not in _MPIRUNS_OWN
    return bool(daemon.exit_code) and (mpirun_gone_at is None or at < mpirun_gone_at - _NOTICED_S)


def daemon_lost(node: HeldNode, daemon: Daemon) -> Ended:
    """The end of a gang for one of its daemons."""
    how = f"was killed by {daemon.signal}" if daemon.signal else f"exited with code {daemon.exit_code}"
    return Ended(Cause.DAEMON_LOST, node=node.host, who=node.words, rank=node.rank, why=how)
