"""When a call may be made: a polite pace for writes, and silence while GitHub wants it. No clock of its own."""

from dataclasses import dataclass, field

INTERVAL_S = 1.0  # "wait at least one second between each" write
BURST = 10  # one experiment's states go out at once; 10 + 60 stay below GitHub's 80 a minute


@dataclass
class Pace:
    """The state of the limits of each installation (0 stands for the App itself)."""

    interval_s: float = INTERVAL_S
    burst: int = BURST
    _paid_until: dict[int, float] = field(default_factory=dict)
    _silent_until: dict[int, float] = field(default_factory=dict)
    _strikes: dict[int, int] = field(default_factory=dict)

    def reserve_write_s(self, installation_id: int, now: float) -> float:
        """Take the next place for a write; how long to wait for it."""
        slack = self.interval_s * (self.burst - 1)
        paid = max(self._paid_until.get(installation_id, 0.0), now)
        self._paid_until[installation_id] = paid + self.interval_s
        return max(0.0, paid - now - slack)

    def silent_until(self, installation_id: int, now: float) -> float | None:
        """Until when GitHub wants no calls, or None."""
        until = self._silent_until.get(installation_id, 0.0)
        return until if until > now else None

    def attempt(self, installation_id: int) -> int:
        """Which attempt in a row the current call is, for growing pauses."""
        return self._strikes.get(installation_id, 0) + 1

    def limited(self, installation_id: int, until: float) -> None:
        """GitHub asked for a pause."""
        self._silent_until[installation_id] = max(until, self._silent_until.get(installation_id, 0.0))
        self._strikes[installation_id] = self._strikes.get(installation_id, 0) + 1

    def succeeded(self, installation_id: int) -> None:
        """A call went through: the next pause starts small again."""
        self._strikes.pop(installation_id, None)

    def forget(self, installation_id: int) -> None:
        """The installation is gone."""
        for state in (self._paid_until, self._silent_until, self._strikes):
            state.pop(installation_id, None)
