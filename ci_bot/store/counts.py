"""How much there is of everything, for the metrics."""

from dataclasses import dataclass

from sqlalchemy import Connection, func, select

from ci_bot.store.engine import WORKER_LEASE
from ci_bot.store.tables import check_run, delivery, experiment, lease, undelivered
from launcher.state import State


@dataclass(frozen=True)
class Counts:
    """Numbers of rows at one moment."""

    deliveries_received: int
    """The newest sequence number: what was pruned since was received too."""
    experiments: dict[State, int]
    """Every state, those without any too."""
    check_runs_undelivered: int
    check_runs_undeliverable: int
    lease_expires_at: float | None
    """When the worker's lease ends; None when there never was one, or it was given back."""


def counts(connection: Connection) -> Counts:
    """Count everything."""
    by_state = connection.execute(select(experiment.c.state, func.count()).group_by(experiment.c.state)).all()
    known = {row[0]: row[1] for row in by_state}
    gone = select(func.count()).select_from(check_run).where(check_run.c.undeliverable.is_not(None))
    waiting = select(func.count()).select_from(check_run).where(undelivered)
    expires_at = connection.execute(select(lease.c.expires_at).where(lease.c.name == WORKER_LEASE)).scalar()
    return Counts(
        deliveries_received=connection.execute(select(func.coalesce(func.max(delivery.c.seq), 0))).scalar_one(),
        experiments={state: known.get(state.value, 0) for state in State},
        check_runs_undelivered=connection.execute(waiting).scalar_one(),
        check_runs_undeliverable=connection.execute(gone).scalar_one(),
        lease_expires_at=expires_at or None,
    )
