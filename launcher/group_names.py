"""What the reservation of an attempt is called, and what its name says of whose it is. Pure.

`exp-7-a2` is the App's: it outlives every process, and the App's worker clears away what it does not know. A
`descent run` puts a prefix of its own before that, `run-1a2b3c4d-exp-7-a2`: its reservation is gone with its process,
and the agents end what then belongs to nobody. The worker never sees those.
"""

LASTING = "exp-"
PASSING = "run-"


def passing_prefix(token: str) -> str:
    """What a process that owns what it starts, and takes it along, puts before the names of its groups."""
    return f"{PASSING}{token}-"


def is_passing(name: str) -> bool:
    """Whether a group, or the node key of one, is to go with the process that made it."""
    return name.startswith(PASSING)


def group_of(key: str) -> str:
    """The group of an attempt's key on a node."""
    return key.rsplit("-n", 1)[0]
