"""Experiments as the values that templates show: words, not objects; all text from outside cleaned. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from ci_bot.config.mask import MASK, is_secret_name, mask, mask_text
from ci_bot.records import Experiment, Transition
from ci_bot.report import amounts, durations, sentence, timeline
from ci_bot.report.markdown import Ink
from ci_bot.report.plain import clean
from ci_bot.report.redact import redact
from ci_bot.web import nodes
from launcher.state import TERMINAL, WAITING, State

_LONG = 2000
_TONES = {
    State.STOPPED: "good",
    State.FAILED: "bad",
    State.ERROR: "odd",
    State.CANCELLED: "quiet",
    State.CREATED: "waiting",
    State.PENDING: "waiting",
    State.RUNNING: "running",
}


@dataclass(frozen=True)
class Row:
    """One line of the list."""

    id: int
    repository: str
    sha: str
    title: str
    name: str
    ref: str
    state: str
    tone: str
    live: bool
    hint: str
    created_at: float
    created: str
    ran_s: float | None
    ran: str
    running_since: float | None


@dataclass(frozen=True)
class Step:
    """One line of the timeline."""

    state: str
    tone: str
    at: str
    attempt: int
    took: str
    reason: str
    since: float | None
    """For the line that is still going on."""


def secrets_of(experiment: Experiment) -> tuple[str, ...]:
    """Values of its environment that are credentials by their names."""
    return tuple(value for name, value in experiment.specification.env.items() if is_secret_name(name))


def tone(state: State) -> str:
    """The colour that a state has everywhere."""
    return _TONES.get(state, "busy")


def row(experiment: Experiment, transitions: Sequence[Transition], now: float) -> Row:
    """An experiment in the list."""
    ink = Ink(secrets_of(experiment))
    ran_s = timeline.ran_s(transitions, now)
    return Row(
        id=experiment.id,
        repository=ink.plain(experiment.full_name),
        sha=experiment.head_sha[:7],
        title=ink.plain(experiment.title, 200),
        name=ink.plain(experiment.name),
        ref=ref_words(ink.plain(experiment.ref)),
        state=experiment.state.words,
        tone=tone(experiment.state),
        live=experiment.state not in TERMINAL,
        hint=ink.title(sentence.title(experiment, timeline.ran_s(transitions)), 300),
        created_at=experiment.created_at,
        created=ago(now - experiment.created_at),
        ran_s=ran_s,
        ran="" if ran_s is None else durations.duration(ran_s),
        running_since=experiment.running_at if experiment.state is State.RUNNING else None,
    )


def steps(transitions: Sequence[Transition], now: float, ink: Ink) -> list[Step]:
    """The timeline, from the start."""
    ends = [after.at for _, after in pairwise(transitions)]
    lines = []
    for place, transition in enumerate(transitions):
        last = place == len(transitions) - 1
        going = last and transition.state not in TERMINAL
        end = now if going else None if last else ends[place]
        lines.append(
            Step(
                state=transition.state.words,
                tone=tone(transition.state),
                at=durations.date_clock(transition.at),
                attempt=transition.attempt,
                took="" if end is None else durations.duration(end - transition.at),
                reason=ink.plain(transition.reason, 600),
                since=transition.at if going else None,
            )
        )
    return lines


def details(experiment: Experiment, transitions: Sequence[Transition], now: float) -> dict[str, Any]:
    """What the page of an experiment shows besides its log."""
    ink, progress = Ink(secrets_of(experiment)), experiment.progress
    cause = sentence.sentence(progress.cause, experiment.detail) if progress.cause else ""
    waits = experiment.state in WAITING
    return {
        "row": row(experiment, transitions, now),
        "head_sha": experiment.head_sha,
        "rerun": experiment.rerun,
        "attempt": progress.attempt,
        "tries": tries(experiment),
        "headline": headline(ink.title(sentence.title(experiment, timeline.ran_s(transitions)), 300), experiment.state),
        "cause": ink.plain(cause, _LONG),
        "pending": ink.plain(experiment.pending_reason, _LONG) if waits else "",
        "wish": ink.plain(sentence.wished(experiment.wish.why), 300) if experiment.wish else "",
        "notes": [ink.plain(note, 500) for note in notes(experiment)],
        "steps": steps(transitions, now, ink),
        "gang": nodes.lines(experiment, ink),
        "gang_summary": nodes.summary(experiment, ink),
        "nodes": [
            {"host": ink.plain(node.host), "gpus": ", ".join(node.gpu_ids), "isolation": ink.plain(node.isolation)}
            for node in experiment.held.nodes
        ],
        "may_cancel": experiment.state not in TERMINAL and experiment.wish is None,
        "ended": experiment.state in TERMINAL,
    }


def parameters(experiment: Experiment) -> dict[str, Any]:
    """What it was asked to run, credentials masked."""
    specification, secrets = experiment.specification, secrets_of(experiment)

    def text(value: str) -> str:
        return redact(mask_text(clean(value)), secrets)

    facts = {
        "Type": specification.topology,
        "Working directory": specification.workdir or "",
        "Artifacts": specification.artifacts or "",
        "Time limit": durations.duration(specification.timeout_s) if specification.timeout_s else "",
        "Retries": str(specification.retries or ""),
        "Ports": ", ".join(map(str, specification.ports)),
        "Model": " ".join(filter(None, (specification.model_type, specification.model_path))),
    }
    return {
        "facts": {name: text(value) for name, value in facts.items() if value},
        "groups": [
            {
                "role": group.role.value,
                "count": group.count,
                "command": text(group.command),
                "machine": text(group.machine_type or ""),
                "container": text(group.container or (group.dockerfile.path if group.dockerfile else "")),
            }
            for group in specification.groups
        ],
        "env": [(clean(name), env_value(name, value)) for name, value in sorted(specification.env.items())],
        "path": clean(experiment.configuration_path),
        "source": redact(clean(mask(experiment.configuration_source)), secrets),
    }


def headline(title: str, state: State) -> str:
    """A check run's title behind a badge that says the state already."""
    for between in (" – ", ": "):
        if title.startswith(state.words + between):
            rest = title.removeprefix(state.words + between)
            return rest[:1].upper() + rest[1:]
    return "" if title == state.words else title


