"""Why an experiment waits, and why it would wait for ever. Pure."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from ci_bot.report import amounts

_MOST_NAMED = 8
_LIMITS = {"max running": "MAX_RUNNING", "max running per repository": "MAX_RUNNING_PER_REPOSITORY"}


class Shortage(Protocol):
    """What an experiment in the queue needs and does not get; amounts by Ray's names: GPU, CPU, memory (bytes)."""

    @property
    def blocked(self) -> str:
        """What it waits for: "machines", "ahead", "unplaced", "max running" or "max running per repository"."""

    @property
    def needed(self) -> Mapping[str, float]:
        """By the first node that has no place; empty when a limit is what it waits for."""

    @property
    def free(self) -> Mapping[str, float]:
        """Of that, on the node that comes closest."""

    @property
    def missing(self) -> Mapping[str, float]:
        """The difference."""

    @property
    def host(self) -> str:
        """The node that comes closest; "" when there is none of this machine type now."""

    @property
    def ahead(self) -> int:
        """How many experiments come first."""

    @property
    def limit(self) -> int | None:
        """The limit that is reached."""


def why_pending(shortage: Shortage, *, machine_type: str = "", nodes: int = 1, quarantined: Sequence[str] = ()) -> str:
    """One sentence: what it waits for, what is free and missing, how many are ahead.

    Args:
        shortage: what the queue knows.
        machine_type: what the configuration asks for, "" for none.
        nodes: how many of them.
        quarantined: hosts that get nothing until they are proven clean.
    """
    if shortage.limit is not None:
        reached = f"{_LIMITS.get(shortage.blocked, 'the limit')}={shortage.limit}"
        return f"Waits for others to end: {reached} is reached; {_ahead(shortage.ahead)}."
    clauses = [_free(shortage), _ahead(shortage.ahead)]
    if shortage.blocked == "unplaced":
        clauses[0] = (
            "by Descent's count there is room, but Ray could not place it, so something else on the cluster uses that; "
            "it is tried again after growing pauses of up to half an hour"
        )
    if quarantined:
        gets = "gets" if len(quarantined) == 1 else "get"
        clauses.insert(1, f"{named(quarantined)} {gets} nothing until proven clean")
    asked = amounts.resources(_positive(shortage.needed))
    what = f"{nodes} × {machine_type} ({asked})" if machine_type else asked
    return f"Waits for {what}: {'; '.join(clauses)}."


def _free(shortage: Shortage) -> str:
    if not shortage.host:
        return "no such machine is here now"
    free = amounts.resources({name: shortage.free.get(name, 0) for name in _positive(shortage.needed)})
    missing = _positive(shortage.missing)
    if not missing:
        return f"the closest node, {shortage.host}, has {free} free"
    return f"the closest node, {shortage.host}, has {free} free and lacks {amounts.resources(missing)}"


def no_cluster(why: str) -> str:
    """That Ray does not answer."""
    return f"Waits for Ray, which does not answer: {why}."


def no_room(free_bytes: int) -> str:
    """That the disk on which logs and artifacts are kept is full."""
    return f"Waits for room on Descent's own disk, which has {amounts.size(free_bytes)} left."


def unsatisfiable(needs: str, largest: str | Mapping[str, float], fitting: Sequence[str] = ()) -> str:
    """Why an experiment can never run on what is declared here, and what to change.

    Args:
        needs: what it asks, in words: "8 GPUs", "2 nodes of 1 GPU".
        largest: what the largest node has; of Ray's resources only those that a machine type can ask for are told.
        fitting: machine types that this installation can give.
    """
    has = largest if isinstance(largest, str) else amounts.resources(_told(largest))
    change = f"Change machine-type to one of: {named(fitting)}." if fitting else "Ask for less, or add such a machine."
    return f"No machine here can ever run this: it needs {needs}, the largest node has {has}. {change}"


def too_many(needs: str, nodes: int, placeable: int, *, shared_hosts: bool) -> str:
    """Why a gang can never run here although each of its nodes could, and what to change.

    Args:
        needs: what it asks, in words: "4 nodes of 1 CPU".
        nodes: how many nodes it has.
        placeable: for how many of them there is a place at the same time.
        shared_hosts: whether several may be on one host.
    """
    if shared_hosts:
        has = f"this cluster has room for {placeable} of the {amounts.plural(nodes, 'node')} at a time"
        return f"No machines here can ever run this: it needs {needs}, and {has}. Ask for less, or add machines."
    has = f"this cluster has {placeable}" if placeable else "this cluster has none"
    return (
        f"No machines here can ever run this: it needs {amounts.plural(nodes, 'host')} ({needs}), {has}. "
        "Ask for less, add hosts, or let nodes share a host (ALLOW_SHARED_HOSTS=1)."
    )


def _told(total: Mapping[str, float]) -> dict[str, float]:
    """Not `node:10.0.0.5` and what else Ray counts; a missing GPU is told."""
    return {"GPU": total.get("GPU", 0), **{name: total[name] for name in ("CPU", "memory") if name in total}}


def unknown_machine_type(name: str, known: Sequence[str]) -> str:
    """That the operator's table of machines does not have the name, and which it has."""
    change = f"Change machine-type to one of: {named(known)}." if known else "The operator's table has none."
    return f"No machine here can ever run this: there is no machine type {name}. {change}"


def named(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    more = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {amounts.count(more)} more" if more > 0 else "")


def _positive(amounts_by_name: Mapping[str, float]) -> dict[str, float]:
    return {name: amount for name, amount in amounts_by_name.items() if amount > 0}


def _ahead(ahead: int) -> str:
    if ahead == 0:
        return "it is next in line"
    return f"{amounts.plural(ahead, 'experiment')} {'is' if ahead == 1 else 'are'} ahead"
