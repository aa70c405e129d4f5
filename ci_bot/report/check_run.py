"""An experiment as the check run that should be on GitHub. Pure.

The same view gives the same bytes, and nothing in it ticks: a difference is what makes the worker write to GitHub.
"""

from dataclasses import dataclass
from typing import assert_never

from ci_bot.records import DESCENT, Button, CheckRun, Experiment, HeldNode, Transition, Wish
from ci_bot.report import amounts, durations, nodes, sentence, timeline
from ci_bot.report.markdown import Ink, Tail, details, fence, is_url, join_blocks, link, tail_lines
from launcher.state import TERMINAL, WAITING, Cause, State

NAME_PREFIX = "descent/"
LIMIT_BYTES = 60_000
"""Of summary and of text; GitHub takes 65 535 characters of each."""
TITLE_CHARS = 250
LOG_LINES = 100
LOG_BYTES = 24_000
MOST_ARTIFACTS = 20
MOST_NOTES = 10
_NOTE_CHARS = 400
_CONFIGURATION_CHARS = 10_000

CANCEL = Button(label="Cancel", description="Stop this experiment", identifier="cancel")

_DOING = {
    State.CREATED: "the commit is looked up and its code fetched",
    State.PENDING: "it waits for machines",
    State.PROVISIONING: "machines are reserved; code and environment are put on them",
    State.PROVISIONED: "the machines are ready",
    State.NETWORK_SETUP: "the command is started",
    State.RUNNING: "the command runs",
    State.NETWORK_TEARDOWN: "processes are ended; the log and the artifacts are stored",
}


@dataclass(frozen=True)
class View:
    """All that a check run is drawn from."""

    experiment: Experiment
    transitions: tuple[Transition, ...]
    log_tail: bytes = b""
    """The end of the log of the last attempt: 64 KiB and more than what is shown, or all of it."""
    log_rank: int = 0
    """Which node's log that is, where there are several."""
    log_size: int = 0
    """Bytes of the whole log."""
    log_final: bool = False
    """The log is complete; until then its last lines are not shown, since they change all the time."""
    artifacts: tuple[tuple[str, int], ...] = ()
    """Path and size in bytes."""
    details_url: str = ""
    """The experiment's page of the dashboard; its log is at /log below it."""
    now: float = 0.0
    """Only for how long it has been pending, in steps that grow."""
    machine: str = ""
    """What the machine type means here."""
    secrets: tuple[str, ...] = ()
    """Values to mask besides those known by their form."""
    configuration: str = ""
    """The text of the configuration file, credentials masked, where it is worth showing: a fork runs with another's."""

    @property
    def log_url(self) -> str:
        """The whole log."""
        if self.log_node:
            return nodes.log_url(self.details_url, self.log_rank)
        return f"{self.details_url}/log" if self.details_url else ""

    @property
    def log_node(self) -> HeldNode | None:
        """The node of a gang whose log it is; None for a single node's."""
        return nodes.node_of(self.experiment, self.log_rank)

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen."""
        return self.experiment.state in TERMINAL

    @property
    def ink(self) -> Ink:
        """How text from outside comes in."""
        return Ink(self.secrets)


def experiment_check_run(view: View) -> CheckRun:
    """The check run of an experiment in any state."""
    experiment, ink = view.experiment, view.ink
    title = ink.title(sentence.title(experiment, timeline.ran_s(view.transitions)), TITLE_CHARS)
    shortened = "*Shortened: GitHub takes no more. " + link("All of it", view.details_url) + ".*"
    return CheckRun(
        name=check_run_name(experiment.name),
        head_sha=experiment.head_sha,
        status=_status(experiment),
        conclusion=conclusion(experiment.state, experiment.progress.cause),
        title=title,
        summary=join_blocks(_summary(view), LIMIT_BYTES, shortened),
        text=join_blocks(_text(view), LIMIT_BYTES, shortened),
        buttons=() if view.ended or experiment.wish else (CANCEL,),
        details_url=view.details_url if is_url(view.details_url) else "",
        external_id=str(experiment.id),
        started_at=timeline.first_at(view.transitions, State.PROVISIONING),
        completed_at=_completed_at(view) if view.ended else None,
    )


def check_run_name(experiment_name: str) -> str:
    """The name under which GitHub shows, and branch protection may require, an experiment."""
    return NAME_PREFIX + Ink().plain(experiment_name, 200)


def _status(experiment: Experiment) -> str:
    if experiment.state in TERMINAL:
        return "completed"
    # A retry waits again, but to a reader of the pull request it stays one run that is under way.
    return "queued" if experiment.state in WAITING and experiment.progress.attempt == 0 else "in_progress"


def conclusion(state: State, cause: Cause | None) -> str | None:
    """GitHub's word for an end; None before it."""
    match state:
        case State.STOPPED:
            return "success"
        case State.FAILED:
            return "timed_out" if cause is Cause.TIME_LIMIT else "failure"
        case State.CANCELLED:
            return "cancelled"
        case State.ERROR:
            return "failure"
        case (
            State.CREATED
            | State.PENDING
            | State.PROVISIONING
            | State.PROVISIONED
            | State.NETWORK_SETUP
            | State.RUNNING
            | State.NETWORK_TEARDOWN
        ):
            return None
        case _:
            assert_never(state)