def env_value(name: str, value: str) -> str:
    """A variable's value as it may be shown."""
    return MASK if is_secret_name(name) and not value.startswith("secret:") else mask_text(clean(value))


def notes(experiment: Experiment) -> list[str]:
    """What a reader of the results must know."""
    found = list(experiment.notes)
    if not experiment.trusted:
        found.append("An approved commit of a fork: /storage is empty, the cache is thrown away, no secrets.")
    if any(node.isolation == "none" for node in experiment.held.nodes):
        found.append("Not isolated (ISOLATION=none): the command runs with the rights of the node's user.")
    return list(dict.fromkeys(found))


def tries(experiment: Experiment) -> str:
    """ "attempt 2 of 4", or "" where it has but one."""
    progress = experiment.progress
    if progress.tries == 1 and not progress.user_retries:
        return ""
    most = 1 + max(progress.user_retries, progress.user_retries_used) + progress.infrastructure_retries_used
    return f"attempt {progress.tries} of {most}"


def ref_words(ref: str) -> str:
    """A ref as people call it."""
    if ref.startswith("refs/pull/"):
        return f"#{ref.split('/')[2]}"
    return ref.removeprefix("refs/heads/").removeprefix("refs/tags/")


def ago(seconds: float) -> str:
    """How old something is: "just now", "3 min ago", "2 d ago"."""
    for size_s, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size_s:
            return f"{int(seconds // size_s)} {unit} ago"
    return "just now"


def record(experiment: Experiment, transitions: Sequence[Transition] = ()) -> dict[str, Any]:
    """An experiment for the API; times are RFC 3339, UTC."""
    ink, progress = Ink(secrets_of(experiment)), experiment.progress

    def when(at: float | None) -> str | None:
        return None if at is None else durations.rfc3339(at)

    return {
        "id": experiment.id,
        "repository": experiment.full_name,
        "head_sha": experiment.head_sha,
        "ref": experiment.ref,
        "name": ink.plain(experiment.name),
        "title": ink.plain(experiment.title),
        "rerun": experiment.rerun,
        "state": experiment.state.value,
        "attempt": progress.attempt,
        "cause": progress.cause.value if progress.cause else None,
        "reason": ink.plain(sentence.sentence(progress.cause, experiment.detail), _LONG) if progress.cause else "",
        "pending_reason": ink.plain(experiment.pending_reason, _LONG),
        "created_at": when(experiment.created_at),
        "running_at": when(experiment.running_at),
        "ended_at": when(experiment.ended_at),
        "version": experiment.version,
        "transitions": [
            {
                "state": each.state.value,
                "attempt": each.attempt,
                "at": durations.rfc3339(each.at),
                "reason": ink.plain(each.reason, _LONG),
            }
            for each in transitions
        ],
    }


def file_size(size: int) -> str:
    """Bytes in words."""
    return amounts.size(size)
