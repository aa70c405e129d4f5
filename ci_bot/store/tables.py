"""The tables, and how values become columns. Times are float seconds since the epoch."""

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Connection,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    TypeDecorator,
    UniqueConstraint,
    false,
    true,
)
from sqlalchemy import Text as SqlText
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Dialect


class Text(TypeDecorator[str]):
    """Text from anywhere: PostgreSQL refuses NUL, neither database takes half a surrogate pair."""

    impl = SqlText
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Put the replacement character where no database could store what was there."""
        if value is None:
            return None
        value = str(value)  # an enumeration's member becomes its value
        if value.isascii() and "\0" not in value:
            return value
        return value.replace("\0", "\ufffd").encode("utf-8", "surrogatepass").decode("utf-8", "replace")


# SQLite hands out ids by itself only for a column whose type is exactly INTEGER.
Id = BigInteger().with_variant(Integer, "sqlite")

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)

delivery = Table(
    "delivery",
    metadata,
    Column("seq", Id, primary_key=True, autoincrement=True),
    Column("guid", Text, nullable=False, unique=True),
    Column("event", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("received_at", Double, nullable=False),
    Column("source", Text, nullable=False),
    Column("processed_at", Double),
    Column("outcome", Text),
    Column("tries", Integer, nullable=False, server_default="0"),
    Column("next_try_at", Double, nullable=False, server_default="0"),
    Column("lane", BigInteger),
    CheckConstraint("source IN ('webhook', 'recovered')", name="source"),
    sqlite_autoincrement=True,
)
# Whatever the number of rows kept, those to be worked on are few and found at once. It holds all that is asked of them
# but the body, behind which SQLite finds a column only by reading the body.
_unprocessed = delivery.c.processed_at.is_(None)
Index(
    "ix_delivery_pending",
    *(delivery.c.lane, delivery.c.seq, delivery.c.processed_at, delivery.c.tries, delivery.c.next_try_at),
    sqlite_where=_unprocessed,
    postgresql_where=_unprocessed,
)
Index("ix_delivery_received_at", delivery.c.received_at)

repository = Table(
    "repository",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("installation_id", BigInteger, nullable=False, index=True),
    Column("full_name", Text, nullable=False),
    Column("default_branch", Text, nullable=False),
    Column("private", Boolean, nullable=False),
    Column("removed_at", Double),
)

experiment = Table(
    "experiment",
    metadata,
    Column("id", Id, primary_key=True, autoincrement=True),
    Column("repository_id", BigInteger, nullable=False),
    Column("installation_id", BigInteger, nullable=False),
    Column("full_name", Text, nullable=False),
    Column("head_sha", Text, nullable=False),
    Column("ref", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("rerun", Integer, nullable=False),
    Column("title", Text, nullable=False),
    Column("specification", Text, nullable=False),  # JSON
    Column("configuration_path", Text, nullable=False),
    Column("configuration_source", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("cause", Text),
    Column("intended", Text),
    Column("user_retries", Integer, nullable=False),
    Column("user_retries_used", Integer, nullable=False),
    Column("infrastructure_retries", Integer, nullable=False),
    Column("infrastructure_retries_used", Integer, nullable=False),
    Column("detail", Text, nullable=False, server_default="{}"),  # JSON
    Column("created_at", Double, nullable=False),
    Column("state_at", Double, nullable=False),
    Column("queued_at", Double),
    Column("running_at", Double),
    Column("ended_at", Double),
    Column("trusted", Boolean, nullable=False, server_default=true()),
    Column("wish_by", Text),
    Column("wish_why", Text),
    Column("wish_at", Double),
    Column("held", Text, nullable=False, server_default="{}"),  # JSON
    Column("notes", Text, nullable=False, server_default="[]"),  # JSON
    Column("pending_reason", Text, nullable=False, server_default=""),
    Column("version", Integer, nullable=False, server_default="1"),
    Column("reported_version", Integer, nullable=False, server_default="0"),
    UniqueConstraint("repository_id", "head_sha", "name", "rerun"),
    Index("ix_experiment_state", "state"),
    Index("ix_experiment_cause", "cause"),
    sqlite_autoincrement=True,
)
_unreported = experiment.c.version != experiment.c.reported_version
Index("ix_experiment_unreported", experiment.c.id, sqlite_where=_unreported, postgresql_where=_unreported)
_wished = experiment.c.wish_at.is_not(None) & experiment.c.ended_at.is_(None)
Index("ix_experiment_wished", experiment.c.id, sqlite_where=_wished, postgresql_where=_wished)

transition = Table(
    "transition",
    metadata,
    Column("experiment_id", ForeignKey("experiment.id", ondelete="CASCADE"), primary_key=True),
    Column("sequence", Integer, primary_key=True, autoincrement=False),
    Column("attempt", Integer, nullable=False),
    Column("state", Text, nullable=False),
    Column("at", Double, nullable=False),
    Column("reason", Text, nullable=False, server_default=""),
    Column("cause", Text),
)

claim = Table(
    "claim",
    metadata,
    Column("id", Id, primary_key=True, autoincrement=True),
    Column("experiment_id", ForeignKey("experiment.id", ondelete="CASCADE"), nullable=False),
    Column("kind", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("lasting", Boolean, nullable=False),
    Column("made_at", Double, nullable=False),
    Column("ended_at", Double),
    Column("ended_why", Text),
    UniqueConstraint("experiment_id", "kind", "key"),
    sqlite_autoincrement=True,
)
_open = claim.c.ended_at.is_(None)
Index("ix_claim_open", claim.c.kind, claim.c.key, sqlite_where=_open, postgresql_where=_open)

check_run = Table(
    "check_run",
    metadata,
    Column("id", Id, primary_key=True, autoincrement=True),
    Column("repository_id", BigInteger, nullable=False),
    Column("head_sha", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("experiment_id", ForeignKey("experiment.id", ondelete="SET NULL"), index=True),
    Column("experiment_version", Integer, nullable=False, server_default="0"),
    Column("wanted", Text, nullable=False),  # JSON
    Column("wanted_digest", Text, nullable=False),
    Column("completed", Boolean, nullable=False, server_default=false()),
    Column("acknowledged_digest", Text, nullable=False, server_default=""),
    Column("acknowledged_at", Double),
    Column("github_id", BigInteger),
    Column("annotations_sent", Integer, nullable=False, server_default="0"),
    Column("tries", Integer, nullable=False, server_default="0"),
    Column("next_try_at", Double, nullable=False, server_default="0"),
    Column("undeliverable", Text),
    UniqueConstraint("repository_id", "head_sha", "name", "generation"),
    sqlite_autoincrement=True,
)
undelivered = (check_run.c.wanted_digest != check_run.c.acknowledged_digest) & check_run.c.undeliverable.is_(None)
Index("ix_check_run_due", check_run.c.next_try_at, sqlite_where=undelivered, postgresql_where=undelivered)
Index("ix_check_run_github_id", check_run.c.repository_id, check_run.c.github_id)

approval = Table(
    "approval",
    metadata,
    Column("repository_id", BigInteger, primary_key=True, autoincrement=False),
    Column("head_sha", Text, primary_key=True),
    Column("approver", Text, nullable=False),
    Column("at", Double, nullable=False),
)

lease = Table(
    "lease",
    metadata,
    Column("name", Text, primary_key=True),
    Column("holder", Text, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("expires_at", Double, nullable=False),
)

quarantine = Table(
    "quarantine",
    metadata,
    Column("host", Text, primary_key=True),
    Column("why", Text, nullable=False),
    Column("since", Double, nullable=False),
)

mark = Table("mark", metadata, Column("name", Text, primary_key=True), Column("value", Text, nullable=False))


def insert(connection: Connection, table: Table) -> Any:
    """An INSERT of the connection's own dialect, for ON CONFLICT; both dialects spell it alike."""
    return postgresql.insert(table) if connection.dialect.name == "postgresql" else sqlite.insert(table)