def _completed_at(view: View) -> float:
    return view.experiment.state_at if view.experiment.ended_at is None else view.experiment.ended_at


# --- the summary ---


def _summary(view: View) -> list[str]:
    history = timeline.timeline_table(view.transitions, view.ink)
    return [
        "\\\n".join([_headline(view), *_notes(view)]),
        _links(view),
        _facts(view),
        nodes.nodes_table(view.experiment, view.details_url, view.ink),
        f"### Timeline\n\n{history}" if history else "",
        _configuration(view),
    ]


def _headline(view: View) -> str:
    experiment, ink = view.experiment, view.ink
    because = ""
    if experiment.progress.cause is not None:
        because = ink.text(sentence.sentence(experiment.progress.cause, experiment.detail), 1000)
    if view.ended:
        return _end_headline(view, because)
    since = f"**{experiment.state.words}** since {durations.clock(experiment.state_at)}"
    waits = experiment.state in WAITING and experiment.pending_reason
    parts = [f"{since}." if waits else f"{since}: {_DOING[experiment.state]}."]
    if because:
        which = "attempt" if experiment.state is State.NETWORK_TEARDOWN else "last attempt"
        parts.append(f"The {which} ended: {because}")
    if experiment.progress.intended is State.PENDING:
        parts.append("Another attempt follows.")
    if experiment.state in WAITING:
        parts += [ink.text(experiment.pending_reason, 1000), _queued(view)]
    if experiment.wish is not None:
        parts.append(_wish_words(experiment.wish, because, ink))
    return " ".join(part for part in parts if part)


def _wish_words(wish: Wish, because: str, ink: Ink) -> str:
    """That it is to be cancelled, where that was not said."""
    if sentence.says_cancelled(wish.why):
        return "" if sentence.says_cancelled(because) else f"To be {ink.text(sentence.wished(wish.why))}."
    return f"To be cancelled, asked by {_asker(wish, ink)}: {ink.text(wish.why)}."


def _end_headline(view: View, because: str) -> str:
    state, ran_s = view.experiment.state, timeline.ran_s(view.transitions)
    word = {State.STOPPED: "Stopped (success)", State.ERROR: "Error (infrastructure)"}.get(state, state.words)
    after = f" after running for {durations.duration(ran_s)}" if ran_s is not None else ""
    if state is State.CANCELLED and sentence.says_cancelled(because):
        return f"**{because.removesuffix('.')}**{after}."
    comfort = " The commit is not to blame; a re-run may do." if state is State.ERROR else ""
    by = ""
    if state is State.CANCELLED and view.experiment.wish is not None:
        by = f" Asked by {_asker(view.experiment.wish, view.ink)}."
    return f"**{word}**{after}. {because}{by}{comfort}"


def _asker(wish: Wish, ink: Ink) -> str:
    return "Descent" if wish.by == DESCENT else ink.text(wish.by, 100)


def _queued(view: View) -> str:
    experiment = view.experiment
    if experiment.queued_at is None:
        return ""
    age = durations.age(view.now - experiment.queued_at)
    if not age and experiment.queued_at == experiment.state_at:
        return ""  # said already
    return f"In the queue since {durations.clock(experiment.queued_at)}{f', for more than {age}' if age else ''}."


