"""What keeps jobs safe under faults: causes, nodes and their windows, users, archives, sealed secrets."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Each part adds its own columns and tables."""
    _lease()
    _secrets()
    _arrays_and_archives()
    _users()
    _maintenance()
    _causes()


def _lease() -> None:
    """What a second control plane goes by, and workdirs where two can reach them."""
    for name, kind, default in (
        ("url", sa.Text(), ""),
        ("ttl", sa.Double(), "15"),
        ("beat", NUMBER, "0"),
        ("cluster", sa.Text(), ""),
        ("boot", sa.Text(), ""),
        ("uptime", sa.Double(), "0"),
        ("seen", sa.Double(), "0"),
    ):
        op.add_column("leases", sa.Column(name, kind, server_default=default, nullable=False))
    op.create_table(
        "snapshots",
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("part", NUMBER, nullable=False),
        sa.Column("parts", NUMBER, nullable=False),
        sa.Column("touched", sa.Double(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("sha256", "part", name=op.f("pk_snapshots")),
    )


def _secrets() -> None:
    """Which key sealed a secret; those of before are plain until the store opens (store/sealed.py)."""
    op.add_column("job_secrets", sa.Column("key", sa.Text(), server_default="plain", nullable=False))


def _users() -> None:
    """Who may ask for what, and the hashes of the tokens that they were given."""
    for name, kind, default in (
        ("role", sa.Text(), "user"),
        ("disabled", sa.Boolean(), sa.false()),
        ("created", sa.Double(), "0"),
    ):
        op.add_column("users", sa.Column(name, kind, server_default=default, nullable=False))
    op.add_column("users", sa.Column("groups", sa.JSON(), nullable=True))
    op.create_table(
        "tokens",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("user", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("created", sa.Double(), nullable=False),
        sa.Column("expires", sa.Double(), nullable=True),
        sa.Column("revoked", sa.Double(), nullable=True),
        sa.Column("last_used", sa.Double(), nullable=True),
        sa.Column("last_from", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tokens")),
    )
    op.create_index(op.f("ix_tokens_user"), "tokens", ["user"])


def _arrays_and_archives() -> None:
    """Tasks know their array; a part of the history that lies in files is known."""
    op.add_column("jobs", sa.Column("array_id", NUMBER, nullable=True))
    op.add_column("jobs", sa.Column("array_index", NUMBER, nullable=True))
    op.add_column("jobs", sa.Column("array_state", sa.JSON(), nullable=True))
    for columns in (["array_id", "array_index"], ["ended"]):
        where = sa.text(f"{columns[0]} IS NOT NULL")
        name = op.f(f"ix_jobs_{'_'.join(columns)}")
        op.create_index(name, "jobs", columns, sqlite_where=where, postgresql_where=where)
    op.create_table(
        "archives",
        sa.Column("number", NUMBER, autoincrement=False, nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("made", sa.Double(), nullable=False),
        sa.Column("folder", sa.Text(), nullable=False),
        sa.Column("first", sa.Double(), nullable=False),
        sa.Column("last", sa.Double(), nullable=False),
        sa.Column("first_job", NUMBER, nullable=False),
        sa.Column("last_job", NUMBER, nullable=False),
        sa.Column("rows", sa.JSON(), nullable=False),
        sa.Column("files", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_archives")),
    )


def _maintenance() -> None:
    """Times in which nodes are not for jobs."""
    op.create_table(
        "maintenance",
        sa.Column("id", NUMBER, autoincrement=False, nullable=False),
        sa.Column("start", sa.Double(), nullable=False),
        sa.Column("end", sa.Double(), nullable=False),
        sa.Column("cancelled", sa.Double(), nullable=True),
        sa.Column("data", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_maintenance")),
    )


def _causes() -> None:
    """Why attempts ended, and what retries have used up."""
    op.add_column("jobs", sa.Column("cause", sa.Text(), server_default="", nullable=False))
    op.add_column("jobs", sa.Column("tried", sa.JSON(), nullable=True))
    for name in ("cause", "cause_detail", "failed_node"):
        op.add_column("attempts", sa.Column(name, sa.Text(), server_default="", nullable=False))
