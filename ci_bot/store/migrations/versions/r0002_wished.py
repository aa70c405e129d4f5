"""An index of what is wished to end: found at once, however many wait."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

WISHED = sa.text("wish_at IS NOT NULL AND ended_at IS NULL")


def upgrade() -> None:
    """Create the index."""
    op.create_index("ix_experiment_wished", "experiment", ["id"], sqlite_where=WISHED, postgresql_where=WISHED)
