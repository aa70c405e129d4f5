"""Deliveries know their lane, so that one repository's can wait while the others' go on."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

PENDING = sa.text("processed_at IS NULL")


def upgrade() -> None:
    """Add the column, and have the index of what waits begin with it."""
    op.add_column("delivery", sa.Column("lane", sa.BigInteger()))
    op.drop_index("ix_delivery_pending", "delivery")
    op.create_index(
        "ix_delivery_pending",
        "delivery",
        ["lane", "seq", "processed_at", "tries", "next_try_at"],
        sqlite_where=PENDING,
        postgresql_where=PENDING,
    )
