"""What Descent remembers, in SQLite or PostgreSQL by the same code; the only room with SQL."""

from ci_bot.store.engine import LeaseLost, UnknownRevision, begin, migrate, open_engine, reading

__all__ = ["LeaseLost", "UnknownRevision", "begin", "migrate", "open_engine", "reading"]
