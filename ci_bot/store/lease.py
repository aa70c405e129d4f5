"""Leases: who may act now. The epoch goes up with every takeover and fences off whoever was before."""

from sqlalchemy import Connection, Engine, case, select, update

from ci_bot.store.deliveries import changed
from ci_bot.store.engine import WORKER_LEASE, begin
from ci_bot.store.tables import insert, lease

__all__ = ["WORKER_LEASE", "acquire", "holder", "release", "renew"]


def acquire(engine: Engine, name: str, holder: str, now: float, ttl_s: float) -> int | None:
    """Take a lease that nobody holds, that has expired, or that this holder has.

    Args:
        engine: the database.
        name: what for; `WORKER_LEASE` is the one that `begin` checks.
        holder: unique for each process that ever runs.
        now: the time.
        ttl_s: how long it lasts unless renewed.

    Returns:
        The new epoch, or None while another one holds it.
    """
    with begin(engine) as connection:
        statement = insert(connection, lease).values(name=name, holder=holder, epoch=1, expires_at=now + ttl_s)
        taken = statement.on_conflict_do_update(
            index_elements=["name"],
            set_={"holder": holder, "epoch": lease.c.epoch + 1, "expires_at": now + ttl_s},
            where=(lease.c.expires_at <= now) | (lease.c.holder == holder),
        ).returning(lease.c.epoch)
        epoch: int | None = connection.execute(taken).scalar()
        return epoch


def renew(engine: Engine, name: str, holder: str, epoch: int, now: float, ttl_s: float) -> bool:
    """Hold it for longer; False if another one has taken over."""
    with begin(engine) as connection:
        mine = (lease.c.name == name) & (lease.c.holder == holder) & (lease.c.epoch == epoch)
        # Never shorter than promised before, should the clock have gone back.
        until = case((lease.c.expires_at > now + ttl_s, lease.c.expires_at), else_=now + ttl_s)
        return changed(connection, update(lease).where(mine).values(expires_at=until)) == 1


def release(engine: Engine, name: str, holder: str, epoch: int) -> bool:
    """Give it back, so that the next one need not wait; False if another one has taken over.

    The row stays, so that epochs are never used twice.
    """
    with begin(engine) as connection:
        mine = (lease.c.name == name) & (lease.c.holder == holder) & (lease.c.epoch == epoch)
        released = update(lease).where(mine).values(holder="", epoch=lease.c.epoch + 1, expires_at=0.0)
        return changed(connection, released) == 1


def holder(connection: Connection, name: str) -> tuple[str, float]:
    """Who has it and until when; nobody ("") when it was never taken or was given back."""
    row = connection.execute(select(lease.c.holder, lease.c.expires_at).where(lease.c.name == name)).one_or_none()
    return ("", 0.0) if row is None else (row.holder, row.expires_at)
