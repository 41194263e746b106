"""The tables of the first release."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
WORD = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Make every table, and say whose database this is."""
    op.create_table(
        "decisions",
        sa.Column("seq", NUMBER, autoincrement=False, nullable=False),
        sa.Column("time", sa.Double(), nullable=False),
        sa.Column("policy", sa.Text(), nullable=False),
        sa.Column("waiting_jobs", NUMBER, nullable=False),
        sa.Column("free_gpus", NUMBER, nullable=False),
        sa.Column("starts", sa.JSON(), nullable=False),
        sa.Column("preemptions", sa.JSON(), nullable=False),
        sa.Column("waiting", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_decisions")),
    )
    op.create_table(
        "events",
        sa.Column("seq", NUMBER, autoincrement=False, nullable=False),
        sa.Column("time", sa.Double(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("job", NUMBER, nullable=False),
        sa.Column("attempt", NUMBER, nullable=False),
        sa.Column("data", sa.JSON(), nullable=True),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_events")),
    )
    op.create_index(op.f("ix_events_job_seq"), "events", ["job", "seq"], unique=False)
    op.create_table(
        "gpu_rollups",
        sa.Column("period", NUMBER, autoincrement=False, nullable=False),
        sa.Column("start", NUMBER, autoincrement=False, nullable=False),
        sa.Column("node", NUMBER, autoincrement=False, nullable=False),
        sa.Column("gpu", NUMBER, autoincrement=False, nullable=False),
        sa.Column("job", NUMBER, autoincrement=False, nullable=False),
        sa.Column("attempt", NUMBER, autoincrement=False, nullable=False),
        sa.Column("samples", NUMBER, nullable=False),
        sa.Column("measured", NUMBER, nullable=False),
        sa.Column("utilization_mean", sa.Double(), nullable=True),
        sa.Column("utilization_max", sa.Double(), nullable=True),
        sa.Column("memory_mean", sa.Double(), nullable=True),
        sa.Column("memory_max", NUMBER, nullable=True),
        sa.Column("power_mean", sa.Double(), nullable=True),
        sa.Column("temperature_max", sa.Double(), nullable=True),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.Column("measured_seconds", sa.Double(), nullable=False),
        sa.Column("used_seconds", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("period", "start", "node", "gpu", "job", "attempt", name=op.f("pk_gpu_rollups")),
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("ix_gpu_rollups_job_period_start"), "gpu_rollups", ["job", "period", "start"], unique=False)
    op.create_table(
        "gpu_samples",
        sa.Column("time", sa.Double(), nullable=False),
        sa.Column("node", NUMBER, autoincrement=False, nullable=False),
        sa.Column("gpu", NUMBER, autoincrement=False, nullable=False),
        sa.Column("job", NUMBER, nullable=False),
        sa.Column("attempt", NUMBER, nullable=False),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.Column("utilization", sa.Double(), nullable=True),
        sa.Column("memory_used", NUMBER, nullable=True),
        sa.Column("power", sa.Double(), nullable=True),
        sa.Column("temperature", sa.Double(), nullable=True),
        sa.Column("processes", sa.JSON(), nullable=True),
        sa.PrimaryKeyConstraint("time", "node", "gpu", name=op.f("pk_gpu_samples")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "job_rollups",
        sa.Column("period", NUMBER, autoincrement=False, nullable=False),
        sa.Column("start", NUMBER, autoincrement=False, nullable=False),
        sa.Column("node", NUMBER, autoincrement=False, nullable=False),
        sa.Column("job", NUMBER, autoincrement=False, nullable=False),
        sa.Column("attempt", NUMBER, autoincrement=False, nullable=False),
        sa.Column("samples", NUMBER, nullable=False),
        sa.Column("cpu_mean", sa.Double(), nullable=True),
        sa.Column("cpu_max", sa.Double(), nullable=True),
        sa.Column("memory_mean", sa.Double(), nullable=True),
        sa.Column("memory_max", NUMBER, nullable=True),
        sa.Column("processes_max", NUMBER, nullable=True),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("period", "start", "node", "job", "attempt", name=op.f("pk_job_rollups")),
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("ix_job_rollups_job_period_start"), "job_rollups", ["job", "period", "start"], unique=False)
    op.create_table(
        "job_samples",
        sa.Column("time", sa.Double(), nullable=False),
        sa.Column("node", NUMBER, autoincrement=False, nullable=False),
        sa.Column("job", NUMBER, autoincrement=False, nullable=False),
        sa.Column("attempt", NUMBER, autoincrement=False, nullable=False),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.Column("cpu", sa.Double(), nullable=True),
        sa.Column("memory", NUMBER, nullable=True),
        sa.Column("processes", NUMBER, nullable=True),
        sa.PrimaryKeyConstraint("time", "node", "job", "attempt", name=op.f("pk_job_samples")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "jobs",
        sa.Column("id", NUMBER, autoincrement=False, nullable=False),
        sa.Column("uid", WORD, nullable=False),
        sa.Column("user", sa.Text(), nullable=False),
        sa.Column("spec", sa.Text(), nullable=True),
        sa.Column("source", sa.Text(), nullable=True),
        sa.Column("submitted", sa.Double(), nullable=False),
        sa.Column("name", WORD, nullable=False),
        sa.Column("queue", sa.Text(), nullable=False),
        sa.Column("priority", NUMBER, nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("shape", sa.JSON(), nullable=False),
        sa.Column("gpus", sa.Double(), nullable=False),
        sa.Column("queued", sa.Double(), nullable=False),
        sa.Column("not_before", sa.Double(), nullable=False),
        sa.Column("placed", sa.Double(), nullable=False),
        sa.Column("started", sa.Double(), nullable=True),
        sa.Column("first_start", sa.Double(), nullable=True),
        sa.Column("ended", sa.Double(), nullable=True),
        sa.Column("attempt", NUMBER, nullable=False),
        sa.Column("failures", NUMBER, nullable=False),
        sa.Column("placement", sa.JSON(), nullable=True),
        sa.Column("stop_cause", sa.Text(), nullable=False),
        sa.Column("exit_code", NUMBER, nullable=True),
        sa.Column("gpu_seconds", sa.Double(), nullable=False),
        sa.Column("estimate", sa.Double(), nullable=True),
        sa.Column("limit", sa.Double(), nullable=True),
        sa.Column("preemptible", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_jobs")),
    )
    op.create_index(op.f("ix_jobs_name_id"), "jobs", ["name", "id"], unique=False)
    op.create_index(op.f("ix_jobs_queue_active_id"), "jobs", ["queue", "active", "id"], unique=False)
    op.create_index(op.f("ix_jobs_state_id"), "jobs", ["state", "id"], unique=False)
    op.create_index(op.f("ix_jobs_state_priority_id"), "jobs", ["state", "priority", "id"], unique=False)
    op.create_index(op.f("ix_jobs_submitted"), "jobs", ["submitted"], unique=False)
    op.create_index(op.f("ix_jobs_uid"), "jobs", ["uid"], unique=True)
    op.create_index(op.f("ix_jobs_user_active_id"), "jobs", ["user", "active", "id"], unique=False)
    op.create_table(
        "leases",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("pid", NUMBER, nullable=False),
        sa.Column("since", sa.Double(), nullable=False),
        sa.Column("expires", sa.Double(), nullable=False),
        sa.Column("term", NUMBER, nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_leases")),
    )
    op.create_table(
        "meta",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_meta")),
    )
    op.create_table(
        "nodes",
        sa.Column("id", NUMBER, autoincrement=False, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("node", sa.JSON(), nullable=False),
        sa.Column("present", sa.Boolean(), nullable=False),
        sa.Column("first_seen", sa.Double(), nullable=False),
        sa.Column("changed", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_nodes")),
    )
    op.create_index(op.f("ix_nodes_name"), "nodes", ["name"], unique=True)
    op.create_table(
        "queues",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("settings", sa.JSON(), nullable=False),
        sa.Column("changed", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_queues")),
    )
    op.create_table(
        "shape_reasons",
        sa.Column("shape", sa.Text(), nullable=False),
        sa.Column("decision", NUMBER, nullable=False),
        sa.Column("time", sa.Double(), nullable=False),
        sa.Column("policy", sa.Text(), nullable=False),
        sa.Column("token", sa.Text(), nullable=False),
        sa.Column("needs", sa.Double(), nullable=False),
        sa.Column("free", sa.Double(), nullable=False),
        sa.Column("largest", NUMBER, nullable=False),
        sa.Column("behind", NUMBER, nullable=False),
        sa.PrimaryKeyConstraint("shape", name=op.f("pk_shape_reasons")),
    )
    op.create_table(
        "users",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("settings", sa.JSON(), nullable=False),
        sa.Column("changed", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_users")),
    )
    op.create_table(
        "attempts",
        sa.Column("job", NUMBER, nullable=False),
        sa.Column("attempt", NUMBER, nullable=False),
        sa.Column("gpus", sa.Double(), nullable=False),
        sa.Column("gpu_type", sa.Text(), nullable=False),
        sa.Column("placed", sa.Double(), nullable=False),
        sa.Column("pieces", sa.JSON(), nullable=False),
        sa.Column("started", sa.Double(), nullable=True),
        sa.Column("stopping", sa.Double(), nullable=True),
        sa.Column("stop_cause", sa.Text(), nullable=False),
        sa.Column("ended", sa.Double(), nullable=True),
        sa.Column("result", sa.Text(), nullable=False),
        sa.Column("exit_code", NUMBER, nullable=True),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("ranks", sa.JSON(), nullable=True),
        sa.Column("checkpoint", sa.Text(), nullable=True),
        sa.Column("lost_work", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(["job"], ["jobs.id"], name=op.f("fk_attempts_job_jobs")),
        sa.PrimaryKeyConstraint("job", "attempt", name=op.f("pk_attempts")),
    )
    op.create_index(op.f("ix_attempts_ended"), "attempts", ["ended"], unique=False)
    op.create_table(
        "gpus",
        sa.Column("node", NUMBER, autoincrement=False, nullable=False),
        sa.Column("gpu", NUMBER, autoincrement=False, nullable=False),
        sa.Column("uuid", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("memory_total", NUMBER, nullable=True),
        sa.ForeignKeyConstraint(["node"], ["nodes.id"], name=op.f("fk_gpus_node_nodes")),
        sa.PrimaryKeyConstraint("node", "gpu", name=op.f("pk_gpus")),
    )
    op.create_table(
        "host_samples",
        sa.Column("node", NUMBER, autoincrement=False, nullable=False),
        sa.Column("time", sa.Double(), nullable=False),
        sa.Column("data", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["node"], ["nodes.id"], name=op.f("fk_host_samples_node_nodes")),
        sa.PrimaryKeyConstraint("node", name=op.f("pk_host_samples")),
    )
    op.create_table(
        "job_labels",
        sa.Column("job", NUMBER, nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["job"], ["jobs.id"], name=op.f("fk_job_labels_job_jobs")),
        sa.PrimaryKeyConstraint("job", "key", name=op.f("pk_job_labels")),
    )
    op.create_index(op.f("ix_job_labels_key_value_job"), "job_labels", ["key", "value", "job"], unique=False)
    op.create_table(
        "job_secrets",
        sa.Column("job", NUMBER, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["job"], ["jobs.id"], name=op.f("fk_job_secrets_job_jobs")),
        sa.PrimaryKeyConstraint("job", "name", name=op.f("pk_job_secrets")),
    )
    op.bulk_insert(
        sa.table("meta", sa.column("key", sa.Text), sa.column("value", sa.Text)),
        [{"key": "application", "value": "gpusched"}],
    )
