"""The first tables."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def where(condition: str) -> dict[str, Any]:
    """The condition of a partial index, for either database."""
    return {"sqlite_where": sa.text(condition), "postgresql_where": sa.text(condition)}


def upgrade() -> None:
    """Create every table and index."""
    _create_deliveries()
    _create_repositories()
    _create_experiments()
    _create_timelines_and_claims()
    _create_check_runs()
    _create_leases_and_quarantine()


def _create_deliveries() -> None:
    op.create_table(
        "delivery",
        sa.Column("seq", ID, autoincrement=True, nullable=False),
        sa.Column("guid", sa.Text(), nullable=False),
        sa.Column("event", sa.Text(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("received_at", sa.Double(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("processed_at", sa.Double(), nullable=True),
        sa.Column("outcome", sa.Text(), nullable=True),
        sa.Column("tries", sa.Integer(), server_default="0", nullable=False),
        sa.Column("next_try_at", sa.Double(), server_default="0", nullable=False),
        sa.CheckConstraint("source IN ('webhook', 'recovered')", name=op.f("ck_delivery_source")),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_delivery")),
        sa.UniqueConstraint("guid", name=op.f("uq_delivery_guid")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_delivery_pending", "delivery", ["seq"], **where("processed_at IS NULL"))
    op.create_index("ix_delivery_received_at", "delivery", ["received_at"])
    op.create_table(
        "mark",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_mark")),
    )


def _create_repositories() -> None:
    op.create_table(
        "repository",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("installation_id", sa.BigInteger(), nullable=False),
        sa.Column("full_name", sa.Text(), nullable=False),
        sa.Column("default_branch", sa.Text(), nullable=False),
        sa.Column("private", sa.Boolean(), nullable=False),
        sa.Column("removed_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_repository")),
    )
    op.create_index(op.f("ix_repository_installation_id"), "repository", ["installation_id"])
    op.create_table(
        "approval",
        sa.Column("repository_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("head_sha", sa.Text(), nullable=False),
        sa.Column("approver", sa.Text(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("repository_id", "head_sha", name=op.f("pk_approval")),
    )


def _create_experiments() -> None:
    op.create_table(
        "experiment",
        sa.Column("id", ID, autoincrement=True, nullable=False),
        sa.Column("repository_id", sa.BigInteger(), nullable=False),
        sa.Column("installation_id", sa.BigInteger(), nullable=False),
        sa.Column("full_name", sa.Text(), nullable=False),
        sa.Column("head_sha", sa.Text(), nullable=False),
        sa.Column("ref", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("rerun", sa.Integer(), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("specification", sa.Text(), nullable=False),
        sa.Column("configuration_path", sa.Text(), nullable=False),
        sa.Column("configuration_source", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("cause", sa.Text(), nullable=True),
        sa.Column("intended", sa.Text(), nullable=True),
        sa.Column("user_retries", sa.Integer(), nullable=False),
        sa.Column("user_retries_used", sa.Integer(), nullable=False),
        sa.Column("infrastructure_retries", sa.Integer(), nullable=False),
        sa.Column("infrastructure_retries_used", sa.Integer(), nullable=False),
        sa.Column("detail", sa.Text(), server_default="{}", nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("state_at", sa.Double(), nullable=False),
        sa.Column("queued_at", sa.Double(), nullable=True),
        sa.Column("running_at", sa.Double(), nullable=True),
        sa.Column("ended_at", sa.Double(), nullable=True),
        sa.Column("trusted", sa.Boolean(), server_default=sa.true(), nullable=False),
        sa.Column("wish_by", sa.Text(), nullable=True),
        sa.Column("wish_why", sa.Text(), nullable=True),
        sa.Column("wish_at", sa.Double(), nullable=True),
        sa.Column("held", sa.Text(), server_default="{}", nullable=False),
        sa.Column("notes", sa.Text(), server_default="[]", nullable=False),
        sa.Column("pending_reason", sa.Text(), server_default="", nullable=False),
        sa.Column("version", sa.Integer(), server_default="1", nullable=False),
        sa.Column("reported_version", sa.Integer(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_experiment")),
        sa.UniqueConstraint(
            "repository_id", "head_sha", "name", "rerun", name=op.f("uq_experiment_repository_id_head_sha_name_rerun")
        ),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_experiment_cause", "experiment", ["cause"])
    op.create_index("ix_experiment_state", "experiment", ["state"])
    op.create_index("ix_experiment_unreported", "experiment", ["id"], **where("version != reported_version"))


def _create_timelines_and_claims() -> None:
    op.create_table(
        "transition",
        sa.Column("experiment_id", ID, nullable=False),
        sa.Column("sequence", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("reason", sa.Text(), server_default="", nullable=False),
        sa.Column("cause", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["experiment_id"], ["experiment.id"], name=op.f("fk_transition_experiment_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("experiment_id", "sequence", name=op.f("pk_transition")),
    )
    op.create_table(
        "claim",
        sa.Column("id", ID, autoincrement=True, nullable=False),
        sa.Column("experiment_id", ID, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("lasting", sa.Boolean(), nullable=False),
        sa.Column("made_at", sa.Double(), nullable=False),
        sa.Column("ended_at", sa.Double(), nullable=True),
        sa.Column("ended_why", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["experiment_id"], ["experiment.id"], name=op.f("fk_claim_experiment_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_claim")),
        sa.UniqueConstraint("experiment_id", "kind", "key", name=op.f("uq_claim_experiment_id_kind_key")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_claim_open", "claim", ["kind", "key"], **where("ended_at IS NULL"))


def _create_check_runs() -> None:
    op.create_table(
        "check_run",
        sa.Column("id", ID, autoincrement=True, nullable=False),
        sa.Column("repository_id", sa.BigInteger(), nullable=False),
        sa.Column("head_sha", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("experiment_id", ID, nullable=True),
        sa.Column("experiment_version", sa.Integer(), server_default="0", nullable=False),
        sa.Column("wanted", sa.Text(), nullable=False),
        sa.Column("wanted_digest", sa.Text(), nullable=False),
        sa.Column("completed", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("acknowledged_digest", sa.Text(), server_default="", nullable=False),
        sa.Column("acknowledged_at", sa.Double(), nullable=True),
        sa.Column("github_id", sa.BigInteger(), nullable=True),
        sa.Column("annotations_sent", sa.Integer(), server_default="0", nullable=False),
        sa.Column("tries", sa.Integer(), server_default="0", nullable=False),
        sa.Column("next_try_at", sa.Double(), server_default="0", nullable=False),
        sa.Column("undeliverable", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["experiment_id"], ["experiment.id"], name=op.f("fk_check_run_experiment_id"), ondelete="SET NULL"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_check_run")),
        sa.UniqueConstraint(
            "repository_id",
            "head_sha",
            "name",
            "generation",
            name=op.f("uq_check_run_repository_id_head_sha_name_generation"),
        ),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "ix_check_run_due",
        "check_run",
        ["next_try_at"],
        **where("wanted_digest != acknowledged_digest AND undeliverable IS NULL"),
    )
    op.create_index(op.f("ix_check_run_experiment_id"), "check_run", ["experiment_id"])
    op.create_index("ix_check_run_github_id", "check_run", ["repository_id", "github_id"])


def _create_leases_and_quarantine() -> None:
    op.create_table(
        "lease",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("holder", sa.Text(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_lease")),
    )
    op.create_table(
        "quarantine",
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("since", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("host", name=op.f("pk_quarantine")),
    )
