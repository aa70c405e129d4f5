"""How a node's Ray was started, held against the settings that we recommend: what comes of a difference. Pure."""

from collections.abc import Mapping, Sequence

from ci_bot.doctor.findings import Finding, ok, warning
from launcher.node_types import NodeFacts
from launcher.ray_environment import HEAD, HEAD_STORE, NODE, RECONNECT

AUTHENTICATION = {"RAY_AUTH_MODE": "token"}
CONSEQUENCES: Mapping[str, Sequence[str]] = {
    "whoever reaches its ports may run anything there": tuple(AUTHENTICATION),
    "a dead node is noticed late": tuple(HEAD),
    "it stays for long with a head that is lost": ("RAY_raylet_liveness_self_check_interval_ms",),
    "its end takes 30 s": ("RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S",),
    "commands inherit Ray's niceness": ("RAY_worker_niceness",),
    "the kernel ends commands and the agent before all else": ("RAY_worker_oom_score_adjustment",),
    "Ray may end the agent for what a command uses": ("RAY_memory_monitor_refresh_ms",),
    "it reports its use to the makers of Ray": ("RAY_USAGE_STATS_ENABLED",),
}
"""What comes of settings that are missing or larger; those of the head matter on its node only."""
_SEE = "docs/operating.md says why"


def nodes(known: Sequence[tuple[NodeFacts, bool]], fence_s: float) -> list[Finding]:
    """Those of every node, each with whether Ray's head is on it; what the head's says holds for the others too."""
    with_redis = next((HEAD_STORE in facts.ray for facts, is_head in known if is_head), None)
    return [
        finding
        for facts, is_head in known
        for finding in node(facts, is_head=is_head, with_redis=with_redis, fence_s=fence_s)
    ]


def node(facts: NodeFacts, *, is_head: bool, with_redis: bool | None, fence_s: float) -> list[Finding]:
    """One node's settings.

    Args:
        facts: what its agent says; the agent has the environment that its Ray was started with.
        is_head: Ray's head is on this node.
        with_redis: the head keeps its state in Redis; None where the head's node did not say.
        fence_s: how long a node may miss the head before it ends what it runs.
    """
    what, wanted = f"node {facts.host}", AUTHENTICATION | NODE | (HEAD if is_head else {})
    found = []
    for consequence, names in CONSEQUENCES.items():
        if off := [name for name in names if name in wanted and not _fits(facts.ray.get(name), wanted[name])]:
            found.append(_differs(what, consequence, facts.ray, {name: wanted[name] for name in off}))
    if with_redis is not None:
        found += _reconnect(what, facts.ray, with_redis=with_redis, fence_s=fence_s)
    found += _inherited(what, facts)
    return found or [ok(what, "its Ray was started with the settings that we recommend")]


def _reconnect(what: str, ray: Mapping[str, str], *, with_redis: bool, fence_s: float) -> list[Finding]:
    value = ray.get(RECONNECT)
    if not with_redis:
        consequence = "it stays for long with a head that is lost, and that has forgotten it when it is back"
        return [] if _fits(value, NODE[RECONNECT]) else [_differs(what, consequence, ray, {RECONNECT: NODE[RECONNECT]})]
    number = _number(value)
    if number is not None and number >= fence_s:
        return []
    consequence = (
        f"it ends what it runs before FENCE_S={fence_s:g} is over, though the head comes back with all it knew"
    )
    return [_differs(what, consequence, ray, {RECONNECT: f"{fence_s:g}"})]


def _inherited(what: str, facts: NodeFacts) -> list[Finding]:
    """What commands inherit although Ray adds nothing to it: what its own service was started with."""
    found = []
    if facts.niceness > 0 and _fits(facts.ray.get("RAY_worker_niceness"), "0"):
        text = f"commands run at niceness {facts.niceness}, as its Ray does"
        found.append(warning(what, text, "start its Ray at 0: Nice=0 in a systemd service"))
    if facts.oom_score_adj > 0 and _fits(facts.ray.get("RAY_worker_oom_score_adjustment"), "0"):
        text = f"the kernel ends commands and the agent before others: oom_score_adj is {facts.oom_score_adj}"
        found.append(warning(what, text, "start its Ray at 0: OOMScoreAdjust=0 in a systemd service"))
    return found


def _differs(what: str, consequence: str, ray: Mapping[str, str], lines: Mapping[str, str]) -> Finding:
    now = ", ".join(f"{name} is {ray[name]}" if name in ray else f"{name} is not set" for name in lines)
    todo = " ".join(f"{name}={value}" for name, value in lines.items())
    return warning(what, f"{consequence}: {now}", f"start its Ray with {todo}; {_SEE}")


def _fits(value: str | None, wanted: str) -> bool:
    """A number fits that is not larger; Ray's own, where nothing is set, is larger for each of these."""
    number, limit = _number(value), _number(wanted)
    return value == wanted if number is None or limit is None else number <= limit


def _number(value: str | None) -> float | None:
    try:
        return float(value or "")
    except ValueError:
        return None
