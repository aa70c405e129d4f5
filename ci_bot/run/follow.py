"""Shows experiments as they go: every transition, and the log of the attempt that runs."""

import json
import sys
from dataclasses import dataclass, field

from ci_bot.config import is_secret_name
from ci_bot.records import Experiment, Transition
from ci_bot.report.redact import Stream
from ci_bot.report.terminal import ending, heading, log_lines, state_line, transition_record
from ci_bot.report.timeline import ran_s
from launcher.guardian.segments import cut_mark
from launcher.keep import Keep
from launcher.state import TERMINAL, State
from launcher.topology import members_of

PIECE_BYTES = 1 << 20


@dataclass
class Reading:
    """How far the log of one node of an attempt was shown."""

    stream: Stream
    offset: int = 0


@dataclass
class Follower:
    """One experiment, shown from its beginning to its end.

    Transitions and everything else go to standard output. With `as_json` only transitions do, one object a line, and
    the log goes to standard error. Of several nodes each line says whose it is.
    """

    keep: Keep
    max_bytes: int
    as_json: bool
    label: str = ""
    """Before each line, where several experiments run side by side."""
    _shown: int = 0
    _reason: str = ""
    _attempt: int = 0
    _logs: list[Reading] = field(default_factory=list)
    """By rank."""
    _over: bool = False

    def show(self, experiment: Experiment, history: list[Transition]) -> None:
        """Whatever is new."""
        if not self._shown and not self.as_json:
            self._say(heading(experiment, _secrets(experiment)))
        for transition in history[self._shown :]:
            if transition.state in TERMINAL | {State.NETWORK_TEARDOWN, State.PENDING}:
                self._show_log(experiment)
            self._show_transition(experiment, transition, history[0].at)
            self._follow_attempt(experiment, transition.attempt)
            if transition.state in TERMINAL | {State.PENDING}:
                self._show_log(experiment, final=True)
        self._shown = len(history)
        self._show_log(experiment)
        self._show_reason(experiment)
        if experiment.state in TERMINAL and not self._over:
            self._over = True
            self._conclude(experiment, history)

    def _show_transition(self, experiment: Experiment, transition: Transition, began_at: float) -> None:
        secrets = _secrets(experiment)
        if self.as_json:
            print(json.dumps(transition_record(experiment.name, transition, secrets)), flush=True)
        else:
            self._say(state_line(transition, began_at, secrets))

    def _show_reason(self, experiment: Experiment) -> None:
        if experiment.pending_reason != self._reason:
            self._reason = experiment.pending_reason
            for line in log_lines(self._reason, _secrets(experiment)):
                self._remark(line)

    def _conclude(self, experiment: Experiment, history: list[Transition]) -> None:
        if not self.as_json:
            self._say(ending(experiment, ran_s(history), _secrets(experiment)))
        for note in experiment.notes:
            self._remark(f"Note: {note}")

    def _follow_attempt(self, experiment: Experiment, attempt: int) -> None:
        if attempt != self._attempt:
            self._attempt = attempt
            self._logs = [Reading(Stream(_secrets(experiment))) for _ in members_of(experiment.specification)]

    def _show_log(self, experiment: Experiment, *, final: bool = False) -> None:
        """The logs as far as they are here; each in its own order."""
        if not self._attempt:
            return
        for (rank, reading), whose in zip(enumerate(self._logs), _marks(experiment), strict=True):
            log = self.keep.log(experiment.id, self._attempt, rank, self.max_bytes)
            while True:
                chunk = log.read(reading.offset, PIECE_BYTES)
                piece = cut_mark(reading.offset, chunk) + chunk.data
                reading.offset = chunk.next_offset
                last = final and not chunk.data
                text, reading.stream = reading.stream.feed(piece, final=last)
                for line in log_lines(text, _secrets(experiment), whose):
                    self._remark(line)
                if not chunk.data:
                    break

    def _say(self, line: str) -> None:
        print(f"{self.label}{line}", flush=True)

    def _remark(self, line: str) -> None:
        print(f"{self.label}{line}", file=sys.stderr if self.as_json else sys.stdout, flush=True)


def _marks(experiment: Experiment) -> list[str]:
    """Whose a line is, by rank, all of one width; nothing where there is but one node."""
    members = members_of(experiment.specification)
    if len(members) == 1:
        return [""]
    names = [f"{member.role} {member.index}" for member in members]
    width = max(map(len, names))
    return [f"{name:<{width}} " for name in names]


def _secrets(experiment: Experiment) -> tuple[str, ...]:
    return tuple(value for name, value in experiment.specification.env.items() if is_secret_name(name))
