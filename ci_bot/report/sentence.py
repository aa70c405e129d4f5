"""Why an experiment ended, in a sentence, in a few words, and as the title of its check run. Pure."""

import signal as os_signals
from collections.abc import Mapping
from typing import Any, assert_never

from ci_bot.records import Experiment
from ci_bot.report import amounts, durations
from ci_bot.report.plain import cut, one_line
from launcher.state import TERMINAL, VERDICTS, Budget, Cause, Progress, State

_LONGEST_FIELD = 500
_LARGEST_NUMBER = 1e15
_LARGEST_TIME = 1e11
"""Seconds since the epoch that a calendar of four-digit years can show."""
_LARGEST_GANG = 100_000
_OF_A_COMMAND = frozenset({Cause.COMMAND_EXITED, Cause.COMMAND_KILLED, Cause.OUT_OF_MEMORY, Cause.DISK_LIMIT})
"""What one node's command came to; in a gang it must be said whose. All other sentences name the node, or need none."""

_MISSING = {
    "exit_code": "other than 0",
    "signal": "a signal",
    "used": "more",
    "limit": "what is allowed",
    "waited": "too long",
    "node": "the node",
    "state": "A state",
    "who": "one of its nodes",
    "why": "no reason was recorded",
    "hint": "",
}

_SIGNAL_HINTS = {
    "SIGKILL": "not by Descent; often the kernel, when the host is out of memory",
    "SIGSEGV": "an invalid memory access in native code",
    "SIGBUS": "often /dev/shm or a disk is full",
    "SIGABRT": "an assertion or an uncaught error in native code",
    "SIGILL": "an instruction that this CPU does not have",
    "SIGFPE": "an arithmetic error in native code",
    "SIGTERM": "something in the experiment or on the host asked it to end",
    "SIGINT": "interrupted",
    "SIGPIPE": "it wrote to something that had ended",
    "SIGXCPU": "a limit of CPU time",
    "SIGXFSZ": "a limit of file size",
}

_CODE_HINTS = {
    2: "for many programs: wrong usage, or a file that is not there",
    126: "the file was found and could not be executed; is it executable?",
    127: "command not found",
}

_SHORT = {
    Cause.SUCCEEDED: "exit code 0",
    Cause.COMMAND_EXITED: "exit code {exit_code}",
    Cause.COMMAND_KILLED: "killed by {signal}",
    Cause.OUT_OF_MEMORY: "out of memory",
    Cause.DISK_LIMIT: "out of disk",
    Cause.DAEMON_LOST: "MPI daemon lost on {node}",
    Cause.TIME_LIMIT: "time limit of {limit}",
    Cause.WISHED: "{why}",
    Cause.SHUTDOWN: "Descent was shut down",
    Cause.UNSATISFIABLE: "no machine here can run it",
    Cause.NOT_SUPPORTED: "not supported",
    Cause.REFUSED_ARCHIVE: "the repository's files were refused",
    Cause.COMMIT_GONE: "the commit is gone",
    Cause.NOT_FETCHABLE: "the code could not be fetched",
    Cause.QUEUE_DEADLINE: "no machines for {waited}",
    Cause.PREPARATION_FAILED: "{node} could not be prepared",
    Cause.DEADLINE: "{state} took longer than {limit}",
    Cause.DISK_FULL: "disk full on {node}",
    Cause.NODE_LOST: "node {node} lost",
    Cause.HEAD_LOST: "Ray's head lost",
    Cause.GUARDIAN_LOST: "guardian lost on {node}",
    Cause.RESERVATION_LOST: "reservation lost",
    Cause.PEER_UNREACHABLE: "peer unreachable",
    Cause.ARTIFACTS_NOT_STORED: "artifacts not stored",
    Cause.NOT_PROVEN_CLEAN: "{node} not proven clean",
}


