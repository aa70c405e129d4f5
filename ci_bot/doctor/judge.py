"""Facts about the set-up to findings. Pure."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from ci_bot.doctor.findings import Finding, ok, problem, warning
from ci_bot.github.answers import App, Delivery, Installation
from ci_bot.report.amounts import size
from ci_bot.report.durations import duration
from launcher.node import FULL_BYTES, ROOM_BYTES
from launcher.node_types import NodeFacts

DISTINCT_NAMES = "give each its own: one that can't be proven clean keeps experiments off all of them"
DISTINCT_DIRECTORIES = (
    "one may be taken for the other when it is lost: give each a disk of its own; of a copy remove NODE_DIR, and start "
    "Ray there again"
)
RANKS = ("read", "write", "admin")
SKEW_S = 60.0
"""GitHub refuses a JWT that begins in its future; ours begin a minute in our past."""
SHARED = frozenset({"nfs", "nfs4", "cifs", "smb3", "ceph", "lustre", "glusterfs", "fuse.glusterfs", "9p", "beegfs"})
"""File systems of several hosts, on which SQLite's write-ahead log does not work."""


@dataclass(frozen=True)
class Manifest:
    """What app.yml asks of GitHub."""

    permissions: Mapping[str, str]
    events: tuple[str, ...]


def mode(what: str, path: str, found: int, wanted: int) -> Finding | None:
    """A file or directory that others may open."""
    if found & 0o077:
        text = f"{path} has mode {found:04o}: others on this host may open it"
        return problem(what, text, f"chmod {wanted:o} {path}")
    return None


def disk(what: str, path: str, free_bytes: int) -> Finding:
    """Room on a disk."""
    text = f"{size(free_bytes)} are free at {path}"
    if free_bytes < FULL_BYTES:
        return problem(what, text, f"make room: with less than {size(FULL_BYTES)} nothing new is started")
    if free_bytes < ROOM_BYTES:
        return warning(what, text, "make room: logs and artifacts are kept until you remove them")
    return ok(what, text)


def file_system(kind: str, path: str, *, sqlite: bool) -> Finding | None:
    """SQLite where several hosts write."""
    if sqlite and kind in SHARED:
        text = f"{path} is on {kind}, where SQLite's write-ahead log does not work"
        return problem("database", text, "put DATA_DIR on a local disk, or set DATABASE_URL to a PostgreSQL database")
    return None


def lease(holder: str, expires_at: float, now: float, host: str) -> Finding:
    """Who the worker is, as the database knows it; `holder` is host-pid-nonce."""
    if not holder or expires_at <= now:
        return warning("worker", "no worker runs", "start one: `descent up`, or `descent worker`")
    name, pid, _ = holder.rsplit("-", 2)
    if name == host:
        return ok("worker", f"process {pid} on this host holds the lease")
    text = f"process {pid} on {name} holds the lease"
    return warning("worker", text, "web and worker must see the same DATA_DIR: on two hosts, on a shared volume")


def isolation(setting: str, capable: bool, why: str, *, node_here: bool) -> Finding:
    """Whether commands can be enclosed on this host."""
    if setting == "none":
        text = "ISOLATION=none: commands are plain processes and reach whatever this user can read"
        return warning("isolation", text, "unset ISOLATION; bubblewrap works here" if capable else "")
    if capable:
        return ok("isolation", "bubblewrap encloses commands on this host")
    if node_here:
        return problem("isolation", f"commands can't be enclosed on this host: {why}", "experiments can't start here")
    return warning("isolation", f"commands can't be enclosed on this host: {why}", "what counts are Ray's nodes, below")


def node(facts: NodeFacts, setting: str) -> list[Finding]:
    """One node of the cluster."""
    what = f"node {facts.host}"
    enclosed = facts.isolation == "bubblewrap"
    if enclosed or setting == "none":
        found = [
            ok(what, f"its agent answers; isolation: {facts.isolation if enclosed else 'none, as ISOLATION says'}")
        ]
    else:
        text = f"commands can't be enclosed there: {facts.isolation_why}"
        found = [problem(what, text, "no experiment can start on it")]
    room = disk(what, "its NODE_DIR", facts.free_disk_bytes)
    return found if room == ok(what, room.text) else [*found, room]


def identities(nodes: Sequence[NodeFacts]) -> list[Finding]:
    """Whether every machine can be told from every other, by its name and by what its NODE_DIR says.

    Several Ray nodes of one machine have one name and address, and may share a directory.
    """
    names: defaultdict[str, set[str]] = defaultdict(set)
    directories: defaultdict[str, set[str]] = defaultdict(set)
    for each in nodes:
        names[each.host].add(each.address)
        directories[each.root_id].add(f"{each.host} ({each.address})")
    found = [
        warning(f"node {host}", f"several machines have this name: {', '.join(sorted(addresses))}", DISTINCT_NAMES)
        for host, addresses in names.items()
        if len(addresses) > 1
    ]
    for root_id, machines in directories.items():
        if root_id and len(machines) > 1:
            text = f"{' and '.join(sorted(machines))} have the same NODE_DIR, or copies of one (id {root_id[:8]})"
            found.append(warning("nodes", text, DISTINCT_DIRECTORIES))
    return found


