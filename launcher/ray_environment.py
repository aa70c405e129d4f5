"""The environment that Ray's processes start with: an allow-list, and Ray's own settings. Pure."""

from collections.abc import Mapping
from pathlib import Path

ALLOWED = frozenset(
    {"PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "LD_LIBRARY_PATH"}
    | {"NODE_DIR"}
    | {"SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"}
    | {"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "no_proxy", "all_proxy"}
    | {"CUDA_VISIBLE_DEVICES", "CUDA_HOME", "NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES"}
)
ALLOWED_PREFIXES = ("PIP_", "UV_")
"""Where packages come from; the commands of experiments install theirs with it."""
REFUSED_PARTS = ("TOKEN", "SECRET", "PASSWORD", "USERNAME", "CREDENTIAL", "PUBLISH", "PRIVATE", "_KEY")

RECONNECT = "RAY_gcs_rpc_server_reconnect_timeout_s"
HEAD_STORE = "RAY_REDIS_ADDRESS"
HEAD = {
    # A dead node is noticed in about 3 s instead of 14 s or, when it vanishes silently, 64 s (measured).
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
    "RAY_health_check_initial_delay_ms": "0",
}
NODE = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # SIGTERM ends the node at once; Ray would wait 30 s for agents, which never end by themselves.
    "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
    # What a command inherits through its guardian can't be undone without privilege: start at neither.
    "RAY_worker_niceness": "0",
    "RAY_worker_oom_score_adjustment": "0",
    # Ray's memory monitor would kill the agent for what a command uses; guardians watch each command instead.
    "RAY_memory_monitor_refresh_ms": "0",
    # A node that lost its head ends by itself, also when a new head answers at the old address (measured: 20 s, 5 s).
    RECONNECT: "20",
    "RAY_raylet_liveness_self_check_interval_ms": "5000",
}
NODE_WITH_REDIS = {
    # The head comes back with all that it knew: wait for it as long as the fences do (the default of FENCE_S).
    RECONNECT: "120",
}
"""What is said otherwise on every node of a cluster whose head keeps its state in Redis."""


def allowed(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that may reach processes which code of a repository could read."""
    return {name: value for name, value in environment.items() if _may(name)}


def authenticated(token_path: Path) -> dict[str, str]:
    """Ray's token authentication, said explicitly: left to itself it depends on what lies in the home directory."""
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token_path)}


def for_head(environment: Mapping[str, str], token_path: Path) -> dict[str, str]:
    """The environment of a Ray head that is a node too."""
    return allowed(environment) | authenticated(token_path) | HEAD | NODE


def started_with(environment: Mapping[str, str]) -> dict[str, str]:
    """What a process of a node says of how its Ray was started; a store is said to be there, not where it is."""
    settings = {"RAY_AUTH_MODE", *HEAD, *NODE}
    said = {name: value for name, value in environment.items() if name in settings}
    return said | ({HEAD_STORE: "set"} if environment.get(HEAD_STORE) else {})


def for_driver(environment: Mapping[str, str], token_path: Path) -> dict[str, str]:
    """The environment of the process that speaks with Ray for us."""
    return allowed(environment) | authenticated(token_path) | {"RAY_USAGE_STATS_ENABLED": "0"}


def _may(name: str) -> bool:
    if name in ALLOWED:
        return True
    return name.startswith(ALLOWED_PREFIXES) and not any(part in name for part in REFUSED_PARTS)