def sentence(cause: Cause, detail: Mapping[str, Any]) -> str:
    """The sentence of a cause, filled in; a field that is missing gets words of its own, never an error.

    Args:
        cause: why the attempt ended.
        detail: exit_code, signal, hint, used, limit, waited, node, state, why. Amounts are words, or numbers under
            their name with the unit: limit_s, waited_s, used_bytes, limit_bytes. Of a gang also who ended first
            (who: "worker 2 on host-c"), at which time (at) and how many others were stopped for it (others).
    """
    template = VERDICTS[cause].sentence
    fields = _fields(cause, detail)
    if template.endswith("{why}."):
        fields["why"] = fields["why"].rstrip(".")
    if template.startswith("{why}"):
        fields["why"] = fields["why"][:1].upper() + fields["why"][1:]
    text, others = template.format_map(fields), _others(cause, detail)
    if cause in _OF_A_COMMAND and detail.get("who"):
        at = detail.get("at")
        when = f" at {durations.clock(at)}" if isinstance(at, int | float) and 0 < at < _LARGEST_TIME else ""
        who = fields["who"]
        return f"{who[:1].upper()}{who[1:]}: {_lower_first(text.removesuffix('.'))}{when}{others}."
    return f"{text.removesuffix('.')}{others}." if others else text


def _others(cause: Cause, detail: Mapping[str, Any]) -> str:
    """How many nodes of the gang were stopped for what one of them came to; a success stops none before its time."""
    number = _integer(detail.get("others")) or 0
    if cause is Cause.SUCCEEDED or not 0 < number < _LARGEST_GANG:
        return ""
    kind = "" if cause in _OF_A_COMMAND else " node"  # "others" needs a node that was spoken of
    words = f"1 other{kind} was" if number == 1 else f"{number} other{kind}s were"
    return f"; {words} stopped"


def short_cause(cause: Cause, detail: Mapping[str, Any]) -> str:
    """The cause in a few words, for a title: "exit code 1", "exit code 1 (worker 2 on host-c)", "node host-c lost"."""
    fields = _fields(cause, detail)
    whose = f" ({fields['who']})" if cause in _OF_A_COMMAND and detail.get("who") else ""
    return _SHORT[cause].format_map(fields).removesuffix(".") + whose


def wished(why: str) -> str:
    """That somebody cancels it: "cancelled by octocat", or "cancelled: " and why."""
    return _lower_first(why) if says_cancelled(why) else f"cancelled: {_lower_first(why)}"


def says_cancelled(why: str) -> bool:
    """Whether a wish's reason says who cancels, as a person's does: nothing is to be added."""
    return why.lower().startswith("cancelled ")


def hint(exit_code: int | None = None, signal: str | int | None = None) -> str:
    """What an exit code or a signal usually means, as " (…)"; "" where nothing useful is known."""
    if signal is not None:
        found = _SIGNAL_HINTS.get(signal_name(signal), "")
    elif exit_code is None:
        found = ""
    elif exit_code in _CODE_HINTS:
        found = _CODE_HINTS[exit_code]
    else:
        # A shell reports a child that a signal ended as 128 + its number.
        name = signal_name(exit_code - 128) if 128 < exit_code <= 192 else ""
        meaning = _SIGNAL_HINTS.get(name, "")
        found = f"{name}: {meaning}" if meaning else name
    return f" ({found})" if found else ""


def signal_name(signal: str | int) -> str:
    """ "SIGKILL" from 9, "9" or "SIGKILL"; what is no signal stays as it is, a number becomes ""."""
    text = str(signal)
    if not text.lstrip("-").isdecimal():
        return text
    try:
        return os_signals.Signals(int(text)).name
    except ValueError:
        return ""


def _fields(cause: Cause, detail: Mapping[str, Any]) -> dict[str, str]:
    fields = dict(_MISSING)
    for key, value in detail.items():
        name, words = _named(key, value)
        if words and (name == key or not detail.get(name)):
            fields[name] = words
    if cause is Cause.COMMAND_EXITED:
        fields["hint"] = _explained(fields["hint"]) or hint(exit_code=_integer(detail.get("exit_code")))
    elif cause is Cause.COMMAND_KILLED:
        fields["hint"] = _explained(fields["hint"]) or hint(signal=fields["signal"])
    return fields


def _named(key: str, value: Any) -> tuple[str, str]:
    """The field that a detail fills, and with which words."""
    if isinstance(value, int | float) and abs(value) < _LARGEST_NUMBER:  # false for NaN too
        if key.endswith("_s"):
            return key.removesuffix("_s"), durations.duration(value)
        if key.endswith("_bytes"):
            return key.removesuffix("_bytes"), amounts.size(value)
    if value is None:
        return key, ""
    if key == "signal":
        return key, signal_name(value) or f"signal {value}"
    if key == "state" and value in State.__members__:
        return key, State[value].words
    return key, cut(one_line(str(value)), _LONGEST_FIELD)


