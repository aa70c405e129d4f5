"""Whether a node still belongs to the cluster it was born in; a TCP connection proves nothing.

A node that was cut off must end what it runs before the same experiment starts elsewhere.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto

log = logging.getLogger(__name__)
PROBE_PERIOD_S = 1.0
PROBE_TIMEOUT_S = 2.0


class Answer(Enum):
    """What a probe of the cluster's head came to."""

    OURS = auto()
    SILENCE = auto()
    ANOTHER = auto()  # somebody answers at the head's address, but not the cluster we were born in


def head_probe(address: str, cluster_id: str) -> Callable[[], Answer]:
    """A probe: one call that only the head of this very cluster can answer."""
    from ray._raylet import GcsClient  # type: ignore[attr-defined]  # its stub leaves it out
    from ray.exceptions import AuthenticationError, RayError

    client = GcsClient(address=address, cluster_id=cluster_id)

    def probe() -> Answer:
        try:
            client.internal_kv_get(b"descent", b"probe", timeout=PROBE_TIMEOUT_S)
        except AuthenticationError:  # "WrongClusterID" of a new head, or another token
            return Answer.ANOTHER
        except (RayError, OSError, RuntimeError):
            return Answer.SILENCE
        return Answer.OURS

    return probe


@dataclass
class Fence:
    """Watches the head from a thread of its own.

    `fall` is called with the reason when the cluster is another, at once, or when it was silent for longer than
    `silence_s`; and again as long as that lasts, since something may have started meanwhile.
    """

    probe: Callable[[], Answer]
    silence_s: float
    fall: Callable[[str], None]
    answered_at: float = field(default_factory=time.monotonic)

    def start(self) -> None:
        """Begin to watch; the thread ends with the process."""
        threading.Thread(target=self._run, name="fence", daemon=True).start()

    def _run(self) -> None:
        while True:
            answer = self.probe()
            try:
                self.hear(answer, time.monotonic())
            except Exception:  # the next round tries again: a fence that ends protects nobody
                log.exception("what runs here could not be ended")
            time.sleep(PROBE_PERIOD_S)

    def hear(self, answer: Answer, now: float) -> None:
        """Act on what a probe came to."""
        if answer is Answer.OURS:
            self.answered_at = now
        elif answer is Answer.ANOTHER:
            self.fall("the head's address is answered by another cluster")
        elif now - self.answered_at > self.silence_s:
            self.fall(f"the head has not answered for {now - self.answered_at:.0f} s")