def _notes(view: View) -> list[str]:
    experiment = view.experiment
    notes = list(experiment.notes)
    if not experiment.trusted:
        notes.append("An approved commit of a fork: /storage is empty, the cache is thrown away, no secrets.")
    if any(node.isolation == "none" for node in experiment.held.nodes):
        notes.append("Not isolated (ISOLATION=none): the command ran with the rights of the node's user.")
    left = experiment.detail.get("left")
    if isinstance(left, int) and left > 0:
        were = "process" if left == 1 else "processes"
        notes.append(f"{left} {were} outlived the command and had to be ended.")
    unique = list(dict.fromkeys(notes))
    lines = [f"**Note:** {view.ink.text(note, _NOTE_CHARS)}" for note in unique[:MOST_NOTES]]
    if len(unique) > MOST_NOTES:
        lines.append(f"**Note:** {amounts.plural(len(unique) - MOST_NOTES, 'more note')} on the dashboard.")
    return lines


def _links(view: View) -> str:
    if not is_url(view.details_url):
        return ""
    node = view.log_node
    log = f"Log of {view.ink.text(f'{node.role} {node.index}')}" if node else "Whole log"
    links = [link("Dashboard", view.details_url), link(log, view.log_url)]
    links.append(link("Re-run on the dashboard" if view.ended else "Cancel on the dashboard", view.details_url))
    return " · ".join(links)


def _facts(view: View) -> str:
    experiment, ink = view.experiment, view.ink
    alone = () if nodes.gang(experiment) else experiment.held.nodes  # a gang's are in a table of their own
    hosts = [ink.code(n.host) + (f" (GPU {ink.text(', '.join(n.gpu_ids))})" if n.gpu_ids else "") for n in alone]
    isolation = sorted({node.isolation for node in experiment.held.nodes if node.isolation})
    facts = {
        "Machine": ink.text(view.machine),
        "Node": ", ".join(hosts),
        "Isolation": ink.text(", ".join(isolation)),
        "Commit": f"{ink.code(experiment.head_sha[:7])} {ink.text(experiment.title, 120)}".rstrip(),
        "Configuration": ink.code(experiment.configuration_path),
    }
    return "\n".join(f"- {name}: {fact}" for name, fact in facts.items() if fact)


def _configuration(view: View) -> str:
    if not view.configuration:
        return ""
    block = view.ink.block(view.configuration, _CONFIGURATION_CHARS, "yaml")
    return details("The configuration it ran with", block)


# --- the text below it ---


def _text(view: View) -> list[str]:
    return [_log(view), _artifacts(view)]


def _log(view: View) -> str:
    if not view.log_tail or not (view.log_final or view.ended):
        return ""
    whole = len(view.log_tail) >= view.log_size
    tail = tail_lines(view.log_tail, LOG_LINES, LOG_BYTES, secrets=view.secrets, begins_inside=not whole)
    attempt = view.experiment.progress.attempt
    of_attempt = f" of attempt {attempt}" if attempt > 1 or not view.ended else ""
    whose = view.ink.text(view.log_node.words) if view.log_node else "the log"
    lines = [f"### Last lines of {whose}{of_attempt}", _earlier(view, tail, whole=whole)]
    if tail.text:
        lines.append(fence(tail.text))
    if not view.log_final:
        lines.append("The log's end did not arrive from the node.")
    return "\n\n".join(line for line in lines if line)


def _earlier(view: View, tail: Tail, *, whole: bool) -> str:
    """What is not shown of the log, and where it is."""
    where = link("whole log", view.log_url)
    if not whole:
        return f"… {where}, {amounts.size(view.log_size)}"
    return f"… {amounts.plural(tail.earlier, 'earlier line')}, {where}" if tail.earlier else ""


def _artifacts(view: View) -> str:
    if not view.artifacts:
        return ""
    total = amounts.size(sum(size for _, size in view.artifacts))
    rows = [f"- {view.ink.code(path)}, {amounts.size(size)}" for path, size in view.artifacts[:MOST_ARTIFACTS]]
    more = len(view.artifacts) - MOST_ARTIFACTS
    if more > 0:
        rows.append(f"- … {link(f'{amounts.count(more)} more', view.details_url)}")
    return f"### Artifacts\n\n{amounts.plural(len(view.artifacts), 'file')}, {total}.\n\n" + "\n".join(rows)