def _explained(given: str) -> str:
    """The hint that came with the exit, with what the signal that it names usually means."""
    if not given:
        return ""
    words = given.strip(" ()")
    meaning = next((meaning for name, meaning in _SIGNAL_HINTS.items() if name in words), "")
    return f" ({words}: {meaning})" if meaning else f" ({words})"


def _integer(value: Any) -> int | None:
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        return None


def title(experiment: Experiment, ran_s: float | None) -> str:
    """The title of the check run: the state's word first, then what one wants to know of it.

    Args:
        experiment: as it stands.
        ran_s: how long the command of the last attempt ran, once that is known.
    """
    progress, state = experiment.progress, experiment.state
    if state in TERMINAL:
        return _end_title(progress, experiment.detail, ran_s)
    if experiment.wish is not None and state is not State.NETWORK_TEARDOWN:
        return f"{state.words} – to be {wished(one_line(experiment.wish.why))}"
    if state is State.CREATED:
        return state.words
    more = _progress_words(experiment)
    return f"{state.words} – {more}" if more else state.words


def _progress_words(experiment: Experiment) -> str:
    progress = experiment.progress
    why = short_cause(progress.cause, experiment.detail) if progress.cause else ""
    if experiment.state is State.NETWORK_TEARDOWN:
        return f"{why}, then {_attempt(progress)}" if progress.intended is State.PENDING else why
    if experiment.state is State.PENDING and progress.cause is not None:
        return f"{_attempt(progress)}, {why}"
    if experiment.state is State.PENDING and experiment.pending_reason:
        # "Waits for 1 GPU: host-a has 0 …, 3 experiments are ahead.": a title has room for the first part.
        return _lower_first(experiment.pending_reason.partition(": ")[0].removesuffix("."))
    return _attempt(progress) if progress.tries > 1 else ""


def _attempt(progress: Progress) -> str:
    """Which try it is, of how many: those that the budget of the last end still allows."""
    budget = VERDICTS[progress.cause].budget if progress.cause else Budget.NONE
    if budget is Budget.FREE:
        return "queued again"
    most = {
        Budget.USER: 1 + progress.user_retries + progress.infrastructure_retries_used,
        Budget.INFRASTRUCTURE: 1 + progress.infrastructure_retries + progress.user_retries_used,
    }.get(budget)
    return f"attempt {progress.tries} of {most}" if most else f"attempt {progress.tries}"


def _end_title(progress: Progress, detail: Mapping[str, Any], ran_s: float | None) -> str:
    why = short_cause(progress.cause, detail) if progress.cause else ""
    match progress.state:
        case State.STOPPED:
            return "Stopped (success)" + (f" after {durations.duration(ran_s)}" if ran_s is not None else "")
        case State.FAILED | State.CANCELLED:
            words = progress.state.words
        case State.ERROR:
            words = "Error (infrastructure)"
        case (
            State.CREATED
            | State.PENDING
            | State.PROVISIONING
            | State.PROVISIONED
            | State.NETWORK_SETUP
            | State.RUNNING
            | State.NETWORK_TEARDOWN
        ):
            raise ValueError(f"{progress.state} is no end")
        case _:
            assert_never(progress.state)
    # Only ends that a budget could have put off are exact about how many tries there were.
    tried = progress.cause is not None and VERDICTS[progress.cause].budget in (Budget.USER, Budget.INFRASTRUCTURE)
    after = f", after {amounts.plural(progress.tries, 'attempt')}" if tried and progress.tries > 1 else ""
    if progress.cause is Cause.WISHED:
        why = wished(why)
        return why[:1].upper() + why[1:]
    return f"{words}: {_lower_first(why)}{after}" if why else words


def _lower_first(text: str) -> str:
    """A sentence as part of another; "GPUs" and other words in capitals stay."""
    return text[:1].lower() + text[1:] if text[1:2].islower() or text[1:2] == " " else text