def skew(ours: float, theirs: float) -> Finding:
    """Our clock against GitHub's."""
    ahead_s = ours - theirs
    text = f"this host's clock is {duration(abs(ahead_s))} {'ahead of' if ahead_s > 0 else 'behind'} GitHub's"
    if abs(ahead_s) > SKEW_S:
        return problem("clock", text, "set it by NTP: GitHub refuses our signatures")
    if abs(ahead_s) > SKEW_S / 3:
        return warning("clock", text, f"set it by NTP: GitHub refuses our signatures from {SKEW_S:.0f} s on")
    return ok("clock", "this host's clock agrees with GitHub's")


def permissions(app: App, manifest: Manifest) -> list[Finding]:
    """What the App may do and hears of, compared with app.yml."""
    settings = f"change it under Permissions & events of the App, {app.html_url}"
    found = []
    for kind, has, needs in (
        ("permissions", app.permissions, manifest.permissions),
        ("events", dict.fromkeys(app.events, "read"), dict.fromkeys(manifest.events, "read")),
    ):
        lacking = _lacking(has, needs)
        more = sorted(name for name in has if _rank(has[name]) > _rank(needs.get(name)) and name != "metadata")
        if lacking:
            found.append(problem(kind, f"the App lacks {', '.join(lacking)}", settings))
        if more:
            found.append(warning(kind, f"the App has more than Descent uses: {', '.join(more)}", settings))
        if not lacking and not more:
            found.append(ok(kind, "as in app.yml"))
    return found


def installations(found: Sequence[Installation], app: App, manifest: Manifest) -> list[Finding]:
    """Where the App is installed, and what those accounts granted."""
    if not found:
        return [warning("installation", "the App is installed nowhere", f"install it: {app.html_url}")]
    findings = []
    for each in found:
        lacking = _lacking(each.permissions, manifest.permissions)
        if each.suspended:
            todo = "its owner can end that in the settings of the installation"
            findings.append(warning("installation", f"{each.account} has suspended it", todo))
        elif lacking:
            text = f"{each.account} has not granted {', '.join(lacking)}"
            findings.append(problem("installation", text, "its owner must accept the App's new permissions"))
        else:
            findings.append(ok("installation", f"installed on {each.account}"))
    return findings


def deliveries(log: Sequence[Delivery], *, public_url: str, hours: float) -> Finding:
    """What GitHub's log says of our webhook, newest first."""
    if not public_url:
        return ok("webhook", "PUBLIC_URL is empty: deliveries are fetched from GitHub every 15 s")
    if not log:
        return ok("webhook", f"GitHub sent nothing to {public_url}/webhook within {hours:.0f} h")
    codes = ", ".join(f"{code or 'no answer'} × {count}" for code, count in Counter(d.status_code for d in log).items())
    text = f"{len(log)} deliveries within {hours:.0f} h: {codes}"
    if log[0].arrived:
        return ok("webhook", text)
    todo = {
        401: "the webhook's secret on GitHub and GITHUB_WEBHOOK_SECRET must be the same",
        400: "set the webhook's content type to application/json on GitHub",
        404: f"the webhook's address on GitHub must be {public_url}/webhook",
    }.get(log[0].status_code, f"GitHub must reach {public_url}/webhook; does web run, does the proxy pass it on?")
    return problem("webhook", f"the last delivery did not arrive; {text}", todo)


def rate_limit(account: str, headers: Mapping[str, str]) -> Finding | None:
    """How many calls GitHub still allows this hour; None where it did not say."""
    try:
        limit, remaining = int(headers["x-ratelimit-limit"]), int(headers["x-ratelimit-remaining"])
        reset = datetime.fromtimestamp(int(headers["x-ratelimit-reset"]), UTC)
    except (KeyError, ValueError):
        return None
    text = f"{account}: {remaining} of {limit} calls are left until {reset:%H:%M} UTC"
    return ok("rate limit", text) if remaining > limit // 10 else warning("rate limit", text, "reports will be late")


def _lacking(has: Mapping[str, str], needs: Mapping[str, str]) -> list[str]:
    return sorted(name for name, level in needs.items() if _rank(has.get(name)) < _rank(level))


def _rank(level: str | None) -> int:
    return RANKS.index(level) if level in RANKS else -1
