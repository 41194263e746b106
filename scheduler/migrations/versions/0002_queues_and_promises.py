"""Queues as versions of one file, promised starts, and what preempted jobs need not do again."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Add the columns and the table; `queues`, which nothing was ever written to, gives way to it."""
    op.add_column("jobs", sa.Column("executed", sa.Double(), server_default="0", nullable=False))
    op.add_column("jobs", sa.Column("min_runtime", sa.Double(), server_default="0", nullable=False))
    op.add_column("decisions", sa.Column("promises", sa.JSON(), nullable=True))
    op.drop_table("queues")
    op.create_table(
        "queue_versions",
        sa.Column("number", NUMBER, autoincrement=False, nullable=False),
        sa.Column("time", sa.Double(), nullable=False),
        sa.Column("user", sa.Text(), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("file", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_queue_versions")),
    )
